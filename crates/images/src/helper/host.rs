//! This side: starts the helper, hands layers to it, listens to their processes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::FileType;
use rustix::net::Shutdown;
use towline_oci::Digest;
use towline_sys::proc::ChildGuard;

use super::Program;
use super::wire::{Bytes, Order, Said, pair, plain, readable, receive, send};
use crate::Ceilings;
use crate::unpack::{Attribute, Marks as _, Rights, UnpackError, Unpacked};

/// How long a process that was told to end may take for it before the helper is ended too.
const ENDING: Duration = Duration::from_secs(10);
/// How often the time is looked at while a process says nothing.
const LOOK: u32 = 1000;
/// What is left for whoever reads that a process ended.
const KEPT: &str = "; what was downloaded is kept, so pull again";

/// The helper of a node's images: there while layers are unpacked.
#[derive(Debug)]
pub(crate) struct Helpers {
    program: Program,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    holds: usize,
    running: Option<Arc<Helper>>,
}

/// A helper that runs; ends with the last one who has it.
#[derive(Debug)]
struct Helper {
    control: OwnedFd,
    child: Mutex<ChildGuard>,
}

/// Keeps the helper from one layer to the next.
#[derive(Debug)]
pub(crate) struct Hold(Arc<Helpers>);

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.holds -= 1;
        if state.holds == 0 {
            // The layers that are still on their way out have it too.
            state.running = None;
        }
    }
}

impl Helpers {
    pub(crate) fn new(program: Program) -> Self {
        Self {
            program,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the helper, once there is one, until this is dropped.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        self.state().holds += 1;
        Hold(Arc::clone(self))
    }

    /// Has a layer unpacked into `folder`.
    pub(crate) fn begin(
        &self,
        (size, diff_id): (u64, &Digest),
        (ceilings, rights): (&Ceilings, Rights),
        folder: &File,
        listing: &File,
    ) -> Result<LayerProcess, UnpackError> {
        let order = Order {
            size,
            diff_id: diff_id.to_string(),
            ceilings: *ceilings,
            rights,
        };
        let failed = |error: &io::Error| {
            let program = self.program.program.display();
            UnpackError::Helper(format!("cannot be started ({program}): {error}"))
        };
        let helper = self.helper().map_err(|error| failed(&error))?;
        let (socket, theirs) = pair().map_err(|error| failed(&error))?;
        let beside = [theirs.as_fd(), folder.as_fd(), listing.as_fd()];
        send(&helper.control, &order, &beside).map_err(|error| failed(&error))?;
        Ok(LayerProcess {
            socket,
            helper,
            told: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            size,
            patience: self.program.patience,
            rights,
        })
    }

    /// The helper that runs, or a new one.
    fn helper(&self) -> io::Result<Arc<Helper>> {
        let mut state = self.state();
        if let Some(running) = &state.running
            && running.ended(Duration::ZERO).is_none()
        {
            return Ok(Arc::clone(running));
        }
        let helper = Arc::new(Helper::start(&self.program)?);
        if state.holds > 0 {
            state.running = Some(Arc::clone(&helper));
        }
        Ok(helper)
    }
}

impl Helper {
    fn start(program: &Program) -> io::Result<Self> {
        let (control, theirs) = pair()?;
        let mut command = Command::new(&program.program);
        command
            .args(&program.args)
            // Nothing in there is for a process that hostile bytes may take over.
            .env_clear()
            .current_dir("/")
            // Ctrl-C is for whoever pulls, who then ends this in order.
            .process_group(0)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Self {
            control,
            child: Mutex::new(ChildGuard::spawn(&mut command)?),
        })
    }

    /// How it ended, if it did within this time.
    fn ended(&self, wait: Duration) -> Option<String> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let status = child.wait_timeout(wait).ok().flatten()?;
        Some(format!("is gone ({status})"))
    }

    /// Ends it, and the processes of its layers with it.
    fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.child().kill().ok();
    }
}

/// The process that unpacks one layer, seen from here.
#[derive(Debug)]
pub(crate) struct LayerProcess {
    socket: OwnedFd,
    helper: Arc<Helper>,
    /// Bytes that it was told of.
    told: AtomicU64,
    /// It was told to end.
    stopping: AtomicBool,
    size: u64,
    patience: Duration,
    rights: Rights,
}

impl LayerProcess {
    /// Tells it that all bytes up to `until` are in the spool; from the last ones told on in `file`, which begins with that byte, where it is
    /// another one than before. False where nobody listens any more.
    pub(crate) fn tell(&self, until: u64, file: Option<(u64, &File)>) -> bool {
        let bytes = Bytes {
            until,
            file: file.map(|(start, _)| start),
        };
        let beside: Vec<_> = file.iter().map(|(_, file)| file.as_fd()).collect();
        let told = send(&self.socket, &bytes, &beside).is_ok();
        self.told.store(until, Ordering::Relaxed);
        told
    }

