//! `towline causes`: the vocabulary and its pages.

mod find;
mod paper;

use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use towline_cause::{Cause, Fixer, Group, Page, Step, page};

use crate::exit::{OK, hinted};
use crate::output::{self, BOLD, Format, styled};

/// Names of the list, the lines of a page that a person types.
const NAME: Style = AnsiColor::Cyan.on_default();
/// Longer lines are hard to read, however wide the terminal is.
const MOST_COLUMNS: usize = 100;

/// Print the causes of a failed pull, or the page of one: what it is, how it looks in each dialect, how to prove it by hand, how to fix
/// and how to prevent it
///
/// A page is the same as in the documentation: Markdown in a pipe, laid out on a terminal. Words that are no name are looked for in names,
/// groups, steps, summaries and messages, then in whole pages: `towline causes dns`, `towline causes "no such host"`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A cause, such as `TagNotFound`, or words to look for; all have to be there
    #[arg(value_name = "NAME")]
    words: Vec<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// A cause in a list.
#[derive(serde::Serialize)]
struct Row {
    name: &'static str,
    group: Group,
    steps: &'static [Step],
    transient: bool,
    summary: &'static str,
    fix: &'static str,
    fixers: &'static [Fixer],
}

/// A cause with its page.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    row: Row,
    sections: Sections,
}

/// The parts of a page, as Markdown.
#[derive(serde::Serialize)]
struct Sections {
    about: &'static str,
    looks: &'static str,
    /// The messages that `looks` quotes.
    messages: Vec<&'static str>,
    proof: &'static str,
    fix: &'static str,
    prevention: &'static str,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let [name] = args.words.as_slice() else {
        return list(args, &find::with(&args.words));
    };
    if let Some(cause) = find::named(name) {
        return one(args, cause);
    }
    match find::with(&args.words).as_slice() {
        [cause] => one(args, *cause),
        causes => list(args, causes),
    }
}

/// The page of a cause.
fn one(args: &Args, cause: Cause) -> anyhow::Result<ExitCode> {
    match (args.output, output::terminal_columns()) {
        (Format::Text, None) => output::line(page(cause).trim_end())?,
        (Format::Text, Some(columns)) => {
            output::line(paper::laid_out(page(cause), columns.min(MOST_COLUMNS)))?;
        }
        (format, _) => output::document(format, &document(cause))?,
    }
    Ok(ExitCode::from(OK))
}

/// Causes by their groups, a line each.
fn list(args: &Args, causes: &[Cause]) -> anyhow::Result<ExitCode> {
    if causes.is_empty() {
        return Err(unknown(&args.words));
    }
    if args.output != Format::Text {
        let rows: Vec<Row> = causes.iter().copied().map(row).collect();
        output::document(args.output, &rows)?;
        return Ok(ExitCode::from(OK));
    }
    output::line(by_group(causes, output::terminal_columns()))?;
    Ok(ExitCode::from(OK))
}

fn by_group(causes: &[Cause], columns: Option<usize>) -> String {
    let longest = causes.iter().map(|cause| cause.name().len()).max();
    let width = longest.unwrap_or_default();
    let groups = Group::ALL.into_iter().filter_map(|group| {
        let in_group = causes.iter().filter(|cause| cause.group() == group);
        let lines: Vec<String> = in_group
            .map(|cause| {
                let rest = columns.map(|columns| columns.saturating_sub(width + 4));
                let summary = shortened(cause.summary(), rest);
                let name = styled(NAME, format!("{:<width$}", cause.name()));
                format!("  {name}  {summary}")
            })
            .collect();
        let heading = format!("{}: {}", group.name(), group.about());
        let heading = shortened(&heading, columns);
        (!lines.is_empty()).then(|| format!("{}\n{}", styled(BOLD, heading), lines.join("\n")))
    });
    groups.collect::<Vec<String>>().join("\n\n")
}

/// The beginning of a text that fits so many columns.
fn shortened(text: &str, columns: Option<usize>) -> String {
    match columns {
        Some(columns) if text.chars().count() > columns => {
            let kept: String = text.chars().take(columns.saturating_sub(1)).collect();
            format!("{}\u{2026}", kept.trim_end())
        }
        _ => text.to_owned(),
    }
}

fn unknown(words: &[String]) -> anyhow::Error {
    let asked = words.join(" ");
    let near = find::near(&asked);
    let hint = if near.is_empty() {
        "`towline causes` lists them".to_owned()
    } else {
        format!(
            "did you mean {}? `towline causes` lists all",
            near.join(" or ")
        )
    };
    hinted(
        format!("there is no cause {asked:?}, and no page speaks of it"),
        hint,
    )
}

fn row(cause: Cause) -> Row {
    Row {
        name: cause.name(),
        group: cause.group(),
        steps: cause.steps(),
        transient: cause.transient(),
        summary: cause.summary(),
        fix: cause.fix(),
        fixers: cause.fixers(),
    }
}

fn document(cause: Cause) -> Document {
    let page = Page::of(cause);
    Document {
        api_version: "towline.dev/v1",
        kind: "CausePage",
        row: row(cause),
        sections: Sections {
            about: page.about,
            looks: page.looks,
            messages: page.messages().collect(),
            proof: page.proof,
            fix: page.fix,
            prevention: page.prevention,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_fits_the_terminal_and_is_whole_in_a_pipe() {
        let narrow = by_group(&Cause::ALL, Some(60));
        let plain = anstream::adapter::strip_str(&narrow).to_string();
        for line in plain.lines() {
            assert!(line.chars().count() <= 60, "{line}");
        }
        assert!(plain.contains('\u{2026}'));
        let whole = by_group(&Cause::ALL, None);
        for cause in Cause::ALL {
            assert!(whole.contains(cause.summary()), "{cause}");
        }
    }

    /// What pages tell people to type has to be there.
    #[cfg(feature = "node")]
    #[test]
    fn every_command_of_a_page_is_one_of_ours() {
        use clap::CommandFactory as _;
        use clap::error::ErrorKind;

        let mut tried = 0;
        for cause in Cause::ALL {
            let text = page(cause);
            let lines = text.lines().filter(|line| line.starts_with("towline "));
            let in_sentences = text.split('`').filter(|span| span.starts_with("towline "));
            for line in lines.chain(in_sentences) {
                let words = line
                    .split_whitespace()
                    .map(|word| word.trim_matches('\''))
                    .take_while(|word| !word.starts_with(['#', '|', ';']));
                let parsed = crate::cli::Invocation::command().try_get_matches_from(words);
                // Sentences leave out what is clear.
                let short = [
                    ErrorKind::MissingRequiredArgument,
                    ErrorKind::InvalidValue,
                    ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
                ];
                let wrong = parsed.err().filter(|error| !short.contains(&error.kind()));
                assert!(wrong.is_none(), "{cause}: {line}: {wrong:?}");
                tried += 1;
            }
        }
        assert!(tried > 60, "{tried} only");
    }
}
