//! What the program writes, and where: data to stdout, the rest to stderr; colour only on a terminal.

use std::io::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use crate::exit::Hinted;

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How a command prints its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Bold, for what to look at first.
pub(crate) const BOLD: Style = Style::new().bold();
/// Good.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Bad.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// Aside.
pub(crate) const DIM: Style = Style::new().dimmed();

/// A number of bytes for people, in decimal units as crictl and docker print them.
#[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
pub(crate) fn size(bytes: u64) -> String {
    let mut number = bytes as f64;
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    for unit in ["kB", "MB", "GB"] {
        number /= 1000.0;
        if number < 999.95 {
            return format!("{number:.1} {unit}");
        }
    }
    format!("{:.1} TB", number / 1000.0)
}

/// Sends log lines to stderr: without `-v` warnings, or errors alone where the command shows by itself what goes wrong (`quiet`).
/// `TOWLINE_LOG` overrides it.
pub(crate) fn logging(format: LogFormat, verbose: u8, quiet: bool) {
    let level = match verbose {
        // What the client of the API could not do is told by the command, with the address and the file that named it.
        0 if quiet => "error,kube_client=off",
        0 => "warn,kube_client=off",
        1 => "info,hyper=warn,h2=warn,tower=warn",
        _ => "debug,hyper=info,h2=info,tower=info",
    };
    let filter = std::env::var("TOWLINE_LOG").unwrap_or_else(|_| level.to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(&filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let done = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // A second call finds a subscriber in place, which is what is wanted.
    drop(done);
}

/// A line of the answer.
pub(crate) fn line(text: impl std::fmt::Display) -> std::io::Result<()> {
    writeln!(anstream::stdout().lock(), "{text}")
}

/// A line of the answer of a command that goes on, and keeps its exit code, also when nobody reads any more.
#[cfg(feature = "node")]
pub(crate) fn told(text: impl std::fmt::Display) {
    // Whatever else is wrong with stdout, there is nowhere else to say it.
    drop(line(text));
}

/// Takes that nobody reads any more for no error.
#[cfg(feature = "node")]
pub(crate) fn unless_gone(error: anyhow::Error) -> anyhow::Result<()> {
    let gone = error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    });
    if gone { Ok(()) } else { Err(error) }
}

/// A line beside the answer: progress, hints, notes.
pub(crate) fn note(text: impl std::fmt::Display) {
    // Nobody is left to tell when stderr is gone.
    drop(writeln!(anstream::stderr().lock(), "{text}"));
}

/// Draws over the last so many lines of stderr, the current one included.
pub(crate) fn redraw(lines_before: usize, text: &str) {
    let up = match lines_before {
        0 | 1 => String::new(),
        more => format!("\x1b[{}A", more - 1),
    };
    drop(write!(anstream::stderr().lock(), "\r{up}\x1b[J{text}"));
}

/// Progress appears on a terminal only when something takes longer than this.
pub(crate) const SOON: Duration = Duration::from_millis(250);
/// There it is drawn so often.
pub(crate) const DRAWN: Duration = Duration::from_millis(100);
/// Elsewhere a line appears so often.
pub(crate) const LINES: Duration = Duration::from_secs(10);

/// Columns of the terminal that stderr is; 80 where it does not say.
pub(crate) fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { 80 } else { columns }
}

/// A line of progress of at most `columns - 1` columns: a full one would wrap, and what wraps cannot be drawn over. The name gives way
/// first, in its middle.
pub(crate) fn fit(name: &str, stand: &str, columns: usize) -> String {
    let room = columns.saturating_sub(1);
    let length = |text: &str| text.chars().count();
    let for_name = room.saturating_sub(length(stand) + 2).max(8);
    let name = if length(name) > for_name {
        let tail = (for_name - 1) * 2 / 3;
        let head: String = name.chars().take(for_name - 1 - tail).collect();
        let tail: String = name.chars().skip(length(name) - tail).collect();
        format!("{head}…{tail}")
    } else {
        name.to_owned()
    };
    format!("{name}  {stand}").chars().take(room).collect()
}

/// Columns of the terminal that stdout is, 80 where it does not say; `None` where stdout is none.
pub(crate) fn terminal_columns() -> Option<usize> {
    use std::io::IsTerminal as _;
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout);
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    Some(if columns == 0 { 80 } else { columns })
}

/// A styled word.
pub(crate) fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// An error: its line, what caused it, and what to do.
pub(crate) fn error(error: &anyhow::Error) {
    note(format!("{} {error}", styled(BAD.bold(), "error:")));
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let words = words_of(cause);
        if !last.contains(&words) {
            note(format!("  caused by: {words}"));
        }
        last = words;
    }
    for cause in error.chain() {
        if let Some(hinted) = cause.downcast_ref::<Hinted>() {
            note(format!("{} {}", styled(BOLD, "hint:"), hinted.hint));
        }
    }
}

/// An error's own words; of an API server's refusal its sentence, without the document around it.
fn words_of(cause: &(dyn std::error::Error + 'static)) -> String {
    let boxed = cause.downcast_ref::<Box<kube::Error>>();
    let plain = cause.downcast_ref::<kube::Error>();
    match boxed.map(AsRef::as_ref).or(plain) {
        Some(kube::Error::Api(status)) => status.message.clone(),
        _ => cause.to_string(),
    }
}

/// Prints a value as JSON or YAML.
pub(crate) fn document<T: serde::Serialize>(format: Format, value: &T) -> anyhow::Result<()> {
    match format {
        Format::Yaml => line(serde_saphyr::to_string(value)?.trim_end())?,
        Format::Json | Format::Text => line(serde_json::to_string_pretty(value)?)?,
    }
    Ok(())
}

/// Wraps a text at white space to `width` columns, later lines indented by `indent` columns.
pub(crate) fn wrapped(text: &str, width: usize, indent: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut();
        match last {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() + indent <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join(&format!("\n{}", " ".repeat(indent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (31_087_855, "31.1 MB"),
            (999_960_000, "1.0 GB"),
            (u64::MAX, "18446744.1 TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_line_fits_whatever_the_name_is() {
        let name = "registry.example.com:5000/a/very/long/path/of/a/team/application:v1.2.3";
        let stand = "downloading, 42% of 63.9 MB, 5.1 MB/s, 7 s left";
        for columns in [0, 1, 20, 40, 80, 200] {
            let line = fit(name, stand, columns);
            assert!(line.chars().count() < columns.max(1), "{columns}: {line}");
        }
        let line = fit(name, stand, 80);
        assert!(line.ends_with(stand) && line.contains('…'), "{line}");
        assert!(
            line.contains(":v1.2.3"),
            "the end of a name says most: {line}"
        );
        assert_eq!(fit("a", "resolving", 80), "a  resolving");
    }

    #[test]
    fn long_texts_fit_the_width() {
        let text = wrapped("one two three four five", 12, 2);
        assert_eq!(text, "one two\n  three four\n  five");
    }
}
