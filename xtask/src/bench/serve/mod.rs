//! The registry under load, beside docker-registry and beside what `sendfile` alone gives.

mod bound;
mod client;
mod contender;
mod figures;
mod load;

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

pub(crate) use self::bound::Args as SendArgs;
pub(crate) use self::bound::run as send;
use self::contender::{Kind, REPOSITORY, Running, TAGGED, digest, push};
use self::figures::Figures;
use self::load::{Asked, Done};
use super::process::{self, Daemon};
use super::{registry, result};

/// Connections that pull blobs.
const BLOB_CONNECTIONS: [usize; 3] = [1, 16, 64];
/// Connections that ask for manifests and lists.
const CONNECTIONS: usize = 16;
/// Bytes of a chunk of a push in chunks.
const CHUNK: usize = 16 << 20;
/// The contender that is no registry.
const BOUND: &str = "sendfile alone";
const IDLE_NEW: &str = "resident, idle and new (MiB)";
const HIGHEST: &str = "resident, highest under this load (MiB)";
const IDLE_AFTER: &str = "resident, idle after all of it (MiB)";

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
    /// Write the table into this file too
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, root: &Path) -> anyhow::Result<()> {
    let work = root.join(&args.scratch);
    std::fs::create_dir_all(&work).with_context(|| format!("make {}", work.display()))?;
    let work = work.canonicalize()?;
    let towline = root.join(&args.towline);
    if !towline.is_file() {
        bail!("{} is not there: cargo build --release", towline.display());
    }
    let began = load_average()?;
    let layer = noise(args.blob << 20, 1);
    let mut figures = Figures::new(names(args));
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let one = Running::start(kind, &towline, &work)?;
        // Longer than Towline waits before it gives the memory of its start-up back.
        std::thread::sleep(Duration::from_secs(5));
        figures.note(IDLE_NEW, kind.name(), resident(&one)?);
        let began = Instant::now();
        one.fill(&layer, args.tags)
            .with_context(|| format!("fill {}", kind.name()))?;
        let seconds = began.elapsed().as_secs_f64();
        figures.note(&filling(args), kind.name(), seconds);
        process::reset_high_water(one.daemon.id())?;
        all.push(one);
    }
    let file = work.join("blob");
    std::fs::write(&file, &layer)?;
    let bound = Bound::start(&file, &work)?;
    let layer = digest(&layer);
    for round in 0..args.rounds {
        for row in rows(&layer) {
            measure(args, &row, &bound, &all, &mut figures)?;
        }
        for one in &all {
            pushes(args.push << 20, round, one, &work, &mut figures)?;
        }
    }
    watch(args, &layer, &all, &mut figures)?;
    let table = figures.markdown(&docker_registry()?);
    let processors = std::thread::available_parallelism()?;
    let text = format!(
        "{processors} processors, loopback, medians of {} rounds of {} s each; load of the machine {began} at the start, {} at the end.\n\n{table}",
        args.rounds,
        args.seconds,
        load_average()?
    );
    if let Some(path) = &args.table {
        std::fs::write(path, &text).with_context(|| format!("write {}", path.display()))?;
    }
    result(&text);
    Ok(())
}

/// The server that is no registry, in a process of its own so that its CPU can be told.
struct Bound {
    address: SocketAddr,
    daemon: Daemon,
}

impl Bound {
    fn start(file: &Path, work: &Path) -> anyhow::Result<Self> {
        let address = registry::free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "send", "--listen", &address.to_string()]);
        let mut daemon = Daemon::start(command.arg(file), &work.join("bound.log"))?;
        daemon
            .until(|| TcpStream::connect(address).is_ok())
            .context("start the server that only sends")?;
        Ok(Self { address, daemon })
    }
}

/// One row, for one contender after the other.
fn measure(
    args: &Args,
    row: &Row,
    bound: &Bound,
    all: &[Running],
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let time = Duration::from_secs(args.seconds);
    let mut contenders = Vec::new();
    if row.is_blob {
        contenders.push((BOUND, bound.address, bound.daemon.id()));
    }
    contenders.extend(
        all.iter()
            .map(|one| (one.kind.name(), one.address, one.daemon.id())),
    );
    for (who, address, id) in contenders {
        let before = process::cpu(id)?;
        let done = load::run(address, &row.asked, row.connections, time)
            .with_context(|| format!("load {who}"))?;
        figures.note(&row.name, who, row.value(done));
        if row.is_blob {
            let gib = mebibytes(done.bytes) / 1024.0;
            figures.note(
                &cpu_name(row.connections),
                who,
                (process::cpu(id)? - before) / gib,
            );
        }
    }
    Ok(())
}

/// The three loads of the last minutes, as the kernel says them.
fn load_average() -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    let first = text.split_ascii_whitespace().next();
    Ok(first.unwrap_or_default().to_owned())
}

