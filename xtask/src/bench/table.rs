//! The result as a table.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::contender::Contender;
use super::process::Cost;

/// One pull.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) contender: Contender,
    pub(crate) image: String,
    pub(crate) cost: Cost,
    /// Seconds until everything was on the disk.
    pub(crate) synced: f64,
    /// Seconds of CPU that neither the contender nor the registry used meanwhile: the kernel's own threads, and whoever disturbed.
    pub(crate) others: f64,
    /// Bytes on the disk.
    pub(crate) disk: u64,
    /// Seconds that the layers take at the rate of the link, if there is one.
    pub(crate) wire: Option<f64>,
}

impl Run {
    pub(crate) fn line(&self) -> String {
        format!(
            "{}: {:.2} s, on disk after {:.2} s, CPU {:.2} s (others {:.2} s), {} MiB at most, {} MiB on disk",
            self.contender.name(),
            self.cost.wall,
            self.synced,
            self.cost.cpu,
            self.others,
            self.cost.peak >> 20,
            self.disk >> 20
        )
    }
}

/// Medians of each contender with each image.
pub(crate) fn markdown(runs: &[Run]) -> String {
    let mut text = "| image | contender | wall s (min to max) | with sync s | CPU s | peak MiB | disk MiB | wall / best unpacking peer | with sync | CPU | wall / bound | other CPU s |\n\
                    | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    let images: BTreeSet<&str> = runs.iter().map(|run| run.image.as_str()).collect();
    for image in images {
        let of = |contender: Contender, value: fn(&Run) -> f64| {
            let fitting = |run: &&Run| run.image == image && run.contender == contender;
            median(runs.iter().filter(fitting).map(value).collect())
        };
        let best = |value: fn(&Run) -> f64| {
            let peers = Contender::ALL.into_iter();
            let peers = peers.filter(|peer| peer.unpacks() && *peer != Contender::Towline);
            peers.filter_map(|peer| of(peer, value)).reduce(f64::min)
        };
        // Over a link the wire is the bound, else this machine is.
        let wire = runs.iter().find(|run| run.image == image);
        let wire = wire.and_then(|run| run.wire);
        let bound = wire.or_else(|| of(Contender::Bound, |run| run.synced));
        for contender in Contender::ALL {
            let Some(wall) = of(contender, wall) else {
                continue;
            };
            let ratio = |value: fn(&Run) -> f64| match (of(contender, value), best(value)) {
                (Some(own), Some(best)) if contender.unpacks() => format!("{:.2}", own / best),
                _ => "-".to_owned(),
            };
            let (low, high) = range(runs, image, contender);
            let number = |value: fn(&Run) -> f64| of(contender, value).unwrap_or_default();
            // Writing to a String does not fail.
            writeln!(
                text,
                "| {image} | {} | {wall:.2} ({low:.2} to {high:.2}) | {:.2} | {:.2} | {:.0} | {:.0} | {} | {} | {} | {} | {:.2} |",
                contender.name(),
                number(|run| run.synced),
                number(|run| run.cost.cpu),
                number(peak),
                number(disk),
                ratio(self::wall),
                ratio(|run| run.synced),
                ratio(|run| run.cost.cpu),
                bound.map_or_else(|| "-".to_owned(), |bound| format!("{:.2}", wall / bound)),
                number(|run| run.others),
            )
            .ok();
        }
    }
    text
}

fn wall(run: &Run) -> f64 {
    run.cost.wall
}

#[expect(clippy::cast_precision_loss, reason = "mebibytes for a table")]
fn peak(run: &Run) -> f64 {
    (run.cost.peak >> 20) as f64
}

#[expect(clippy::cast_precision_loss, reason = "mebibytes for a table")]
fn disk(run: &Run) -> f64 {
    (run.disk >> 20) as f64
}

fn range(runs: &[Run], image: &str, contender: Contender) -> (f64, f64) {
    let fitting = runs
        .iter()
        .filter(|run| run.image == image && run.contender == contender);
    fitting.fold((f64::INFINITY, 0.0), |(low, high), run| {
        (low.min(run.cost.wall), high.max(run.cost.wall))
    })
}

/// The middle value; of two the lower. `None` of none.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(contender: Contender, wall: f64) -> Run {
        Run {
            contender,
            image: "a".to_owned(),
            cost: Cost {
                wall,
                cpu: wall,
                peak: 64 << 20,
            },
            synced: wall + 1.0,
            others: 0.0,
            disk: 1 << 20,
            wire: None,
        }
    }

    #[test]
    fn a_ratio_is_of_medians_to_the_best_peer_that_unpacks() {
        let runs = [
            run(Contender::Towline, 1.0),
            run(Contender::Towline, 9.0),
            run(Contender::Towline, 2.0),
            run(Contender::Containerd, 4.0),
            run(Contender::Podman, 8.0),
            run(Contender::Skopeo, 0.1),
            run(Contender::Bound, 0.6),
        ];
        let table = markdown(&runs);
        assert!(
            table.contains(
                "| a | towline | 2.00 (1.00 to 9.00) | 3.00 | 2.00 | 64 | 1 | 0.50 | 0.60 | 0.50 | 1.25 |"
            ),
            "{table}"
        );
        assert!(
            table.contains("| a | podman | 8.00 (8.00 to 8.00) | 9.00 | 8.00 | 64 | 1 | 2.00 |")
        );
        assert!(table.contains("| a | skopeo | 0.10 (0.10 to 0.10) | 1.10 | 0.10 | 64 | 1 | - |"));
    }
}
