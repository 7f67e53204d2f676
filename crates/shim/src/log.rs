//! A container's log file, in the format that the kubelet reads:
//! `<RFC 3339 time with nanoseconds> <stdout|stderr> <F|P> <text>`. `P` marks a
//! line that goes on in the next one.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use towline_shim_api::Stream;

/// Longest text in one line of the log; longer lines are cut into pieces.
const LINE_LIMIT: usize = 16 << 10;

/// Cuts what one stream of a container writes into lines of the log.
#[derive(Debug)]
pub(crate) struct Splitter {
    stream: Stream,
    /// The beginning of a line of which the end has not come yet; shorter than
    /// [`LINE_LIMIT`].
    begun: Vec<u8>,
}

impl Splitter {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            begun: Vec::new(),
        }
    }

    /// Takes bytes and appends the lines that are whole to `out`.
    pub(crate) fn push(&mut self, mut bytes: &[u8], time: &str, out: &mut Vec<u8>) {
        loop {
            let room = LINE_LIMIT - self.begun.len();
            let end = bytes.iter().take(room + 1).position(|&byte| byte == b'\n');
            if let Some(end) = end {
                self.line(b'F', &bytes[..end], time, out);
                bytes = &bytes[end + 1..];
            } else if bytes.len() > room {
                self.line(b'P', &bytes[..room], time, out);
                bytes = &bytes[room..];
            } else {
                self.begun.extend_from_slice(bytes);
                return;
            }
        }
    }

    /// The stream has ended: a line without an end is a line too.
    pub(crate) fn finish(&mut self, time: &str, out: &mut Vec<u8>) {
        if !self.begun.is_empty() {
            self.line(b'F', &[], time, out);
        }
    }

    fn line(&mut self, tag: u8, rest: &[u8], time: &str, out: &mut Vec<u8>) {
        let stream = match self.stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        out.extend_from_slice(time.as_bytes());
        out.push(b' ');
        out.extend_from_slice(stream.as_bytes());
        out.extend_from_slice(&[b' ', tag, b' ']);
        out.append(&mut self.begun);
        out.extend_from_slice(rest);
        out.push(b'\n');
    }
}

/// The present time as the log shows it.
pub(crate) fn timestamp() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S.%9fZ")
        .to_string()
}

/// A log file.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    /// The last write failed: said once, not for each line.
    failing: bool,
}

impl Log {
    /// Opens (or creates, mode 0640) the file at its end. A symlink at its
    /// place is refused.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.into(),
            file: open(path)?,
            failing: false,
        })
    }

    /// Opens the path anew, after somebody renamed the file.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        Ok(())
    }

    /// Appends lines. What cannot be written (a full disk) is lost: the
    /// container goes on.
    pub(crate) fn append(&mut self, lines: &[u8]) {
        let written = self.file.write_all(lines);
        if let Err(error) = &written
            && !self.failing
        {
            tracing::error!(path = %self.path.display(), %error, "log lines are lost");
        }
        self.failing = written.is_err();
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?;
    Ok(File::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> String {
        let mut splitter = Splitter::new(Stream::Stdout);
        let mut out = Vec::new();
        for piece in pieces {
            splitter.push(piece, "T", &mut out);
        }
        splitter.finish("T", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_cut_where_they_end() {
        assert_eq!(split(&[]), "");
        assert_eq!(split(&[b"a\n"]), "T stdout F a\n");
        assert_eq!(split(&[b"a", b"b\nc"]), "T stdout F ab\nT stdout F c\n");
        assert_eq!(split(&[b"\n\n"]), "T stdout F \nT stdout F \n");
    }

    #[test]
    fn long_lines_are_cut_into_pieces() {
        let exact = "x".repeat(LINE_LIMIT);
        assert_eq!(
            split(&[exact.as_bytes(), b"\n"]),
            format!("T stdout F {exact}\n")
        );
        let long = format!("{exact}y\nz\n");
        let want = format!("T stdout P {exact}\nT stdout F y\nT stdout F z\n");
        assert_eq!(split(&[long.as_bytes()]), want);
        // However it comes, it is cut the same way.
        let bytes: Vec<&[u8]> = long.as_bytes().chunks(777).collect();
        assert_eq!(split(&bytes), want);
    }

    #[test]
    fn times_have_nine_digits_and_the_zone() {
        let time = timestamp();
        assert_eq!(time.len(), "2026-01-01T00:00:00.000000000Z".len(), "{time}");
        assert!(time.parse::<jiff::Timestamp>().is_ok());
    }
}
