//! Whether the registry is ready, for those who send it work, and what is under way.
//!
//! `/healthz` says that the process answers: who restarts it looks there. `/readyz` says whether it should get requests: not once it was
//! told to stop, and not when it cannot read what it stores. A full disk is no reason to send pulls elsewhere, since they go on; it is
//! one for pushes, so `/readyz?for=push` says so and `/readyz` only mentions it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use http::{Response, StatusCode, Uri};

use crate::body::{Body, full};
use crate::handlers::Registry;
use crate::refusal::Refusal;
use crate::route::query;
use towline_cause::Cause;

/// Requests that are named when they are cut.
const NAMED: usize = 100;

/// What the registry is about.
#[derive(Debug)]
pub(crate) struct State {
    root: PathBuf,
    draining: AtomicBool,
    connections: AtomicU64,
    flights: Arc<Flights>,
}

/// The requests that are under way.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, (String, Instant)>>,
    cut: Mutex<Vec<String>>,
}

/// A request that is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct Flight(Arc<Flights>, u64);

/// A connection that is open until this is dropped.
#[derive(Debug)]
pub(crate) struct Connection<'a>(&'a State);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, (String, Instant)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins.
    pub(crate) fn begin(self: &Arc<Self>, method: &str, path: &str) -> Flight {
        let id = self.next.fetch_add(1, Relaxed);
        let what = (format!("{method} {path}"), Instant::now());
        self.lock().insert(id, what);
        Flight(Arc::clone(self), id)
    }

    /// How many requests began since the start.
    pub(crate) fn begun(&self) -> u64 {
        self.next.load(Relaxed)
    }

    /// Whether nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// What is under way does not come to its end: what it is, in words.
    pub(crate) fn cut(&self) -> Vec<String> {
        let open = self.lock();
        let words = open.values().take(NAMED).map(|(what, since)| {
            let seconds = since.elapsed().as_secs();
            format!("{what}, under way for {seconds} s")
        });
        let words: Vec<String> = words.collect();
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        cut.clone_from(&words);
        words
    }

    /// What was cut at the end.
    pub(crate) fn was_cut(&self) -> Vec<String> {
        let cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        cut.clone()
    }
}

impl State {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            root,
            draining: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            flights: Arc::default(),
        }
    }

    /// It was told to stop.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    pub(crate) fn flights(&self) -> &Arc<Flights> {
        &self.flights
    }

    /// A connection opens.
    pub(crate) fn connected(&self) -> Connection<'_> {
        self.connections.fetch_add(1, Relaxed);
        Connection(self)
    }

    /// Bytes of the disk that are free for the registry's user, if that can be known.
    pub(crate) fn free(&self) -> std::io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.root)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Refuses what would need room on a disk that has less than is kept free.
    pub(crate) fn has_room(&self, reserve: u64) -> Result<(), Refusal> {
        match self.free() {
            Ok(free) if free < reserve => {
                let words = format!(
                    "the registry's disk is full: {free} bytes are left, and {reserve} are kept free"
                );
                let refusal = Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN", words);
                Err(refusal.cause(Cause::RegistryError))
            }
            _ => Ok(()),
        }
    }

    /// Lines for `/metrics`.
    pub(crate) fn numbers(&self) -> String {
        let mut lines = vec![
            (
                "connections_open",
                "Connections that are open.",
                self.connections.load(Relaxed),
            ),
            (
                "requests_open",
                "Requests that are under way.",
                self.flights.lock().len() as u64,
            ),
        ];
        if let Ok(free) = self.free() {
            lines.push(("disk_free_bytes", "Bytes of the disk that are free.", free));
        }
        let lines = lines.into_iter().map(|(name, help, value)| {
            let name = format!("towline_registry_{name}");
            format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n")
        });
        lines.collect()
    }
}

impl Registry {
    /// The answer of `/readyz`.
    pub(crate) async fn readyz(self: &Arc<Self>, uri: &Uri) -> Response<Body> {
        let for_pushes = query(uri, "for").first().is_some_and(|what| what == "push");
        let looked = self.blocking("look whether it is ready", |this| Ok(this.readiness()));
        let looked = looked.await;
        let is_silent = match &self.shared {
            Some(shared) if matches!(looked, Ok(Ok(_))) => !shared.answers().await,
            _ => false,
        };
        let (ready, words) = match looked {
            Ok(Ok(_)) if is_silent => (false, "its object storage does not answer".to_owned()),
            Ok(Ok(None)) => (true, "ok".to_owned()),
            Ok(Ok(Some(no_pushes))) if for_pushes => (false, no_pushes),
            Ok(Ok(Some(no_pushes))) => (true, format!("ok for pulls; {no_pushes}")),
            Ok(Err(words)) => (false, words),
            Err(refusal) => (false, refusal.message),
        };
        let mut answer = Response::new(full(words + "\n"));
        if !ready {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        answer
    }

    /// Why it is not ready; or ready, and why not for pushes.
    fn readiness(&self) -> Result<Option<String>, String> {
        if self.state.draining.load(Relaxed) {
            return Err("it was told to stop".to_owned());
        }
        if let Err(error) = std::fs::metadata(&self.state.root) {
            return Err(format!("its directory cannot be read: {error}"));
        }
        let settings = self.settings.get();
        if settings.read_only {
            return Ok(Some("it is read-only".to_owned()));
        }
        let room = self.state.has_room(settings.limits.reserve);
        Ok(room.err().map(|refusal| refusal.message))
    }
}