    /// Has it killed. [`LayerProcess::listen`] ends once it is dead.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        // It may be gone already. What it says until it is dead is still read.
        rustix::net::shutdown(&self.socket, Shutdown::Write).ok();
    }

    /// What became of the layer, told once the process is dead. `taken` hears how many bytes it has read.
    pub(crate) fn listen(&self, mut taken: impl FnMut(u64)) -> Result<Unpacked, UnpackError> {
        let mut heard = Heard::default();
        let (mut stopped, mut done): (Option<Instant>, Option<Instant>) = (None, None);
        loop {
            if readable(&self.socket, LOOK).unwrap_or(true) {
                match receive::<Said>(&self.socket) {
                    Ok(None) => break,
                    Ok(Some((said, beside))) => self.hear(said, &beside, &mut heard, &mut taken),
                    Err(error) => {
                        heard.failed(format!("says what cannot be understood ({error})"));
                        self.stop();
                        // What it says further is not listened to.
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
            }
            if stopped.is_none() && self.hangs(&mut heard) {
                let seconds = self.patience.as_secs_f64();
                heard.failed(format!("did nothing for {seconds} s and was ended{KEPT}"));
                self.stop();
            }
            if self.stopping.load(Ordering::Relaxed) {
                if stopped.get_or_insert_with(Instant::now).elapsed() > ENDING {
                    self.helper.kill();
                }
            } else if heard.outcome.is_some()
                && done.get_or_insert_with(Instant::now).elapsed() > ENDING
            {
                // Whoever has said what became of the layer has nothing more to do.
                self.stop();
            }
        }
        heard.outcome.unwrap_or_else(|| {
            let helper = self.helper.ended(Duration::from_secs(1));
            let how = helper.unwrap_or_else(|| "ended before the layer was done".to_owned());
            Err(UnpackError::Helper(how + KEPT))
        })
    }

    /// Whether it has something to do and does nothing.
    fn hangs(&self, heard: &mut Heard) -> bool {
        let told = self.told.load(Ordering::Relaxed);
        if heard.taken >= told && told < self.size {
            // The time that it waits for bytes is not its own.
            heard.last = Instant::now();
        }
        heard.last.elapsed() > self.patience
    }

    fn hear(&self, said: Said, beside: &[OwnedFd], heard: &mut Heard, taken: &mut impl FnMut(u64)) {
        match said {
            Said::Lacks(what) => {
                let what = plain(&what.join(", "));
                tracing::debug!(
                    what,
                    "the process that unpacks keeps rights that it need not have"
                );
            }
            Said::Alive {
                taken: bytes,
                blocks,
            } => {
                // Only who goes on lives; nobody goes on for ever.
                if bytes > heard.taken || blocks > heard.blocks {
                    heard.last = Instant::now();
                }
                heard.taken = heard.taken.max(bytes.min(self.size));
                heard.blocks = heard.blocks.max(blocks);
                taken(heard.taken);
            }
            Said::Opaque => {
                for dir in beside {
                    self.mark(dir, heard);
                }
            }
            Said::Done(done) => {
                let digest = Digest::parse(&done.digest);
                heard.outcome(digest.map(|digest| (done.into(), digest)).map_err(|error| {
                    UnpackError::Helper(format!("names no digest: {}", plain(&error.to_string())))
                }));
            }
            Said::Failed(fault) => heard.outcome(Err(fault.into())),
            Said::Ended(how) => heard.failed(plain(&how) + KEPT),
        }
    }

    /// Marks a directory of the layer for it.
    fn mark(&self, dir: &OwnedFd, heard: &mut Heard) {
        let directory = rustix::fs::fstat(dir)
            .map(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        let marked = match directory {
            Ok(true) => Attribute::of(self.rights).opaque(dir),
            Ok(false) => Err(rustix::io::Errno::NOTDIR),
            Err(error) => Err(error),
        };
        if let Err(error) = marked {
            heard.outcome(Err(UnpackError::Io {
                action: "mark it opaque".into(),
                path: String::new(),
                source: error.into(),
            }));
        }
    }
}

/// What a process has said so far.
struct Heard {
    taken: u64,
    blocks: u64,
    last: Instant,
    outcome: Option<Result<Unpacked, UnpackError>>,
}

impl Default for Heard {
    fn default() -> Self {
        Self {
            taken: 0,
            blocks: 0,
            last: Instant::now(),
            outcome: None,
        }
    }
}

impl Heard {
    /// The first word counts.
    fn outcome(&mut self, outcome: Result<Unpacked, UnpackError>) {
        self.outcome.get_or_insert(outcome);
    }

    fn failed(&mut self, how: String) {
        self.outcome(Err(UnpackError::Helper(how)));
    }
}
