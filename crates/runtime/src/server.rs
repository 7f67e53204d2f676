//! The unix socket: who may connect, and how long lists are cut.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use futures::{Stream, StreamExt as _, stream};
use tokio::net::{UnixListener, UnixStream};
use tonic::{Response, Status};
use towline_sys::fs::{self, FsError};
use towline_sys::{PeerCredentials, peer_credentials};

/// Items in one message of a streamed list.
const PIECE: usize = 500;

/// A streamed list.
pub(crate) type Pieces<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A list in messages of at most [`PIECE`] items; an empty list is one empty message.
pub(crate) fn pieces<I, T>(
    items: Vec<I>,
    wrap: impl Fn(Vec<I>) -> T + Send + 'static,
) -> Response<Pieces<T>>
where
    I: Send + 'static,
    T: Send + 'static,
{
    let mut chunks = Vec::new();
    let mut items = items.into_iter();
    loop {
        let chunk: Vec<I> = items.by_ref().take(PIECE).collect();
        if chunk.is_empty() && !chunks.is_empty() {
            break;
        }
        let last = chunk.len() < PIECE;
        chunks.push(chunk);
        if last {
            break;
        }
    }
    let messages = stream::iter(chunks).map(move |chunk| Ok(wrap(chunk)));
    Response::new(Box::pin(messages))
}

/// A socket that only root and the runtime's own user may use. Its file goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A file that is left is replaced by the next start.
        drop(fs::remove_file(&self.path));
    }
}

impl Socket {
    /// Listens. A file that an earlier run left is replaced; one on which somebody answers is an error.
    pub(crate) async fn bind(path: &Path) -> Result<Self, FsError> {
        let at = |what, e| FsError::new(what, path, e);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        if path.exists() {
            if UnixStream::connect(path).await.is_ok() {
                let error = io::Error::from(io::ErrorKind::AddrInUse);
                return Err(at("listen on", error));
            }
            fs::remove_file(path)?;
        }
        // Bound under another name until it has its mode, so that nobody else ever can connect.
        let early = path.with_extension("new");
        fs::remove_file(&early)?;
        let listener = UnixListener::bind(&early).map_err(|e| at("listen on", e))?;
        std::fs::set_permissions(&early, std::fs::Permissions::from_mode(0o600))
            .map_err(|e| at("set the mode of", e))?;
        fs::rename(&early, path)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// The connections of those who may connect.
    pub(crate) fn connections(self) -> impl Stream<Item = io::Result<UnixStream>> {
        stream::unfold(self, |socket| async move {
            let stream = socket.accept().await;
            Some((stream, socket))
        })
    }

    async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            match peer_credentials(&stream) {
                Ok(peer) if allowed(peer, rustix::process::geteuid().as_raw()) => {
                    return Ok(stream);
                }
                Ok(peer) => {
                    tracing::warn!(uid = peer.uid, pid = peer.pid, "a connection was refused");
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection without credentials was refused");
                }
            }
        }
    }
}

/// Root and the owner.
fn allowed(peer: PeerCredentials, own: u32) -> bool {
    peer.uid == 0 || peer.uid == own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_owner_may_connect() {
        let peer = |uid| PeerCredentials {
            pid: 1,
            uid,
            gid: 0,
        };
        assert!(allowed(peer(0), 1000) && allowed(peer(1000), 1000));
        assert!(!allowed(peer(1001), 1000) && !allowed(peer(1000), 0));
    }

    #[tokio::test]
    async fn a_list_is_cut_and_an_empty_one_is_one_message() {
        for (count, expected) in [
            (0, vec![0]),
            (3, vec![3]),
            (500, vec![500, 0]),
            (501, vec![500, 1]),
        ] {
            let all: Vec<_> = pieces(vec![0u8; count], |c| c.len())
                .into_inner()
                .map(Result::unwrap)
                .collect()
                .await;
            let mut all = all;
            all.retain(|n| *n > 0 || count == 0);
            let mut expected = expected;
            expected.retain(|n| *n > 0 || count == 0);
            assert_eq!(all, expected);
        }
    }

    #[tokio::test]
    async fn the_socket_is_private_and_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sock");
        let socket = Socket::bind(&path).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(Socket::bind(&path).await.is_err());
        drop(socket);
        assert!(!path.exists());
        std::fs::write(&path, "").unwrap();
        Socket::bind(&path).await.unwrap();
    }
}
