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

/// A signal that ends a program.
#[cfg(feature = "node")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signal {
    pub(crate) name: &'static str,
    /// The exit code that shells give to a program that ends by it.
    pub(crate) code: u8,
}

#[cfg(feature = "node")]
impl Signal {
    const INTERRUPT: Self = Self {
        name: "SIGINT",
        code: 130,
    };
    const TERMINATE: Self = Self {
        name: "SIGTERM",
        code: 143,
    };
}

/// A signal that may come from now on, while what it is to end is still being started: so that it never finds half of it.
#[cfg(feature = "node")]
pub(crate) struct Told {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// One that came while something was being started.
    early: Option<Signal>,
}

#[cfg(feature = "node")]
impl Told {
    /// From here on SIGINT and SIGTERM end nothing by themselves.
    pub(crate) fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            early: None,
        })
    }

    /// Waits for the next of them; one that came since the last wait counts.
    pub(crate) async fn wait(&mut self) -> Signal {
        if let Some(early) = self.early.take() {
            return early;
        }
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INTERRUPT,
            _ = self.terminate.recv() => Signal::TERMINATE,
        }
    }

    /// Waits until something is started, which a signal does not cut in half: [`Told::wait`] then has it. A second one ends the program at
    /// once: that is the error.
    pub(crate) async fn while_starting<T>(
        &mut self,
        what: &str,
        starting: impl Future<Output = T>,
    ) -> anyhow::Result<T> {
        let mut starting = std::pin::pin!(starting);
        let mut first = None;
        loop {
            tokio::select! {
                started = &mut starting => {
                    self.early = first;
                    return Ok(started);
                }
                signal = self.wait() => {
                    if first.is_some() {
                        let words = format!("a second signal came while {what} was being started: what is there of it stays until the next start");
                        return Err(anyhow::anyhow!(words));
                    }
                    first = Some(signal);
                    crate::output::note(format!("{what} is stopped as soon as it has started; a second {} ends the program at once", signal.name));
                }
            }
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

#[cfg(all(test, feature = "node"))]
mod tests {
    use super::*;

    fn send(name: &str) {
        let own = std::process::id().to_string();
        let sent = std::process::Command::new("kill")
            .args([name, &own])
            .status();
        assert!(sent.is_ok_and(|ended| ended.success()));
    }

    #[tokio::test]
    async fn a_start_is_cut_by_the_second_signal_alone() {
        let mut told = Told::listen().unwrap();
        let starting = async {
            send("-TERM");
            "started"
        };
        assert_eq!(
            told.while_starting("it", starting).await.unwrap(),
            "started"
        );
        assert_eq!(told.wait().await.code, 143, "the first is not forgotten");
        let starting = async {
            send("-INT");
            send("-TERM");
            std::future::pending::<()>().await;
        };
        let error = told.while_starting("it", starting).await.unwrap_err();
        assert!(error.to_string().contains("second signal"), "{error}");
    }
}
