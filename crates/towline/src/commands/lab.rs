//! `towline lab`: pulls that fail, one of each kind, on real nodes, to see or to teach.

mod show;
mod trial;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::StreamExt as _;
use towline_cause::Confidence;
use towline_lab::scenario::{self, Scenario};
use towline_node::lab::{self, Lab, Runtime, Staged};

use crate::commands::{Told, up};
use crate::exit::{BROKEN, OK, Usage};
use crate::output::{self, Format};
use trial::Trial;

/// How many scenarios are under way at once; half as many where each pod takes several programs.
const AT_ONCE: usize = 16;
/// How long the nodes have to stop.
const STOP: Duration = Duration::from_secs(120);

/// See image pulls fail for every cause there is, be told why, and watch the fix help: offline, on nodes that are gone afterwards
///
/// Each scenario has a registry, a name, and a namespace of its own. Nothing outside the lab's folder is changed.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the scenarios
    List {
        /// How to print them
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
    /// Run scenarios; exit code 1 if one does not show its cause or is not mended. Needs root
    Run(RunArgs),
}

#[derive(clap::Args)]
struct RunArgs {
    /// Scenarios, as `towline lab list` names them
    #[arg(value_name = "NAME", required_unless_present = "all")]
    names: Vec<String>,
    /// Every scenario, many at once, as a table
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// The container runtime of the nodes. With containerd, which must be on PATH, the scenarios that need our own are left out
    #[arg(long, value_enum, default_value_t, value_name = "RUNTIME")]
    runtime: RuntimeName,
    /// Leave the scenarios unmended and the node up at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// How to print the outcome
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// A container runtime by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum RuntimeName {
    #[default]
    Towline,
    Containerd,
}

