//! The registry under load, beside docker-registry and beside what `sendfile` alone gives.

mod bound;
mod client;
mod contender;
mod load;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use self::contender::{Kind, REPOSITORY, Running, TAGGED, digest, push};
use self::load::{Asked, Done};
use super::{process, result, say};

/// Connections that ask for manifests and lists.
const CONNECTIONS: usize = 16;
/// Bytes of a chunk of a push in chunks.
const CHUNK: usize = 16 << 20;
/// The contender that is no registry.
const BOUND: &str = "sendfile alone";

/// The registry under load, beside docker-registry
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Measurements of each kind and contender; the table has medians
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Tags of the long list
    #[arg(long, default_value_t = 10_000)]
    tags: usize,
    /// Bytes of the blob that is pulled, in MiB
    #[arg(long, default_value_t = 64)]
    blob: usize,
    /// Bytes of the blobs that are pushed, in MiB
    #[arg(long, default_value_t = 500)]
    push: usize,
    /// Minutes of mixed load in which memory is watched
    #[arg(long, default_value_t = 2)]
    minutes: u64,
    /// Folder for what the registries store; needs some GiB
    #[arg(long, value_name = "DIR", default_value = "target/bench-registry")]
    scratch: PathBuf,
    /// The program to measure
    #[arg(long, value_name = "FILE", default_value = "target/release/towline")]
    towline: PathBuf,
}

/// Values by what was measured and by contender, each as often as it was measured.
#[derive(Default)]
struct Figures(BTreeMap<(String, &'static str), Vec<f64>>);

impl Figures {
    fn note(&mut self, what: &str, who: &'static str, value: f64) {
        say(&format!("{what}, {who}: {value:.1}"));
        let all = self.0.entry((what.to_owned(), who)).or_default();
        all.push(value);
    }

    fn median(&self, what: &str, who: &'static str) -> Option<f64> {
        let mut all = self.0.get(&(what.to_owned(), who))?.clone();
        all.sort_by(f64::total_cmp);
        all.get((all.len() - 1) / 2).copied()
    }

    fn markdown(&self) -> String {
        let [ours, theirs] = Kind::ALL.map(Kind::name);
        let mut text = format!(
            "| | {ours} | {theirs} | ratio | {BOUND} | of it |\n| --- | --- | --- | --- | --- | --- |\n"
        );
        let mut rows: Vec<&String> = self.0.keys().map(|(what, _)| what).collect();
        rows.dedup();
        for what in rows {
            let value = |who| self.median(what, who);
            let shown =
                |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |it| format!("{it:.1}"));
            let part = |of: Option<f64>| match (value(ours), of) {
                (Some(own), Some(of)) if of > 0.0 => format!("{:.2}", own / of),
                _ => "-".to_owned(),
            };
            let (peer, bound) = (value(theirs), value(BOUND));
            // Writing to a String does not fail.
            writeln!(
                text,
                "| {what} | {} | {} | {} | {} | {} |",
                shown(value(ours)),
                shown(peer),
                part(peer),
                shown(bound),
                part(bound)
            )
            .ok();
        }
        text
    }
}

pub(crate) fn run(args: &Args, root: &Path) -> anyhow::Result<()> {
    let work = root.join(&args.scratch);
    std::fs::create_dir_all(&work).with_context(|| format!("make {}", work.display()))?;
    let work = work.canonicalize()?;
    let towline = root.join(&args.towline);
    if !towline.is_file() {
        bail!("{} is not there: cargo build --release", towline.display());
    }
    let layer = noise(args.blob << 20, 1);
    let mut figures = Figures::default();
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let one = Running::start(kind, &towline, &work)?;
        std::thread::sleep(Duration::from_secs(2));
        figures.note("memory idle, new (MiB)", kind.name(), resident(&one)?);
        let began = Instant::now();
        one.fill(&layer, args.tags)
            .with_context(|| format!("fill {}", kind.name()))?;
        let seconds = began.elapsed().as_secs_f64();
        figures.note("filling it (s)", kind.name(), seconds);
        process::reset_high_water(one.daemon.id())?;
        all.push(one);
    }
    let file = work.join("blob");
    std::fs::write(&file, &layer)?;
    let bound = bound::serve(&file)?;
    let layer = digest(&layer);
    for round in 0..args.rounds {
        for row in rows(&layer) {
            let time = Duration::from_secs(args.seconds);
            if row.is_blob {
                let done = load::run(bound, &row.asked, row.connections, time)?;
                figures.note(&row.name, BOUND, row.value(done));
            }
            for one in &all {
                let done = load::run(one.address, &row.asked, row.connections, time)
                    .with_context(|| format!("load {}", one.kind.name()))?;
                figures.note(&row.name, one.kind.name(), row.value(done));
            }
        }
        for one in &all {
            pushes(args.push << 20, round, one, &work, &mut figures)?;
        }
    }
    watch(args, &layer, &all, &mut figures)?;
    result(&figures.markdown());
    Ok(())
}

