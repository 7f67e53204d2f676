//! What the helper is told and tells: one JSON document a packet, with descriptors beside it.
//!
//! This process takes what the helper says for hostile: packets are bounded, words lose what a terminal would obey.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Ceilings;
use crate::ceilings::Limit;
use crate::unpack::{Extracted, Rights, UnpackError};

/// Bytes of a packet, at most.
const MOST: usize = 16 << 10;
/// Descriptors beside one, at most.
const DESCRIPTORS: usize = 3;
/// Characters of somebody else's words that are shown.
const WORDS: usize = 2000;

/// A layer to unpack. Beside it: the socket to talk about it, the directory, the file for the list of files.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Compressed bytes.
    pub(super) size: u64,
    /// The diffID; only its algorithm is used.
    pub(super) diff_id: String,
    pub(super) ceilings: Ceilings,
    pub(super) rights: Rights,
}

/// Compressed bytes that are in the spool.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Bytes {
    /// All up to this one.
    pub(super) until: u64,
    /// From here on they are in another file, given beside this, that begins with this byte.
    pub(super) file: Option<u64>,
}

/// What the process of a layer says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said {
    /// What it could not give up.
    Lacks(Vec<String>),
    /// It works: compressed bytes that were taken, blocks that were made of them.
    Alive { taken: u64, blocks: u64 },
    /// The directory beside this hides what is below it.
    Opaque,
    /// The layer is unpacked.
    Done(Done),
    /// It cannot be.
    Failed(Fault),
    /// The process ended like this without a word of its own. The helper says it.
    Ended(String),
}

/// A layer that was unpacked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) digest: String,
    pub(super) size: u64,
    pub(super) entries: u64,
    pub(super) opaque_root: bool,
    pub(super) listed: bool,
    pub(super) left_out: u64,
}

impl From<Done> for Extracted {
    fn from(done: Done) -> Self {
        Self {
            size: done.size,
            entries: done.entries,
            opaque_root: done.opaque_root,
            listed: done.listed,
            left_out: done.left_out,
        }
    }
}

/// An [`UnpackError`] on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Fault {
    Archive {
        at: u64,
        problem: String,
    },
    Entry {
        path: String,
        problem: String,
    },
    Unsupported {
        path: String,
        what: String,
    },
    Ceiling {
        limit: Limit,
        name: String,
        ceiling: u64,
    },
    Io {
        action: String,
        path: String,
        errno: Option<i32>,
        text: String,
    },
    Decompress(String),
    Helper(String),
    Stopped,
}

impl From<UnpackError> for Fault {
    fn from(error: UnpackError) -> Self {
        match error {
            UnpackError::Archive { at, problem } => Self::Archive { at, problem },
            UnpackError::Entry { path, problem } => Self::Entry { path, problem },
            UnpackError::Unsupported { path, what } => Self::Unsupported { path, what },
            UnpackError::Ceiling {
                limit,
                name,
                ceiling,
            } => Self::Ceiling {
                limit,
                name,
                ceiling,
            },
            UnpackError::Io {
                action,
                path,
                source,
            } => Self::Io {
                action: action.into_owned(),
                path,
                errno: source.raw_os_error(),
                text: source.to_string(),
            },
            UnpackError::Decompress(source) => Self::Decompress(source.to_string()),
            UnpackError::Helper(how) => Self::Helper(how),
            UnpackError::Stopped => Self::Stopped,
        }
    }
}

impl From<Fault> for UnpackError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Archive { at, problem } => Self::Archive {
                at,
                problem: plain(&problem),
            },
            Fault::Entry { path, problem } => Self::Entry {
                path: plain(&path),
                problem: plain(&problem),
            },
            Fault::Unsupported { path, what } => Self::Unsupported {
                path: plain(&path),
                what: plain(&what),
            },
            Fault::Ceiling {
                limit,
                name,
                ceiling,
            } => Self::Ceiling {
                limit,
                name: plain(&name),
                ceiling,
            },
            Fault::Io {
                action,
                path,
                errno,
                text,
            } => Self::Io {
                action: plain(&action).into(),
                path: plain(&path),
                source: match errno {
                    Some(errno) => io::Error::from_raw_os_error(errno),
                    None => io::Error::other(plain(&text)),
                },
            },
            Fault::Decompress(text) => Self::Decompress(io::Error::other(plain(&text))),
            Fault::Helper(how) => Self::Helper(plain(&how)),
            Fault::Stopped => Self::Stopped,
        }
    }
}

