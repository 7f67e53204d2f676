//! Cold pulls.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};

use super::contender::Contender;
use super::link::{self, Link, Shaped};
use super::registry::Registry;
use super::scratch::{Scratch, cool};
use super::table::{self, Run};
use super::{bound, process, say};

/// Cold pulls, each into a new file system, the contenders alternating
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of OCI layouts, one image each
    #[arg(long, env = "TOWLINE_BENCH_IMAGES", value_name = "DIR")]
    images: PathBuf,
    /// Which images [default: every layout in the folder]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Who takes part [default: everybody who is in PATH]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    contenders: Vec<String>,
    /// Runs of each contender with each image
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Folder for the disk, the registry and logs; needs 10 GiB
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    scratch: PathBuf,
    /// Put a link between the contenders and the registry, as 50ms,200mbit or 5ms,1gbit
    #[arg(long, value_name = "RTT,RATE")]
    link: Option<Link>,
    /// The program that makes the link [default: the shared tools' `shape_link.py`]
    #[arg(long, value_name = "FILE")]
    shaper: Option<PathBuf>,
    /// The program to measure
    #[arg(long, value_name = "FILE", default_value = "target/release/towline")]
    towline: PathBuf,
}

pub(crate) fn run(args: &Args, root: &Path) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("mounting a new file system for every run needs root");
    }
    let work = root.join(&args.scratch);
    std::fs::create_dir_all(&work).with_context(|| format!("make {}", work.display()))?;
    let work = work.canonicalize()?;
    let towline = root.join(&args.towline);
    if !towline.is_file() {
        bail!("{} is not there: cargo build --release", towline.display());
    }
    let images = images(args)?;
    let contenders = contenders(args)?;
    let mut registry = Registry::start(&work, &args.images, &images)?;
    let mut shaped = None;
    if let Some(link) = args.link {
        let shaper = args.shaper.clone().map_or_else(link::shaper, Ok)?;
        let made = Shaped::start(link, &shaper, &work)?;
        registry = registry.behind(&made.namespace, &work)?;
        shaped = Some(made);
    }
    let mut runs = Vec::new();
    for round in 1..=args.rounds {
        for image in &images {
            for contender in &contenders {
                let layout = args.images.join(image);
                let mut run = one(*contender, image, &registry, &work, (&towline, &layout))?;
                run.wire = args.link.and_then(|link| {
                    let layers = bound::layers(&layout).ok()?;
                    Some(link.wire(layers.iter().map(|(_, size)| size).sum()))
                });
                say(&format!("{round}/{} {image} {}", args.rounds, run.line()));
                runs.push(run);
            }
        }
    }
    super::result(&table::markdown(&runs));
    // The registry is in the link's namespace.
    drop(registry);
    drop(shaped);
    Ok(())
}

fn one(
    contender: Contender,
    image: &str,
    registry: &Registry,
    work: &Path,
    (towline, layout): (&Path, &Path),
) -> anyhow::Result<Run> {
    let disk = Scratch::new(work)?;
    cool(&registry.blobs)?;
    if contender == Contender::Bound {
        super::scratch::read_all(layout)?;
    }
    let empty = disk.used()?;
    let reference = format!("{}/{image}:v1", registry.address);
    let (busy, served) = (process::busy()?, process::cpu(registry.daemon.id())?);
    let cost = contender
        .pull(&reference, disk.path(), work, (towline, layout))
        .with_context(|| format!("{} pulls {image}", contender.name()))?;
    let others = process::busy()? - busy - cost.cpu;
    let served = process::cpu(registry.daemon.id())? - served;
    let returned = Instant::now();
    disk.sync()?;
    Ok(Run {
        contender,
        image: image.to_owned(),
        cost,
        synced: cost.wall + returned.elapsed().as_secs_f64(),
        others: (others - served).max(0.0),
        disk: disk.used()?.saturating_sub(empty),
        wire: None,
    })
}

fn images(args: &Args) -> anyhow::Result<Vec<String>> {
    if !args.only.is_empty() {
        return Ok(args.only.clone());
    }
    let mut names = Vec::new();
    let list = std::fs::read_dir(&args.images);
    for entry in list.with_context(|| format!("list {}", args.images.display()))? {
        let path = entry?.path();
        if path.join("oci-layout").is_file() {
            names.extend(
                path.file_name()
                    .map(|name| name.to_string_lossy().into_owned()),
            );
        }
    }
    names.sort();
    Ok(names)
}

fn contenders(args: &Args) -> anyhow::Result<Vec<Contender>> {
    let here = Contender::ALL
        .into_iter()
        .filter(|contender| contender.is_here());
    if args.contenders.is_empty() {
        return Ok(here.collect());
    }
    let named = |name: &String| {
        let found = Contender::ALL
            .into_iter()
            .find(|contender| contender.name() == name);
        found.with_context(|| format!("there is no contender {name:?}"))
    };
    args.contenders.iter().map(named).collect()
}
