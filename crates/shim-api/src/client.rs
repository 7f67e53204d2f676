//! A blocking client. Whoever is asynchronous uses the types and
//! [`frame`](crate::frame) over a stream of its own, from [`connect`].

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::frame::{self, FrameError};
use crate::{
    ContainerState, ContainerStats, Create, Exec, ExecExit, Failure, Hello, OLDEST_VERSION,
    Request, Response, Stream, VERSION,
};

/// Longest path that fits into a unix socket's address.
const MAX_SOCKET_PATH: usize = 107;

/// Connects to a socket, also when its path is longer than an address takes.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() <= MAX_SOCKET_PATH {
        return UnixStream::connect(path);
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return UnixStream::connect(path);
    };
    let dir = File::open(dir)?;
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string());
    UnixStream::connect(short.join(name))
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The shim could not be reached.
    #[error("connect to the shim")]
    Connect(#[source] io::Error),
    /// The connection failed.
    #[error("talk to the shim")]
    Frame(#[from] FrameError),
    /// The shim closed the connection without an answer.
    #[error("the shim closed the connection without an answer")]
    Closed,
    /// The shim answered something else.
    #[error("the shim answered {0} out of turn")]
    Unexpected(String),
    /// The shim refused or failed.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// What an exec wrote and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecResult {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// How it ended.
    pub exit: ExecExit,
}

/// A connection over any stream.
#[derive(Debug)]
pub struct Client<S = UnixStream> {
    stream: S,
    hello: Hello,
}

impl Client {
    /// Connects to a shim's socket.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        let stream = connect(path.as_ref()).map_err(ClientError::Connect)?;
        Self::new(stream)
    }
}

impl<S: Read + Write> Client<S> {
    /// Greets over a connected stream.
    pub fn new(mut stream: S) -> Result<Self, ClientError> {
        let hello = Request::Hello {
            oldest: OLDEST_VERSION,
            newest: VERSION,
        };
        frame::write(&mut stream, &hello)?;
        match next(&mut stream)? {
            Response::Hello(hello) => Ok(Self { stream, hello }),
            other => Err(unexpected(&other)),
        }
    }

    /// What the shim said of itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Sends a request and reads the answer; [`Response::Failure`] is an error.
    pub fn call(&mut self, request: &Request) -> Result<Response, ClientError> {
        frame::write(&mut self.stream, request)?;
        next(&mut self.stream)
    }

    /// [`Request::Create`].
    pub fn create(&mut self, create: Create) -> Result<ContainerState, ClientError> {
        self.state_of(&Request::Create(create))
    }

    /// [`Request::Start`].
    pub fn start(&mut self, id: &str) -> Result<ContainerState, ClientError> {
        self.state_of(&Request::Start { id: id.into() })
    }

    /// [`Request::State`].
    pub fn state(&mut self, id: &str) -> Result<ContainerState, ClientError> {
        self.state_of(&Request::State { id: id.into() })
    }

    /// [`Request::Wait`].
    pub fn wait(
        &mut self,
        id: &str,
        timeout: Option<Duration>,
    ) -> Result<ContainerState, ClientError> {
        self.state_of(&Request::Wait {
            id: id.into(),
            timeout_ms: timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        })
    }

    /// [`Request::Kill`].
    pub fn kill(&mut self, id: &str, signal: i32) -> Result<(), ClientError> {
        self.done(&Request::Kill {
            id: id.into(),
            signal,
            all: false,
        })
    }

    /// [`Request::Delete`].
    pub fn delete(&mut self, id: &str, force: bool) -> Result<(), ClientError> {
        self.done(&Request::Delete {
            id: id.into(),
            force,
        })
    }

    /// [`Request::ReopenLog`].
    pub fn reopen_log(&mut self, id: &str) -> Result<(), ClientError> {
        self.done(&Request::ReopenLog { id: id.into() })
    }

    /// [`Request::Update`].
    pub fn update(&mut self, id: &str, resources: serde_json::Value) -> Result<(), ClientError> {
        self.done(&Request::Update {
            id: id.into(),
            resources,
        })
    }

