//! Cold pulls.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};

use super::contender::Contender;
use super::registry::Registry;
use super::scratch::{Scratch, cool};
use super::table::{self, Run};
use super::{process, say};

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
    let registry = Registry::start(&work, &args.images, &images)?;
    let mut runs = Vec::new();
    for round in 1..=args.rounds {
        for image in &images {
            for contender in &contenders {
                let run = one(*contender, image, &registry, &work, &towline)?;
                say(&format!("{round}/{} {image} {}", args.rounds, run.line()));
                runs.push(run);
            }
        }
    }
    super::result(&table::markdown(&runs));
    Ok(())
}

fn one(
    contender: Contender,
    image: &str,
    registry: &Registry,
    work: &Path,
    towline: &Path,
) -> anyhow::Result<Run> {
    let disk = Scratch::new(work)?;
    cool(&registry.blobs)?;
    let empty = disk.used()?;
    let reference = format!("{}/{image}:v1", registry.address);
    let (busy, served) = (process::busy()?, process::cpu(registry.daemon.id())?);
    let cost = contender
        .pull(&reference, disk.path(), work, towline)
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