/// Bytes that do not compress and are the same in every run.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

struct Row {
    name: String,
    asked: Asked,
    connections: usize,
    is_blob: bool,
}

impl Row {
    #[expect(clippy::cast_precision_loss, reason = "rates for a table")]
    fn value(&self, done: Done) -> f64 {
        if self.is_blob {
            return done.bytes as f64 / f64::from(1 << 20) / done.seconds;
        }
        done.answers as f64 / done.seconds
    }
}

fn rows(layer: &str) -> Vec<Row> {
    let row = |name: String, method, path: String, connections, is_blob| Row {
        name,
        asked: Asked {
            method,
            path,
            pages: false,
        },
        connections,
        is_blob,
    };
    let manifest = format!("/v2/{REPOSITORY}/manifests/v1");
    let mut rows = vec![
        row(
            "manifest GET by tag (1/s)".to_owned(),
            "GET",
            manifest.clone(),
            CONNECTIONS,
            false,
        ),
        row(
            "manifest HEAD by tag (1/s)".to_owned(),
            "HEAD",
            manifest,
            CONNECTIONS,
            false,
        ),
    ];
    for connections in [1, 16, 64] {
        let name = format!("blob GET, {connections} connections (MiB/s)");
        let path = format!("/v2/{REPOSITORY}/blobs/{layer}");
        rows.push(row(name, "GET", path, connections, true));
    }
    let path = format!("/v2/{TAGGED}/tags/list");
    let mut list = row("whole tag list (1/s)".to_owned(), "GET", path, 4, false);
    list.asked.pages = true;
    rows.push(list);
    rows
}

/// Pushes a blob in one piece and one in chunks; how long each took, with what the disk had left to do.
fn pushes(
    length: usize,
    round: u32,
    one: &Running,
    work: &Path,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let disk = std::fs::File::open(work)?;
    for (name, chunk) in [("one piece", None), ("chunks of 16 MiB", Some(CHUNK))] {
        let seed = u64::from(round) * 2 + u64::from(chunk.is_some()) + 10;
        let bytes = noise(length, seed);
        rustix::fs::syncfs(&disk)?;
        let began = Instant::now();
        push(&mut one.client()?, REPOSITORY, &bytes, chunk)?;
        let answered = began.elapsed().as_secs_f64();
        rustix::fs::syncfs(&disk)?;
        let synced = began.elapsed().as_secs_f64();
        let size = length >> 20;
        figures.note(
            &format!("push of {size} MiB, {name} (s)"),
            one.kind.name(),
            answered,
        );
        figures.note(
            &format!("push of {size} MiB, {name}, until on disk (s)"),
            one.kind.name(),
            synced,
        );
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "mebibytes for a table")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn resident(one: &Running) -> anyhow::Result<f64> {
    let path = format!("/proc/{}/status", one.daemon.id());
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| {
        line.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .ok()
    });
    Ok(mebibytes(kib.context("no VmRSS")? << 10))
}

/// Everything again, mixed, for minutes: memory at its highest so far, and how it grows.
fn watch(args: &Args, layer: &str, all: &[Running], figures: &mut Figures) -> anyhow::Result<()> {
    for one in all {
        let who = one.kind.name();
        let peak = process::high_water(one.daemon.id()).context("no VmHWM")?;
        figures.note("memory under load, highest (MiB)", who, mebibytes(peak));
        let end = Instant::now() + Duration::from_secs(args.minutes * 60);
        let mut seen = Vec::new();
        while Instant::now() < end {
            for row in rows(layer) {
                load::run(
                    one.address,
                    &row.asked,
                    row.connections,
                    Duration::from_secs(1),
                )?;
            }
            seen.push(resident(one)?);
        }
        let (first, last) = (seen.first().copied(), seen.last().copied());
        if let (Some(first), Some(last)) = (first, last) {
            let name = format!("memory growth in {} min of mixed load (MiB)", args.minutes);
            figures.note(&name, who, last - first);
        }
        std::thread::sleep(Duration::from_secs(5));
        figures.note("memory idle, after load (MiB)", who, resident(one)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_medians_and_ratios() {
        let mut figures = Figures::default();
        for value in [1.0, 30.0, 20.0] {
            figures.note("a (1/s)", "towline", value);
        }
        figures.note("a (1/s)", "docker-registry", 2.0);
        figures.note("a (1/s)", BOUND, 40.0);
        let table = figures.markdown();
        assert!(
            table.contains("| a (1/s) | 20.0 | 2.0 | 10.00 | 40.0 | 0.50 |"),
            "{table}"
        );
    }

    #[test]
    fn noise_is_repeatable() {
        assert_eq!(noise(20, 3), noise(20, 3));
        assert_ne!(noise(20, 3), noise(20, 4));
        assert_eq!(noise(21, 3).len(), 21);
    }
}