    /// [`Request::Shutdown`].
    pub fn shutdown(&mut self, grace: Duration) -> Result<(), ClientError> {
        self.done(&Request::Shutdown {
            grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// [`Request::List`].
    pub fn list(&mut self) -> Result<Vec<ContainerState>, ClientError> {
        match self.call(&Request::List)? {
            Response::List { containers } => Ok(containers),
            other => Err(unexpected(&other)),
        }
    }

    /// [`Request::Stats`].
    pub fn stats(&mut self, id: &str) -> Result<ContainerStats, ClientError> {
        match self.call(&Request::Stats { id: id.into() })? {
            Response::Stats(stats) => Ok(stats),
            other => Err(unexpected(&other)),
        }
    }

    /// [`Request::Exec`], with all its output.
    pub fn exec(&mut self, exec: Exec) -> Result<ExecResult, ClientError> {
        let mut result = ExecResult::default();
        let mut response = self.call(&Request::Exec(exec))?;
        loop {
            match response {
                Response::Output { stream, data } => match stream {
                    Stream::Stdout => result.stdout.extend(data),
                    Stream::Stderr => result.stderr.extend(data),
                },
                Response::Exec(exit) => {
                    result.exit = exit;
                    return Ok(result);
                }
                other => return Err(unexpected(&other)),
            }
            response = next(&mut self.stream)?;
        }
    }

    fn state_of(&mut self, request: &Request) -> Result<ContainerState, ClientError> {
        match self.call(request)? {
            Response::State(state) => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    fn done(&mut self, request: &Request) -> Result<(), ClientError> {
        match self.call(request)? {
            Response::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

fn next(stream: &mut impl Read) -> Result<Response, ClientError> {
    match frame::read(stream)? {
        Some(Response::Failure(failure)) => Err(failure.into()),
        Some(response) => Ok(response),
        None => Err(ClientError::Closed),
    }
}

fn unexpected(response: &Response) -> ClientError {
    let name = match response {
        Response::Hello(_) => "Hello",
        Response::Done => "Done",
        Response::State(_) => "State",
        Response::List { .. } => "List",
        Response::Output { .. } => "Output",
        Response::Exec(_) => "Exec",
        Response::Stats(_) => "Stats",
        Response::Failure(_) => "Failure",
    };
    ClientError::Unexpected(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FailureCode, Namespaces};
    use std::os::unix::net::UnixListener;

    fn server(answers: Vec<Response>) -> UnixStream {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let hello = Response::Hello(Hello {
            version: 1,
            sandbox: "pod".into(),
            pid: 1,
            namespaces: Namespaces::default(),
        });
        for answer in std::iter::once(hello).chain(answers) {
            frame::write(&mut theirs, &answer).unwrap();
        }
        ours
    }

    #[test]
    fn an_exec_gathers_its_pieces() {
        let piece = |stream, data: &[u8]| Response::Output {
            stream,
            data: data.to_vec(),
        };
        let exit = ExecExit {
            code: 3,
            ..ExecExit::default()
        };
        let stream = server(vec![
            piece(Stream::Stdout, b"a"),
            piece(Stream::Stderr, b"e"),
            piece(Stream::Stdout, b"b"),
            Response::Exec(exit.clone()),
        ]);
        // The server is gone, so writing may fail; only reading is looked at.
        let mut client = Client::new(Half(stream)).unwrap();
        let result = client.exec(Exec::default()).unwrap();
        assert_eq!(
            (&result.stdout[..], &result.stderr[..]),
            (&b"ab"[..], &b"e"[..])
        );
        assert_eq!(result.exit, exit);
    }

    #[test]
    fn failures_and_silence_are_told_apart() {
        let failure = Failure {
            code: FailureCode::NotFound,
            message: "no container x".into(),
        };
        let stream = server(vec![Response::Failure(failure.clone()), Response::Done]);
        let mut client = Client::new(Half(stream)).unwrap();
        let error = client.state("x").unwrap_err();
        assert!(matches!(error, ClientError::Failure(got) if got == failure));
        assert!(matches!(client.state("x"), Err(ClientError::Unexpected(_))));
        assert!(matches!(client.state("x"), Err(ClientError::Closed)));
    }

    #[test]
    fn a_long_path_is_reached() {
        let dir = tempdir();
        let long = dir.join("x".repeat(120));
        std::fs::create_dir(&long).unwrap();
        let handle = File::open(&long).unwrap();
        let short = format!("/proc/self/fd/{}/s", handle.as_raw_fd());
        let _listener = UnixListener::bind(short).unwrap();
        connect(&long.join("s")).unwrap();
        std::fs::remove_dir_all(dir).unwrap();
    }

    fn tempdir() -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("towline-shim-api-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Reads from the stream, writes to nowhere.
    struct Half(UnixStream);

    impl Read for Half {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Half {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
