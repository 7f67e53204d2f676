//! Cold pulls.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::contender::Contender;
use super::link::{Link, Shaped};
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
    /// Which of them [default: every layout in the folder]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// One more image from elsewhere, as host=DIR/typical
    #[arg(long, value_name = "NAME=LAYOUT")]
    also: Vec<String>,
    /// Who takes part [default: everybody who is in PATH]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    contenders: Vec<String>,
    /// Runs of each contender with each image
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Begin no further round that would not end within so many minutes; the first is always made
    #[arg(long, value_name = "NUMBER")]
    minutes: Option<u64>,
    /// Folder for the disk, the registry and logs; needs 10 GiB
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    scratch: PathBuf,
    /// Put a link between the contenders and the registry, as 50ms,200mbit or 5ms,1gbit; `none` is loopback. May be given several times
    #[arg(long, value_name = "RTT,RATE", default_value = "none")]
    link: Vec<Way>,
    /// The program to measure
    #[arg(long, value_name = "FILE", default_value = "target/release/towline")]
    towline: PathBuf,
}

/// How the registry is reached.
#[derive(Debug, Clone, PartialEq)]
struct Way {
    /// As it was written.
    text: String,
    link: Option<Link>,
}

impl FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let link = (text != "none").then(|| text.parse()).transpose()?;
        Ok(Self {
            text: text.to_owned(),
            link,
        })
    }
}

/// An OCI layout and the name that its image has in the registry.
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) layout: PathBuf,
}

/// What every round needs.
struct Rounds {
    work: PathBuf,
    towline: PathBuf,
    images: Vec<Image>,
    contenders: Vec<Contender>,
}

/// One way and what was measured over it.
struct Table {
    way: Way,
    runs: Vec<Run>,
    rounds: u32,
    /// How long a round takes.
    took: Duration,
}

pub(crate) fn run(args: &Args, root: &Path) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("mounting a new file system for every run needs root");
    }
    let work = root.join(&args.scratch);
    std::fs::create_dir_all(&work).with_context(|| format!("make {}", work.display()))?;
    let towline = root.join(&args.towline);
    if !towline.is_file() {
        bail!("{} is not there: cargo build --release", towline.display());
    }
    let rounds = Rounds {
        work: work.canonicalize()?,
        towline,
        images: images(args)?,
        contenders: contenders(args)?,
    };
    let begun = Instant::now();
    let most = args
        .minutes
        .map(|minutes| Duration::from_secs(minutes * 60));
    let mut tables: Vec<Table> = args.link.iter().cloned().map(Table::new).collect();
    for round in 1..=args.rounds {
        for table in &mut tables {
            let ends = begun.elapsed() + table.took;
            if round > 1 && most.is_some_and(|most| ends > most) {
                say(&format!("no time for round {round} of {}", table.way.text));
                continue;
            }
            let started = Instant::now();
            let label = format!("{round}/{} {}", args.rounds, table.way.text);
            table.runs.extend(rounds.one(&table.way, &label)?);
            table.rounds += 1;
            table.took = started.elapsed();
        }
    }
    for table in &tables {
        super::result(&table.markdown());
    }
    Ok(())
}

impl Table {
    fn new(way: Way) -> Self {
        Self {
            way,
            runs: Vec::new(),
            rounds: 0,
            took: Duration::ZERO,
        }
    }

    fn markdown(&self) -> String {
        let place = match &self.way.link {
            None => "Loopback".to_owned(),
            Some(link) => format!("Over {} ms and {} Mbit/s", link.rtt, link.mbit),
        };
        let table = table::markdown(&self.runs);
        format!("{place}, medians of {} rounds:\n\n{table}", self.rounds)
    }
}

impl Rounds {
    /// Every contender pulls every image once.
    fn one(&self, way: &Way, label: &str) -> anyhow::Result<Vec<Run>> {
        let mut registry = Registry::start(&self.work, &self.images)?;
        let mut shaped = None;
        if let Some(link) = way.link {
            let made = Shaped::start(link, &self.work)?;
            registry = registry.behind(&made.namespace, &self.work)?;
            shaped = Some(made);
        }
        let mut runs = Vec::new();
        for image in &self.images {
            for contender in &self.contenders {
                // The wire is the bound there.
                if *contender == Contender::Bound && shaped.is_some() {
                    continue;
                }
                let mut run = self.pull(*contender, image, &registry)?;
                run.wire = way.link.and_then(|link| {
                    let layers = bound::layers(&image.layout).ok()?;
                    Some(link.wire(layers.iter().map(|(_, size)| size).sum()))
                });
                say(&format!("{label} {} {}", image.name, run.line()));
                runs.push(run);
            }
        }
        // The registry is in the link's namespace.
        drop(registry);
        drop(shaped);
        Ok(runs)
    }

    fn pull(
        &self,
        contender: Contender,
        image: &Image,
        registry: &Registry,
    ) -> anyhow::Result<Run> {
        let disk = Scratch::new(&self.work)?;
        cool(&registry.blobs)?;
        if contender == Contender::Bound {
            super::scratch::read_all(&image.layout)?;
        }
        let empty = disk.used()?;
        let reference = format!("{}/{}:v1", registry.address, image.name);
        let (busy, served) = (process::busy()?, process::cpu(registry.daemon.id())?);
        let programs = (self.towline.as_path(), image.layout.as_path());
        let cost = contender
            .pull(&reference, disk.path(), &self.work, programs)
            .with_context(|| format!("{} pulls {}", contender.name(), image.name))?;
        let others = process::busy()? - busy - cost.cpu;
        let served = process::cpu(registry.daemon.id())? - served;
        let returned = Instant::now();
        disk.sync()?;
        Ok(Run {
            contender,
            image: image.name.clone(),
            cost,
            synced: cost.wall + returned.elapsed().as_secs_f64(),
            others: (others - served).max(0.0),
            disk: disk.used()?.saturating_sub(empty),
            wire: None,
        })
    }
}

fn images(args: &Args) -> anyhow::Result<Vec<Image>> {
    let mut names = args.only.clone();
    if names.is_empty() {
        let list = std::fs::read_dir(&args.images);
        for entry in list.with_context(|| format!("list {}", args.images.display()))? {
            let path = entry?.path();
            if path.join("oci-layout").is_file() {
                let name = path.file_name();
                names.extend(name.map(|name| name.to_string_lossy().into_owned()));
            }
        }
        names.sort();
    }
    let inside = |name: String| Image {
        layout: args.images.join(&name),
        name,
    };
    let mut images: Vec<Image> = names.into_iter().map(inside).collect();
    for also in &args.also {
        let (name, layout) = also
            .split_once('=')
            .with_context(|| format!("--also {also:?} is not NAME=LAYOUT"))?;
        images.push(Image {
            name: name.to_owned(),
            layout: layout.into(),
        });
    }
    Ok(images)
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