/// docker-registry with its version.
fn docker_registry() -> anyhow::Result<String> {
    let output = Command::new("docker-registry").arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_ascii_whitespace().find_map(|word| {
        let word = word.trim_start_matches('v');
        word.starts_with(|first: char| first.is_ascii_digit())
            .then(|| word.to_owned())
    });
    Ok(format!("docker-registry {}", version.unwrap_or_default()))
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
            format!("manifest GET by tag, {CONNECTIONS} connections (1/s)"),
            "GET",
            manifest.clone(),
            CONNECTIONS,
            false,
        ),
        row(
            format!("manifest HEAD by tag, {CONNECTIONS} connections (1/s)"),
            "HEAD",
            manifest,
            CONNECTIONS,
            false,
        ),
    ];
    for connections in BLOB_CONNECTIONS {
        let name = blob_name(connections);
        let path = format!("/v2/{REPOSITORY}/blobs/{layer}");
        rows.push(row(name, "GET", path, connections, true));
    }
    let path = format!("/v2/{TAGGED}/tags/list");
    let mut list = row(
        "whole list of all tags (1/s)".to_owned(),
        "GET",
        path,
        4,
        false,
    );
    list.asked.pages = true;
    rows.push(list);
    rows
}

fn blob_name(connections: usize) -> String {
    let plural = if connections == 1 { "" } else { "s" };
    format!("blob GET, {connections} connection{plural} (MiB/s)")
}

fn cpu_name(connections: usize) -> String {
    let plural = if connections == 1 { "" } else { "s" };
    format!("CPU of the server for 1 GiB, {connections} connection{plural} (s)")
}

fn push_name(mebibytes: usize, how: &str) -> String {
    format!("push of {mebibytes} MiB, {how} (s)")
}

fn filling(args: &Args) -> String {
    format!(
        "push of {} tags, {} connections (s)",
        args.tags,
        contender::TAGGERS
    )
}

fn growth(args: &Args) -> String {
    format!(
        "growth from the first to the second half of {} min of mixed load (MiB)",
        args.minutes
    )
}

/// The rows of the table in their order.
fn names(args: &Args) -> Vec<String> {
    let mut names: Vec<String> = rows("").into_iter().map(|row| row.name).collect();
    names.extend(BLOB_CONNECTIONS.map(cpu_name));
    names.push(filling(args));
    for (how, _) in PUSHES {
        names.push(push_name(args.push, how));
        names.push(push_name(args.push, &format!("{how}, until on disk")));
    }
    names.extend([IDLE_NEW, HIGHEST, IDLE_AFTER].map(str::to_owned));
    names.push(growth(args));
    names
}

/// How a blob is pushed, and the bytes of a chunk.
const PUSHES: [(&str, Option<usize>); 2] =
    [("in one piece", None), ("in chunks of 16 MiB", Some(CHUNK))];

/// Pushes a blob in one piece and one in chunks; how long each took, with what the disk had left to do.
fn pushes(
    length: usize,
    round: u32,
    one: &Running,
    work: &Path,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let disk = std::fs::File::open(work)?;
    for (how, chunk) in PUSHES {
        let seed = u64::from(round) * 2 + u64::from(chunk.is_some()) + 10;
        let bytes = noise(length, seed);
        rustix::fs::syncfs(&disk)?;
        let began = Instant::now();
        push(&mut one.client()?, REPOSITORY, &bytes, chunk)?;
        let answered = began.elapsed().as_secs_f64();
        rustix::fs::syncfs(&disk)?;
        let synced = began.elapsed().as_secs_f64();
        let (size, who) = (length >> 20, one.kind.name());
        figures.note(&push_name(size, how), who, answered);
        let until = format!("{how}, until on disk");
        figures.note(&push_name(size, &until), who, synced);
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

/// Everything again, mixed, for minutes: memory at its highest in each half, and what is left when it is over.
fn watch(args: &Args, layer: &str, all: &[Running], figures: &mut Figures) -> anyhow::Result<()> {
    for one in all {
        let who = one.kind.name();
        let began = Instant::now();
        let time = Duration::from_secs(args.minutes * 60);
        let mut highest = [0.0_f64; 2];
        while began.elapsed() < time {
            for row in rows(layer) {
                let second = Duration::from_secs(1);
                load::run(one.address, &row.asked, row.connections, second)?;
                let half = usize::from(began.elapsed() > time / 2);
                highest[half] = highest[half].max(resident(one)?);
            }
        }
        if args.minutes > 0 {
            figures.note(&growth(args), who, highest[1] - highest[0]);
        }
        let peak = process::high_water(one.daemon.id()).context("no VmHWM")?;
        figures.note(HIGHEST, who, mebibytes(peak));
        std::thread::sleep(Duration::from_secs(10));
        figures.note(IDLE_AFTER, who, resident(one)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_repeatable() {
        assert_eq!(noise(20, 3), noise(20, 3));
        assert_ne!(noise(20, 3), noise(20, 4));
        assert_eq!(noise(21, 3).len(), 21);
    }
}
