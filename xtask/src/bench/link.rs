//! A link with delay and rate between the contenders and the registry, which then stands in a network namespace of its own. Made by a process
//! of its own, for kernels without netem.

use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use anyhow::Context as _;

use super::process::Daemon;
use super::scratch;

/// The registry's address on the link.
pub(crate) const REGISTRY: &str = "10.77.0.2";

/// What a link is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Link {
    /// Round trip in milliseconds.
    pub(crate) rtt: f64,
    /// Megabits a second.
    pub(crate) mbit: f64,
}

impl FromStr for Link {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no link like 50ms,200mbit or 5ms,1gbit");
        let (rtt, rate) = text.split_once(',').ok_or_else(wrong)?;
        let rtt = rtt.strip_suffix("ms").ok_or_else(wrong)?;
        let (rate, factor) = match rate.strip_suffix("mbit") {
            Some(rate) => (rate, 1.0),
            None => (rate.strip_suffix("gbit").ok_or_else(wrong)?, 1000.0),
        };
        let number = |text: &str| {
            let number: f64 = text.parse().map_err(|_| wrong())?;
            (number > 0.0).then_some(number).ok_or_else(wrong)
        };
        Ok(Self {
            rtt: number(rtt)?,
            mbit: number(rate)? * factor,
        })
    }
}

impl Link {
    /// Seconds that so many bytes take at the rate alone.
    #[expect(clippy::cast_precision_loss, reason = "seconds for a table")]
    pub(crate) fn wire(&self, bytes: u64) -> f64 {
        bytes as f64 * 8.0 / (self.mbit * 1e6)
    }
}

/// A link that is up; gone when dropped.
pub(crate) struct Shaped {
    /// The registry's network namespace.
    pub(crate) namespace: String,
    shaper: Option<Daemon>,
}

impl Shaped {
    /// Makes the namespace and starts what makes the link, its log in `dir`.
    pub(crate) fn start(link: Link, dir: &Path) -> anyhow::Result<Self> {
        let namespace = format!("towline-bench-{}", std::process::id());
        scratch::run(Command::new("ip").args(["netns", "add", &namespace]))?;
        let mut shaped = Self {
            namespace,
            shaper: None,
        };
        let log = dir.join("link.log");
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        command.args(["bench", "shape", "--rtt-ms", &link.rtt.to_string()]);
        command.args(["--mbit", &link.mbit.to_string()]);
        command.args(["--netns", &shaped.namespace, "--far", REGISTRY]);
        let mut daemon = Daemon::start(&mut command, &log)?;
        daemon
            .until(|| std::fs::read_to_string(&log).is_ok_and(|said| said.contains("ready")))
            .with_context(|| format!("start the link; see {}", log.display()))?;
        shaped.shaper = Some(daemon);
        Ok(shaped)
    }
}

impl Drop for Shaped {
    fn drop(&mut self) {
        drop(self.shaper.take());
        let deleted = scratch::run(Command::new("ip").args(["netns", "del", &self.namespace]));
        if let Err(error) = deleted {
            super::say(&format!("{error:#}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_units() {
        let link = |rtt, mbit| Some(Link { rtt, mbit });
        for (text, want) in [
            ("50ms,200mbit", link(50.0, 200.0)),
            ("0.5ms,1gbit", link(0.5, 1000.0)),
            ("50,200mbit", None),
            ("50ms", None),
            ("50ms,0mbit", None),
            ("-1ms,2mbit", None),
        ] {
            assert_eq!(text.parse::<Link>().ok(), want, "{text}");
        }
        let slow: Link = "50ms,200mbit".parse().unwrap();
        assert!((slow.wire(25_000_000) - 1.0).abs() < 1e-9);
    }
}
