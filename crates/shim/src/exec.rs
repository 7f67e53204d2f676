//! Commands that run inside containers for somebody who waits.

use std::fs::File;
use std::time::{Duration, Instant};

use towline_shim_api::{EXEC_OUTPUT_LIMIT, Exec, ExecExit, Response, Stream};
use towline_sys::proc::send_signal;

use crate::container::{CHUNK, read_some};
use crate::oci::Outputs;

/// How long the outputs of a command that has ended are still read when
/// something that it started holds them.
const DRAIN: Duration = Duration::from_secs(1);

/// A command that runs.
#[derive(Debug)]
pub(crate) struct Running {
    /// The connection that waits for it; `None` when it has gone.
    pub(crate) connection: Option<u64>,
    pub(crate) pid: i32,
    outputs: [Output; 2],
    deadline: Option<Instant>,
    exit: ExecExit,
    /// It has ended; its outputs are still read, until then.
    ended: Option<Instant>,
}

#[derive(Debug)]
struct Output {
    stream: Stream,
    file: Option<File>,
    left: u64,
}

impl Running {
    pub(crate) fn new(connection: u64, exec: &Exec, pid: i32, outputs: Outputs) -> Self {
        let left = exec
            .output_limit
            .unwrap_or(EXEC_OUTPUT_LIMIT)
            .min(EXEC_OUTPUT_LIMIT);
        let output = |stream, file| Output {
            stream,
            file: Some(file),
            left,
        };
        Self {
            connection: Some(connection),
            pid,
            outputs: [
                output(Stream::Stdout, outputs.stdout),
                output(Stream::Stderr, outputs.stderr),
            ],
            deadline: exec
                .timeout_ms
                .and_then(|time| Instant::now().checked_add(Duration::from_millis(time))),
            exit: ExecExit::default(),
            ended: None,
        }
    }

    /// The outputs to be looked at.
    pub(crate) fn pipes(&self) -> impl Iterator<Item = (Stream, &File)> {
        self.outputs
            .iter()
            .filter_map(|output| output.file.as_ref().map(|file| (output.stream, file)))
    }

    /// Reads one chunk of an output; answers what is to be passed on.
    pub(crate) fn read(&mut self, stream: Stream) -> Option<Response> {
        let output = self
            .outputs
            .iter_mut()
            .find(|output| output.stream == stream)?;
        let mut data = vec![0; CHUNK];
        let length = read_some(output.file.as_mut()?, &mut data)?;
        if length == 0 {
            output.file = None;
            return None;
        }
        let room = usize::try_from(output.left).unwrap_or(usize::MAX);
        let kept = length.min(room);
        output.left -= u64::try_from(kept).unwrap_or(output.left);
        self.exit.truncated |= kept < length;
        data.truncate(kept);
        (kept > 0).then_some(Response::Output { stream, data })
    }

    /// Its process has ended.
    pub(crate) fn ended(&mut self, code: i32) {
        self.exit.code = code;
        self.ended = Some(Instant::now() + DRAIN);
    }

    /// Kills its process and those of its session's first group, until it has
    /// been seen to end.
    pub(crate) fn kill(&self) {
        if self.ended.is_none() {
            // The library made it the leader of a session. A failure is of the
            // group being gone already.
            drop(send_signal(-self.pid, nix::libc::SIGKILL));
            drop(send_signal(self.pid, nix::libc::SIGKILL));
        }
    }

    /// Kills it when its time is over.
    pub(crate) fn enforce_deadline(&mut self, now: Instant) {
        if self.ended.is_none() && self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.exit.timed_out = true;
            self.kill();
        }
    }

    /// The next time at which something is to be done.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.ended.or(self.deadline)
    }

    /// How it ended, once nothing more is to be read.
    pub(crate) fn finished(&self, now: Instant) -> Option<ExecExit> {
        let until = self.ended?;
        let drained = self.outputs.iter().all(|output| output.file.is_none());
        (drained || until <= now).then(|| self.exit.clone())
    }
}
