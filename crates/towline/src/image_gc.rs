//! Options about images that nobody uses.

use std::time::Duration;

use towline_kubelet::ImageGc;

use crate::exit::Usage;

/// When images that no container uses are removed; named as the kubelet's own options.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ImageGcArgs {
    /// Per cent of the disk from which on images that no container uses are removed; 100 for never
    #[arg(long = "image-gc-high-threshold", value_name = "PERCENT", default_value_t = 85, value_parser = clap::value_parser!(u8).range(0..=100))]
    high_threshold: u8,
    /// Per cent at which enough of them are removed
    #[arg(long = "image-gc-low-threshold", value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=100))]
    low_threshold: u8,
    /// Images that no container has used for longer than this are removed although there is room, as 168h; 0s for never
    #[arg(long = "image-maximum-gc-age", value_name = "DURATION", default_value = "0s", value_parser = duration)]
    maximum_age: Duration,
}

/// A length of time as Go and Kubernetes write it.
fn duration(text: &str) -> Result<Duration, String> {
    let duration: Result<jiff::SignedDuration, _> = text.parse();
    let duration = duration.ok().and_then(|parsed| parsed.try_into().ok());
    duration.ok_or_else(|| format!("{text:?} is no duration like 168h or 90m"))
}

impl ImageGcArgs {
    /// As the kubelet wants them.
    pub(crate) fn rules(&self) -> anyhow::Result<ImageGc> {
        let (high, low) = (self.high_threshold, self.low_threshold);
        if high < 100 && low >= high {
            let words = format!(
                "--image-gc-low-threshold {low} has to be below --image-gc-high-threshold {high}"
            );
            return Err(anyhow::Error::new(Usage(words)));
        }
        let rules = ImageGc {
            high_percent: high,
            low_percent: low,
            max_age: Some(self.maximum_age).filter(|age| !age.is_zero()),
            ..ImageGc::default()
        };
        let least = rules.min_age;
        if rules.max_age.is_some_and(|age| age <= least) {
            let words = format!(
                "--image-maximum-gc-age has to be more than the {} s that every image may stay",
                least.as_secs()
            );
            return Err(anyhow::Error::new(Usage(words)));
        }
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_low_mark_is_below_the_high_one() {
        for (high, low, good) in [
            (85, 80, true),
            (80, 80, false),
            (70, 80, false),
            (100, 80, true),
        ] {
            let args = ImageGcArgs {
                high_threshold: high,
                low_threshold: low,
                maximum_age: Duration::ZERO,
            };
            assert_eq!(args.rules().is_ok(), good, "{high} {low}");
        }
    }

    #[test]
    fn ages_are_written_as_kubernetes_does() {
        for (text, want) in [
            ("168h", Some(168 * 3600)),
            ("168h0m0s", Some(168 * 3600)),
            ("90m", Some(5400)),
            ("0s", Some(0)),
            ("-1h", None),
            ("7", None),
            ("soon", None),
        ] {
            assert_eq!(duration(text).ok().map(|age| age.as_secs()), want, "{text}");
        }
        let rules = |age| {
            let args = ImageGcArgs {
                high_threshold: 85,
                low_threshold: 80,
                maximum_age: Duration::from_secs(age),
            };
            args.rules().map(|rules| rules.max_age).ok()
        };
        assert_eq!(rules(0), Some(None));
        assert_eq!(rules(120), None);
        assert_eq!(rules(3600), Some(Some(Duration::from_secs(3600))));
    }
}
