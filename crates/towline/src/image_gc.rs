//! Options about images that nobody uses.

use towline_kubelet::ImageGc;

use crate::exit::Usage;

/// When images that no container uses are removed; named as the kubelet's own options.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ImageGcArgs {
    /// Per cent of the disk from which on images that no container uses are removed; 100 for never
    #[arg(long, value_name = "PERCENT", default_value_t = 85, value_parser = clap::value_parser!(u8).range(0..=100))]
    image_gc_high_threshold: u8,
    /// Per cent at which enough of them are removed
    #[arg(long, value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=100))]
    image_gc_low_threshold: u8,
}

impl ImageGcArgs {
    /// As the kubelet wants them.
    pub(crate) fn rules(&self) -> anyhow::Result<ImageGc> {
        let (high, low) = (self.image_gc_high_threshold, self.image_gc_low_threshold);
        if high < 100 && low >= high {
            let words = format!(
                "--image-gc-low-threshold {low} has to be below --image-gc-high-threshold {high}"
            );
            return Err(anyhow::Error::new(Usage(words)));
        }
        Ok(ImageGc {
            high_percent: high,
            low_percent: low,
            ..ImageGc::default()
        })
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
                image_gc_high_threshold: high,
                image_gc_low_threshold: low,
            };
            assert_eq!(args.rules().is_ok(), good, "{high} {low}");
        }
    }
}
