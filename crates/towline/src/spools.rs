//! Options about what is kept of downloads.

use std::time::Duration;

use towline_images::StoreOptions;

use crate::commands::pull::bytes;

/// What is kept of downloads: of interrupted ones for their next attempt, of whole ones where that is wanted.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct SpoolArgs {
    /// How long an interrupted download that nobody goes on with is kept, as 90m, 36h or 2d; 0 for no longer than it runs [default: 1d]
    #[arg(long, value_name = "TIME", value_parser = time)]
    spool_age: Option<Duration>,
    /// Bytes of all interrupted downloads that are kept, as 5G; the oldest go first [default: 32G]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    spool_bytes: Option<u64>,
    /// Keep the compressed layers too, until their image is removed or `towline prune --blobs` is told so: `towline verify --repair` then
    /// unpacks again what is damaged without a registry. Takes the image's compressed size on the disk besides what is unpacked
    #[arg(long)]
    keep_blobs: bool,
}

impl SpoolArgs {
    /// The usual rules with what was given.
    pub(crate) fn rules(&self) -> StoreOptions {
        let usual = StoreOptions::default();
        StoreOptions {
            spool_age: self.spool_age.unwrap_or(usual.spool_age),
            spool_bytes: self.spool_bytes.unwrap_or(usual.spool_bytes),
            ..usual
        }
    }

    /// Whether compressed layers stay.
    pub(crate) fn keep_blobs(&self) -> bool {
        self.keep_blobs
    }

    /// What of it is given, by its options.
    pub(crate) fn given(&self) -> [(&'static str, bool); 3] {
        [
            ("--spool-age", self.spool_age.is_some()),
            ("--spool-bytes", self.spool_bytes.is_some()),
            ("--keep-blobs", self.keep_blobs),
        ]
    }
}

/// A number with a unit: s, m, h or d.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(['s', 'm', 'h', 'd']);
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        "" if digits == "0" => 1,
        _ => return Err("a number with s, m, h or d, as 90m, 36h or 2d".to_owned()),
    };
    let number = digits.parse::<u64>().map_err(|error| error.to_string())?;
    number
        .checked_mul(unit)
        .map(Duration::from_secs)
        .ok_or_else(|| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, want) in [
            ("0", Some(0)),
            ("30s", Some(30)),
            ("90m", Some(5400)),
            ("36h", Some(36 * 3600)),
            ("2d", Some(48 * 3600)),
            ("2", None),
            ("d", None),
            ("2hm", None),
            ("-1s", None),
            ("99999999999999999d", None),
        ] {
            assert_eq!(time(text).ok().map(|time| time.as_secs()), want, "{text}");
        }
    }
}