/// Somebody else's words, bounded and without control characters.
pub(super) fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().take(WORDS).map(shown).collect()
}

/// Two ends that keep packets apart.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// Sends a document. Waits while the other side has not taken what it was sent before.
pub(super) fn send(
    socket: impl AsFd,
    document: &impl Serialize,
    beside: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let text = serde_json::to_vec(document)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !beside.is_empty() && !control.push(SendAncillaryMessage::ScmRights(beside)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    loop {
        let packet = [IoSlice::new(&text)];
        match rustix::net::sendmsg(&socket, &packet, &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => {
                sent?;
                return Ok(());
            }
        }
    }
}

/// Waits for a document; `None` at the end.
pub(super) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut text = [0; MOST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut packet = [IoSliceMut::new(&mut text)];
        match rustix::net::recvmsg(&socket, &mut packet, &mut control, RecvFlags::CMSG_CLOEXEC) {
            // The other end went without having read all; what it said comes first, and then the end.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            received => break received?,
        }
    };
    let mut beside = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            beside.extend(descriptors);
        }
    }
    if received.bytes == 0 && ended(&socket)? {
        return Ok(None);
    }
    let cut = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
    if received.flags.intersects(cut) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Some((
        serde_json::from_slice(&text[..received.bytes])?,
        beside,
    )))
}

/// Whether the other side is closed: a packet without bytes looks the same.
fn ended(socket: impl AsFd) -> io::Result<bool> {
    let mut polled = [PollFd::new(&socket, PollFlags::RDHUP)];
    wait(&mut polled, Some(0))?;
    let gone = PollFlags::HUP | PollFlags::RDHUP;
    Ok(polled[0].revents().intersects(gone))
}

/// Waits until something is to be had, or so many milliseconds have passed; whether something is.
pub(super) fn wait(polled: &mut [PollFd<'_>], milliseconds: Option<u32>) -> io::Result<bool> {
    let most = milliseconds.map(|milliseconds| Timespec {
        tv_sec: i64::from(milliseconds / 1000),
        tv_nsec: i64::from(milliseconds % 1000) * 1_000_000,
    });
    loop {
        match poll(polled, most.as_ref()) {
            Err(Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

/// Waits until the socket has something to read or its other end is gone.
pub(super) fn readable(socket: impl AsFd, milliseconds: u32) -> io::Result<bool> {
    wait(
        &mut [PollFd::new(&socket, PollFlags::IN)],
        Some(milliseconds),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_descriptors_come_as_they_were_sent() {
        let (here, there) = pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let bytes = Bytes {
            until: 7,
            file: Some(3),
        };
        send(&here, &bytes, &[file.as_fd()]).unwrap();
        let (came, beside) = receive::<Bytes>(&there).unwrap().unwrap();
        assert_eq!((came.until, came.file, beside.len()), (7, Some(3), 1));
        assert!(!readable(&there, 0).unwrap());
        drop(here);
        assert!(receive::<Bytes>(&there).unwrap().is_none());
    }

    #[test]
    fn what_is_no_document_is_refused() {
        let (here, there) = pair().unwrap();
        for packet in [&b"{"[..], b"", &vec![b' '; MOST + 1]] {
            rustix::net::send(&here, packet, SendFlags::empty()).unwrap();
            receive::<Said>(&there).unwrap_err();
        }
    }

    #[test]
    fn an_error_says_the_same_on_the_other_side() {
        for error in [
            UnpackError::entry(b"a/b", "no"),
            UnpackError::over(Limit::Ratio, 400),
            UnpackError::Decompress(io::Error::other("bad block")),
            UnpackError::Io {
                action: "write the file".into(),
                path: "x".to_owned(),
                source: io::Error::from_raw_os_error(28),
            },
            UnpackError::Stopped,
        ] {
            let (cause, words) = (error.cause(), towline_sys::task::chain(&error));
            let sent = serde_json::to_vec(&Fault::from(error)).unwrap();
            let came: Fault = serde_json::from_slice(&sent).unwrap();
            let came = UnpackError::from(came);
            assert_eq!(
                (came.cause(), towline_sys::task::chain(&came)),
                (cause, words)
            );
        }
        let forged = Fault::Entry {
            path: "\u{1b}]0;x\u{7}".to_owned(),
            problem: "x".repeat(5000),
        };
        let shown = UnpackError::from(forged).to_string();
        assert!(shown.len() < 2100 && !shown.contains('\u{1b}'), "{shown}");
    }
}
