//! What is missing of a layer, over one connection or several, to the thread that receives it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use towline_cause::{Cause, Failure};
use towline_distribution::{BlobStream, Repository};
use towline_oci::Descriptor;

use crate::lanes::{Cutter, Lanes};
use crate::limiter::Limiter;

/// How often it is decided anew over how many connections.
const TICK: Duration = Duration::from_millis(250);

/// Bytes of a layer that came.
#[derive(Debug)]
pub(crate) struct Piece {
    /// The place of the first.
    pub(crate) at: u64,
    pub(crate) bytes: Bytes,
}

/// Where a layer comes from, and how.
#[derive(Clone, Copy)]
pub(crate) struct From<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) descriptor: &'a Descriptor,
    pub(crate) limiter: Option<&'a Limiter>,
    /// The most connections at the same time.
    pub(crate) connections: usize,
    /// Connections besides each layer's first that the layers of a pull share.
    pub(crate) spare: &'a Arc<Semaphore>,
}

/// A layer's download, its first connection open.
pub(crate) struct Download<'a> {
    from: From<'a>,
    cutter: Cutter,
    first: Coming,
}

/// A part whose bytes come.
struct Coming {
    stream: BlobStream,
    at: u64,
    end: u64,
}

/// What a connection is to do.
enum Task {
    Bring(Coming),
    Ask {
        part: Range<u64>,
        /// It is one of several: what the server sends instead of it is of no use.
        one_of_several: bool,
        /// Held as long as the connection is one of the spare ones.
        spare: Option<OwnedSemaphorePermit>,
    },
}

/// What became of it.
enum End {
    /// All bytes of the part were taken.
    Taken,
    /// Nobody takes bytes any more.
    Unwanted,
    /// The server would send something else: nothing came of the part.
    Odd(Range<u64>),
}

/// What all connections together have brought.
#[derive(Debug, Default)]
struct Brought {
    bytes: AtomicU64,
    /// Microseconds in which bytes had come and were not taken.
    blocked: AtomicU64,
}

impl<'a> Download<'a> {
    /// Asks for the first part of what is missing; `None` where nothing is.
    pub(crate) async fn open(
        from: From<'a>,
        missing: Vec<Range<u64>>,
    ) -> Result<Option<Self>, Failure> {
        let mut cutter = Cutter::new(missing);
        if from.connections < 2 {
            cutter.in_one_piece();
        }
        let bytes = Lanes::new(from.connections, Instant::now()).part();
        loop {
            let Some(part) = cutter.next(bytes) else {
                return Ok(None);
            };
            let asked = from.repository.blob_part(from.descriptor, part.clone());
            let stream = match asked.await {
                // Who does not answer to a range may answer to the whole.
                Err(failure) if cutter.in_parts() && is_odd(&failure) => {
                    cutter.in_one_piece();
                    cutter.give_back(part);
                    continue;
                }
                asked => asked?,
            };
            let mut end = part.end;
            if stream.range().end > end {
                // The server knows no ranges: what it sends is taken as far as it is missing.
                cutter.in_one_piece();
                end = cutter.extend(&part);
            }
            let at = part.start;
            return Ok(Some(Self {
                from,
                cutter,
                first: Coming { stream, at, end },
            }));
        }
    }

    /// Brings everything to `sender`. Ends early, and well, when nobody takes it any more.
    pub(crate) async fn run(self, sender: mpsc::Sender<Piece>) -> Result<(), Failure> {
        let Self {
            from,
            mut cutter,
            first,
        } = self;
        let brought = Brought::default();
        let mut lanes = Lanes::new(from.connections, Instant::now());
        let mut running = FuturesUnordered::new();
        running.push(from.work(Task::Bring(first), &sender, &brought));
        let mut tick = tokio::time::interval(TICK);
        loop {
            while running.len() < lanes.open()
                && let Some(task) = from.next(&mut cutter, &mut lanes, running.is_empty())
            {
                running.push(from.work(task, &sender, &brought));
            }
            tokio::select! {
                ended = running.next() => match ended.transpose()? {
                    None | Some(End::Unwanted) => return Ok(()),
                    Some(End::Taken) => {}
                    Some(End::Odd(part)) => {
                        lanes.single();
                        cutter.in_one_piece();
                        cutter.give_back(part);
                    }
                },
                _ = tick.tick(), if cutter.in_parts() => {}
            }
            let blocked = Duration::from_micros(brought.blocked.load(Ordering::Relaxed));
            let bytes = brought.bytes.load(Ordering::Relaxed);
            lanes.look(Instant::now(), bytes, cutter.left(), blocked);
        }
    }
}

impl From<'_> {
    /// The next part, if there is one and a connection for it.
    fn next(&self, cutter: &mut Cutter, lanes: &mut Lanes, alone: bool) -> Option<Task> {
        let mut spare = None;
        if !alone && cutter.left() > 0 {
            let Ok(permit) = Arc::clone(self.spare).try_acquire_owned() else {
                lanes.refused();
                return None;
            };
            spare = Some(permit);
        }
        Some(Task::Ask {
            part: cutter.next(lanes.part())?,
            one_of_several: cutter.in_parts(),
            spare,
        })
    }

    async fn work(
        &self,
        task: Task,
        sender: &mpsc::Sender<Piece>,
        brought: &Brought,
    ) -> Result<End, Failure> {
        let (coming, _spare) = match task {
            Task::Bring(coming) => (coming, None),
            Task::Ask {
                part,
                one_of_several,
                spare,
            } => {
                let asked = self.repository.blob_part(self.descriptor, part.clone());
                let stream = match asked.await {
                    Err(failure) if one_of_several && is_odd(&failure) => {
                        return Ok(End::Odd(part));
                    }
                    asked => asked?,
                };
                if one_of_several && stream.range().end > part.end {
                    return Ok(End::Odd(part));
                }
                let Range { start: at, end } = part;
                (Coming { stream, at, end }, spare)
            }
        };
        self.pump(coming, sender, brought).await
    }

    /// Passes a part on, piece by piece.
    async fn pump(
        &self,
        mut coming: Coming,
        sender: &mpsc::Sender<Piece>,
        brought: &Brought,
    ) -> Result<End, Failure> {
        while coming.at < coming.end {
            let piece = tokio::select! {
                biased;
                () = sender.closed() => return Ok(End::Unwanted),
                piece = coming.stream.next() => piece,
            };
            let Some(mut bytes) = piece.transpose()? else {
                return Ok(End::Taken);
            };
            let here = Instant::now();
            let wanted = usize::try_from(coming.end - coming.at).unwrap_or(bytes.len());
            bytes.truncate(wanted);
            let length = bytes.len() as u64;
            if let Some(limiter) = self.limiter {
                limiter.pass(bytes.len()).await;
            }
            let at = coming.at;
            if sender.send(Piece { at, bytes }).await.is_err() {
                return Ok(End::Unwanted);
            }
            coming.at += length;
            let blocked = u64::try_from(here.elapsed().as_micros()).unwrap_or(u64::MAX);
            brought.blocked.fetch_add(blocked, Ordering::Relaxed);
            brought.bytes.fetch_add(length, Ordering::Relaxed);
        }
        Ok(End::Taken)
    }
}

/// Whether a refusal may be one of the range alone.
fn is_odd(failure: &Failure) -> bool {
    matches!(
        failure.cause(),
        Cause::DigestMismatch | Cause::RegistryError | Cause::Unknown
    )
}
