//! The shim as the runtime sees it: starting one, and asking it.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::Command;
use towline_shim_api::frame::{self, Decoder, FrameError};
use towline_shim_api::{
    CONFIG_FILE, ContainerState, ContainerStats, Exec, ExecResult, Failure, FailureCode, Hello,
    OLDEST_VERSION, Ready, Request, Response, SandboxConfig, Stream, VERSION,
};
use towline_sys::fs::{self, FsError};

/// How long a shim may take to serve its socket.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an answer may take that waits for nothing but the kernel.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Most that is kept of what a failing shim says, in bytes.
const MAX_WORDS: u64 = 16 << 10;

/// Why a shim could not be started or did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShimError {
    /// Its configuration could not be written.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The program could not be started.
    #[error("start the shim {0}")]
    Spawn(String, #[source] std::io::Error),
    /// It ended before it served.
    #[error("the shim ended before it served its socket: {0}")]
    Ended(String),
    /// Too slow.
    #[error("the shim did not {0} within {1:?}")]
    Timeout(&'static str, Duration),
    /// Nobody listens.
    #[error("connect to the shim at {0}")]
    Connect(String, #[source] std::io::Error),
    /// The stream broke.
    #[error("talk to the shim")]
    Frame(#[from] FrameError),
    /// It closed the connection.
    #[error("the shim closed the connection without an answer")]
    Closed,
    /// It answered something else.
    #[error("the shim answered out of turn")]
    Unexpected,
    /// It refused or failed.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl ShimError {
    /// What the shim itself said, for decisions.
    pub(crate) fn code(&self) -> Option<FailureCode> {
        match self {
            Self::Failure(failure) => Some(failure.code),
            _ => None,
        }
    }

    /// Whether nobody answers any more.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Connect(..) | Self::Closed | Self::Frame(_))
    }
}

/// Starts a shim in its directory; it is on its own afterwards. What it says later goes to `log`.
pub(crate) async fn start(
    command: &[OsString],
    directory: &Path,
    log: &Path,
    config: &SandboxConfig,
) -> Result<Ready, ShimError> {
    fs::create_dir_all_mode(directory, 0o700)?;
    let text = serde_json::to_vec_pretty(config).unwrap_or_default();
    fs::write_atomic_mode(directory.join(CONFIG_FILE), &text, 0o600)?;
    let (program, args) = command
        .split_first()
        .ok_or_else(|| ShimError::Ended("no shim program is configured".to_owned()))?;
    let spawn = |e| ShimError::Spawn(program.to_string_lossy().into_owned(), e);
    let errors = std::fs::File::create(log).map_err(spawn)?;
    let mut child = Command::new(program)
        .args(args)
        .arg("start")
        .arg(directory)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .kill_on_drop(true)
        .spawn()
        .map_err(spawn)?;
    let line = async {
        let mut words = String::new();
        if let Some(out) = child.stdout.take() {
            out.take(MAX_WORDS)
                .read_to_string(&mut words)
                .await
                .map_err(spawn)?;
        }
        let status = child.wait().await.map_err(spawn)?;
        Ok::<_, ShimError>((status, words))
    };
    let (status, words) = tokio::time::timeout(START_TIMEOUT, line)
        .await
        .map_err(|_| ShimError::Timeout("start", START_TIMEOUT))??;
    if let (true, Ok(ready)) = (status.success(), serde_json::from_str(words.trim())) {
        return Ok(ready);
    }
    let said = fs::read_to_string_bounded(log, MAX_WORDS).unwrap_or_default();
    Err(ShimError::Ended(format!("{status}: {}", said.trim())))
}

/// Ends and removes what a shim that was killed left behind.
pub(crate) async fn clean_up(command: &[OsString], directory: &Path) -> Result<(), ShimError> {
    let (program, args) = command
        .split_first()
        .ok_or_else(|| ShimError::Ended("no shim program is configured".to_owned()))?;
    let spawn = |e| ShimError::Spawn(program.to_string_lossy().into_owned(), e);
    let run = Command::new(program)
        .args(args)
        .arg("cleanup")
        .arg(directory)
        .current_dir("/")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(CALL_TIMEOUT, run)
        .await
        .map_err(|_| ShimError::Timeout("clean up", CALL_TIMEOUT))?
        .map_err(spawn)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ShimError::Ended(said))
}

/// One connection to a shim.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    decoder: Decoder,
    hello: Hello,
}