impl From<RuntimeName> for Runtime {
    fn from(name: RuntimeName) -> Self {
        match name {
            RuntimeName::Towline => Self::Towline,
            RuntimeName::Containerd => Self::Containerd,
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List { output } => {
            show::list(&scenario::all(), output)?;
            Ok(ExitCode::from(OK))
        }
        Command::Run(args) => Box::pin(run_scenarios(args)).await,
    }
}

async fn run_scenarios(args: RunArgs) -> anyhow::Result<ExitCode> {
    up::need_root("lab run")?;
    let runtime = Runtime::from(args.runtime);
    let chosen = chosen(&args, runtime)?;
    if runtime == Runtime::Containerd {
        let missing = lab::missing_for_containerd();
        anyhow::ensure!(
            missing.is_empty(),
            "a node on containerd needs {}",
            missing.join(", ")
        );
    }
    let mut signal = Told::listen().context("listen for signals")?;
    let preparing = Box::pin(Lab::new(runtime));
    let lab = signal.while_starting("the lab", preparing).await?;
    let lab = lab.context("prepare the lab")?;
    let started = Instant::now();
    // The nodes start before a signal is looked at, so that it never finds half of one.
    let starting = Box::pin(nodes(&lab, &chosen));
    let ended = match signal.while_starting("the lab", starting).await? {
        Ok(()) => tokio::select! {
            ended = all(&lab, &chosen, &args) => ended,
            _ = signal.wait() => Err(anyhow::anyhow!("interrupted")),
        },
        Err(error) => Err(error),
    };
    let ended = match ended {
        Ok((trials, kept)) if args.keep => {
            let told = keep(&lab, &chosen, &mut signal).await;
            drop(kept);
            told.map(|()| trials)
        }
        ended => ended.map(|(trials, _)| trials),
    };
    let left = tokio::select! {
        left = lab.shutdown(STOP) => left,
        _ = signal.wait() => vec!["a second signal came first".to_owned()],
    };
    for left in &left {
        output::note(format!("did not stop in time: {left}"));
    }
    let trials = ended?;
    show::outcome(&trials, runtime, args.output, started.elapsed())?;
    let well = trials.iter().all(|trial| trial.well(args.keep)) && left.is_empty();
    Ok(ExitCode::from(if well { OK } else { BROKEN }))
}

/// Starts the nodes that the scenarios need.
async fn nodes(lab: &Lab, chosen: &[Scenario]) -> anyhow::Result<()> {
    let live = chosen.iter().filter(|scenario| !scenario.is_text());
    let started = futures::future::join_all(live.map(|scenario| lab.node(scenario))).await;
    // All have to be up or over before the first that failed is told.
    for node in started {
        node.context("start the lab's node")?;
    }
    Ok(())
}

fn chosen(args: &RunArgs, runtime: Runtime) -> anyhow::Result<Vec<Scenario>> {
    let all = scenario::all();
    if args.all {
        let plays = |scenario: &Scenario| runtime.plays(scenario);
        let mut chosen: Vec<Scenario> = all.into_iter().filter(plays).collect();
        for scenario in &mut chosen {
            expect(scenario, runtime);
        }
        return Ok(chosen);
    }
    let find = |name: &String| {
        let found = all.iter().find(|scenario| scenario.name == *name);
        if found.is_some_and(|scenario| !runtime.plays(scenario)) {
            let other = match runtime {
                Runtime::Towline => "the runtime containerd: --runtime containerd",
                Runtime::Containerd => "our own runtime",
            };
            return Err(anyhow::Error::new(Usage(format!(
                "the scenario {name:?} needs {other}"
            ))));
        }
        found.cloned().ok_or_else(|| {
            anyhow::Error::new(Usage(format!(
                "there is no scenario {name:?}; `towline lab list` lists them"
            )))
        })
    };
    let mut chosen = args.names.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    for scenario in &mut chosen {
        expect(scenario, runtime);
    }
    Ok(chosen)
}

/// Another runtime's words are read, and less sure than what our own names.
fn expect(scenario: &mut Scenario, runtime: Runtime) {
    if runtime != Runtime::Towline {
        scenario.confidence = scenario.confidence.min(Confidence::Likely);
    }
}

/// Runs the scenarios, side by side; a single one is told while it happens. Gives those that stand too, where they are to be kept.
async fn all<'a>(
    lab: &'a Lab,
    chosen: &'a [Scenario],
    args: &RunArgs,
) -> anyhow::Result<(Vec<Trial>, Vec<Staged<'a>>)> {
    let told = args.output == Format::Text;
    if let ([one], true) = (chosen, told) {
        let played = trial::told(lab, one, args.keep).await;
        return Ok((vec![played.trial], played.kept.into_iter().collect()));
    }
    let at_once = match args.runtime {
        RuntimeName::Towline => AT_ONCE,
        RuntimeName::Containerd => AT_ONCE / 2,
    };
    let mut running = futures::stream::iter(chosen)
        .map(|scenario| trial::quiet(lab, scenario, args.keep))
        .buffer_unordered(at_once);
    let (mut trials, mut kept) = (Vec::new(), Vec::new());
    while let Some(played) = running.next().await {
        let trial = played.trial;
        kept.extend(played.kept);
        if told {
            output::line(show::progress(&trial, trials.len() + 1, chosen.len()))?;
        }
        trials.push(trial);
    }
    drop(running);
    trials.sort_by_key(|trial| chosen.iter().position(|one| one.name == trial.scenario));
    Ok((trials, kept))
}

/// Leaves everything as it is until Ctrl-C.
async fn keep(lab: &Lab, chosen: &[Scenario], signal: &mut Told) -> anyhow::Result<()> {
    let Some(first) = chosen.first() else {
        return Ok(());
    };
    let node = lab.node(first).await?;
    output::note(format!(
        "\nThe node stays up; Ctrl-C ends it. In another terminal:\n  export KUBECONFIG={}\n  kubectl get pods -A\n  towline why pod/app -n {}",
        node.kubeconfig().display(),
        first.name
    ));
    signal.wait().await;
    Ok(())
}
