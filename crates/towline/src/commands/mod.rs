//! One module a subcommand: its arguments, whose comments are its help, and what it does.

#[cfg(feature = "node")]
pub(crate) mod apiserver;
pub(crate) mod apply;
pub(crate) mod causes;
pub(crate) mod check;
#[cfg(feature = "node")]
pub(crate) mod controllers;
pub(crate) mod delete;
#[cfg(feature = "node")]
pub(crate) mod demo;
pub(crate) mod describe;
#[cfg(feature = "node")]
pub(crate) mod df;
pub(crate) mod endpoints;
pub(crate) mod get;
#[cfg(feature = "node")]
pub(crate) mod images;
#[cfg(feature = "node")]
pub(crate) mod inspect;
#[cfg(feature = "node")]
pub(crate) mod kubelet;
#[cfg(feature = "node")]
pub(crate) mod lab;
#[cfg(feature = "node")]
pub(crate) mod prune;
#[cfg(feature = "node")]
pub(crate) mod pull;
pub(crate) mod registry;
pub(crate) mod replay_here;
#[cfg(feature = "node")]
pub(crate) mod rm;
#[cfg(feature = "node")]
pub(crate) mod runtime;
#[cfg(feature = "node")]
pub(crate) mod scheduler;
#[cfg(feature = "node")]
pub(crate) mod shim;
#[cfg(feature = "node")]
pub(crate) mod store;
#[cfg(feature = "node")]
pub(crate) mod unpack;
#[cfg(feature = "node")]
pub(crate) mod up;
#[cfg(feature = "node")]
pub(crate) mod verify;
pub(crate) mod why;

/// Waits for SIGINT or SIGTERM.
pub(crate) async fn until_told() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// A signal that may come from now on, while what it is to end is still being started: so that it never finds half of it.
#[cfg(feature = "node")]
pub(crate) struct Told {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(feature = "node")]
impl Told {
    /// From here on SIGINT and SIGTERM end nothing by themselves.
    pub(crate) fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next of them; one that came since the last wait counts.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits for SIGINT or SIGTERM, or until a part ends of its own accord: then that is the error, to be returned once it is stopped.
#[cfg(feature = "node")]
pub(crate) async fn until_told_or(
    part: &str,
    ended: impl Future<Output = impl std::fmt::Display>,
) -> anyhow::Result<()> {
    tokio::select! {
        told = until_told() => Ok(told?),
        why = ended => Err(anyhow::anyhow!("the {part} ended: {why}")),
    }
}