impl Connection {
    /// Connects and greets.
    pub(crate) async fn open(socket: &Path) -> Result<Self, ShimError> {
        let failed = |e| ShimError::Connect(socket.display().to_string(), e);
        let stream = towline_shim_api::connect(socket).map_err(failed)?;
        stream.set_nonblocking(true).map_err(failed)?;
        let mut connection = Self {
            stream: UnixStream::from_std(stream).map_err(failed)?,
            decoder: Decoder::default(),
            hello: Hello {
                version: VERSION,
                sandbox: String::new(),
                pid: 0,
                namespaces: towline_shim_api::Namespaces::default(),
            },
        };
        let hello = Request::Hello {
            oldest: OLDEST_VERSION,
            newest: VERSION,
        };
        match connection.call(&hello).await? {
            Response::Hello(hello) => connection.hello = hello,
            _ => return Err(ShimError::Unexpected),
        }
        Ok(connection)
    }

    /// What the shim said of itself.
    pub(crate) fn hello(&self) -> &Hello {
        &self.hello
    }

    async fn send(&mut self, request: &Request) -> Result<(), ShimError> {
        let frame = frame::encode(request)?;
        let sent = self.stream.write_all(&frame).await;
        Ok(sent.map_err(FrameError::Io)?)
    }

    async fn next(&mut self) -> Result<Response, ShimError> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.decoder.next_message()? {
                Some(Response::Failure(failure)) => return Err(failure.into()),
                Some(response) => return Ok(response),
                None => {}
            }
            let count = self.stream.read(&mut buffer).await;
            match count.map_err(FrameError::Io)? {
                0 => return Err(ShimError::Closed),
                count => self.decoder.push(&buffer[..count]),
            }
        }
    }

    /// Asks and waits for the answer, within [`CALL_TIMEOUT`].
    pub(crate) async fn call(&mut self, request: &Request) -> Result<Response, ShimError> {
        self.call_within(request, CALL_TIMEOUT).await
    }

    /// Asks and waits for the answer, at most `timeout`.
    pub(crate) async fn call_within(
        &mut self,
        request: &Request,
        timeout: Duration,
    ) -> Result<Response, ShimError> {
        let answer = async {
            self.send(request).await?;
            self.next().await
        };
        tokio::time::timeout(timeout, answer)
            .await
            .map_err(|_| ShimError::Timeout("answer", timeout))?
    }

    /// A request whose answer is `Done`.
    pub(crate) async fn done(&mut self, request: &Request) -> Result<(), ShimError> {
        match self.call(request).await? {
            Response::Done => Ok(()),
            _ => Err(ShimError::Unexpected),
        }
    }

    /// A request whose answer is a container's state.
    pub(crate) async fn state(&mut self, request: &Request) -> Result<ContainerState, ShimError> {
        match self.call(request).await? {
            Response::State(state) => Ok(state),
            _ => Err(ShimError::Unexpected),
        }
    }

    /// Waits until a container has ended, at most `timeout`; the state says whether it has.
    pub(crate) async fn wait(
        &mut self,
        id: &str,
        timeout: Duration,
    ) -> Result<ContainerState, ShimError> {
        let request = Request::Wait {
            id: id.to_owned(),
            timeout_ms: Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
        };
        match self.call_within(&request, timeout + CALL_TIMEOUT).await? {
            Response::State(state) => Ok(state),
            _ => Err(ShimError::Unexpected),
        }
    }

    /// Waits until the shim is gone.
    pub(crate) async fn closed(mut self) {
        let mut byte = [0];
        while matches!(self.stream.read(&mut byte).await, Ok(1..)) {}
    }

    /// All containers that the shim knows.
    pub(crate) async fn list(&mut self) -> Result<Vec<ContainerState>, ShimError> {
        match self.call(&Request::List).await? {
            Response::List { containers } => Ok(containers),
            _ => Err(ShimError::Unexpected),
        }
    }

    /// What a container uses.
    pub(crate) async fn stats(&mut self, id: &str) -> Result<ContainerStats, ShimError> {
        match self.call(&Request::Stats { id: id.to_owned() }).await? {
            Response::Stats(stats) => Ok(stats),
            _ => Err(ShimError::Unexpected),
        }
    }

    /// Runs a command with all its output; dropping the future kills it.
    pub(crate) async fn exec(mut self, exec: Exec) -> Result<ExecResult, ShimError> {
        let mut result = ExecResult::default();
        self.send(&Request::Exec(exec)).await?;
        loop {
            match self.next().await? {
                Response::Output { stream, data } => match stream {
                    Stream::Stdout => result.stdout.extend(data),
                    Stream::Stderr => result.stderr.extend(data),
                },
                Response::Exec(exit) => {
                    result.exit = exit;
                    return Ok(result);
                }
                _ => return Err(ShimError::Unexpected),
            }
        }
    }

    /// Ends every container, and the shim.
    pub(crate) async fn shutdown(mut self, grace: Duration) -> Result<(), ShimError> {
        let request = Request::Shutdown {
            grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
        };
        match self.call_within(&request, grace + CALL_TIMEOUT).await? {
            Response::Done => Ok(()),
            _ => Err(ShimError::Unexpected),
        }
    }
}
