//! `towline demo`: the newcomer's first minute.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use towline_explain::{Diagnosis, Login, pod};
use towline_lab::scenario::{self, Scenario};
use towline_node::{Handle, Options, Service, demo};

use crate::commands::{Told, apply, up, why};
use crate::exit::{BROKEN, OK};
use crate::manifests::Manifest;
use crate::output::{self, BAD, BOLD, DIM, GOOD, styled};
use crate::pods_view::Row;

/// Nobody waits for the end of the demo, so it may take longer on a machine that is busy.
const STOP: Duration = Duration::from_secs(20);
/// How long the workloads have to show that they fail, and later that they run.
const PATIENCE: Duration = Duration::from_secs(30);
/// The demo's login to its registry. A person would type it.
const USER: &str = "demo";
const PASSWORD: &str = "correct-horse";

/// See image pulls fail as on Kubernetes, be told why, fix them, and watch them recover: under a minute, offline, in a folder of its own
///
/// Runs a node with seven workloads, of which one is right. Needs root. Cleans up and ends by itself.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave the node up at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    up::need_root("demo")?;
    let mut signal = Told::listen().context("listen for signals")?;
    let folder = towline_node::TempDir::new().context("make a folder for the demo")?;
    let resolver = demo::resolver()
        .await
        .context("start the demo's name server")?;
    let mut options = Options::new(folder.path());
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    (
        options.api_listen,
        options.registry_listen,
        options.kubelet_listen,
    ) = (any, any, any);
    options.resolver = vec![resolver.local_addr()];
    "demo".clone_into(&mut options.node_name);
    options.registry_access =
        demo::access(USER, PASSWORD).context("set up the registry's login")?;
    let started = Instant::now();
    let starting = Box::pin(Service::start(options));
    let handle = signal.while_starting("the node", starting).await?;
    let handle = handle.context("start the node")?;
    say(format!(
        "A node of your own is ready after {:.1} s: {}",
        started.elapsed().as_secs_f64(),
        parts(&handle)
    ))?;
    let told = tokio::select! {
        told = story(&handle) => told,
        _ = signal.wait() => Err(anyhow::anyhow!("interrupted")),
    };
    if args.keep && told.is_ok() {
        say(format!(
            "The node stays up. {} Ctrl-C ends it.",
            styled(
                BOLD,
                format!("export KUBECONFIG={}", handle.kubeconfig().display())
            )
        ))?;
        signal.wait().await;
    }
    let left = up::stop(handle, STOP, &mut signal).await;
    drop(resolver);
    for left in &left {
        output::note(format!("did not stop in time: {left}"));
    }
    told?;
    say(format!(
        "Cleaned up. All of it took {:.0} s.",
        started.elapsed().as_secs_f64()
    ))?;
    Ok(ExitCode::from(if left.is_empty() { OK } else { BROKEN }))
}

/// A paragraph of the story.
fn say(text: impl std::fmt::Display) -> std::io::Result<()> {
    output::line(format!("\n{text}"))
}

fn parts(handle: &Handle) -> String {
    let facts = handle.facts();
    format!(
        "API server https://{}, registry http://{}, kubelet https://{}, CRI {}",
        facts.api,
        facts.registry,
        facts.kubelet,
        facts.cri.display()
    )
}

async fn story(handle: &Handle) -> anyhow::Result<()> {
    let scenarios = scenario::demo();
    prepare(handle, &scenarios).await?;
    say(styled(BOLD, "They fail as on Kubernetes:"))?;
    let failing = |row: &Row, scenario: &Scenario| match scenario.cause {
        Some(_) => row.status == "ImagePullBackOff",
        None => row.status == "Running",
    };
    until(handle, &scenarios, failing).await?;
    say(styled(
        BOLD,
        "Why, and what to change (`towline why pod/NAME -n demo`):",
    ))?;
    let diagnoses = Box::pin(explain(handle, &scenarios)).await?;
    say(styled(
        BOLD,
        "So do what it says (the demo knows the registry's password; you would type it):",
    ))?;
    let mended = mend(handle, &diagnoses).await?;
    let runs = |row: &Row, scenario: &Scenario| {
        row.status == "Running" || !mended.contains(&scenario.name)
    };
    until(handle, &scenarios, runs).await?;
    say(styled(BOLD, "What is left, somebody has to decide:"))?;
    for (scenario, diagnosis) in diagnoses
        .iter()
        .filter(|(scenario, _)| !mended.contains(&scenario.name))
    {
        let cause = diagnosis.cause.unwrap_or(towline_cause::Cause::Unknown);
        let fix = diagnosis
            .fixes
            .first()
            .map_or_else(|| cause.fix(), |fix| fix.description.as_str());
        output::line(format!("  {} {}: {fix}", styled(BAD, cause), scenario.name))?;
    }
    Ok(())
}

/// Publishes the images and applies the objects.
async fn prepare(handle: &Handle, scenarios: &[Scenario]) -> anyhow::Result<()> {
    let registry = handle.facts().registry;
    let login = demo::Account {
        username: USER.to_owned(),
        password: PASSWORD.to_owned(),
    };
    for scenario in scenarios {
        demo::publish(scenario, registry, &login).await?;
    }
    say(styled(BOLD, "Seven workloads:"))?;
    let namespace = serde_json::json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": demo::NAMESPACE } });
    applied(handle, namespace).await?;
    for scenario in scenarios {
        output::line(format!("  {:<15} {}", scenario.name, scenario.story))?;
        for object in demo::manifests(scenario, registry, &login) {
            applied(handle, object).await?;
        }
    }
    Ok(())
}

async fn applied(handle: &Handle, object: serde_json::Value) -> anyhow::Result<()> {
    let manifest = Manifest {
        place: "the demo".to_owned(),
        object,
    };
    apply::apply(&handle.kube(), demo::NAMESPACE, manifest)
        .await
        .map(drop)
}

/// Shows each change of each pod, until every scenario has a pod for which `done` holds.
async fn until(
    handle: &Handle,
    scenarios: &[Scenario],
    done: impl Fn(&Row, &Scenario) -> bool,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let rows = rows(handle).await?;
        for (name, row) in &rows {
            if shown.get(name) != Some(&row.status) {
                output::line(format!(
                    "  {:>4.1} s  {name:<26} {}",
                    started.elapsed().as_secs_f64(),
                    coloured(row)
                ))?;
                shown.insert(name.clone(), row.status.clone());
            }
        }
        let waiting: Vec<&str> = scenarios
            .iter()
            .filter(|scenario| {
                !rows
                    .iter()
                    .any(|(name, row)| demo::pods(scenario, name) && done(row, scenario))
            })
            .map(|scenario| scenario.name.as_str())
            .collect();
        if waiting.is_empty() {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            bail!(
                "after {} s these workloads are not where they should be: {}",
                PATIENCE.as_secs(),
                waiting.join(", ")
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn coloured(row: &Row) -> String {
    let style = match row.status.as_str() {
        "Running" => GOOD,
        "ErrImagePull" | "ImagePullBackOff" => BAD,
        _ => DIM,
    };
    let cause = row
        .cause
        .as_ref()
        .map(|cause| format!(" ({cause})"))
        .unwrap_or_default();
    format!("{}{cause}", styled(style, &row.status))
}

async fn pods(handle: &Handle) -> anyhow::Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(handle.kube(), demo::NAMESPACE);
    Ok(pods
        .list(&ListParams::default())
        .await
        .context("list the demo's pods")?
        .items)
}

async fn rows(handle: &Handle) -> anyhow::Result<Vec<(String, Row)>> {
    let now = Timestamp::now();
    Ok(pods(handle)
        .await?
        .iter()
        .map(|pod| (pod.name_any(), Row::of(pod, now)))
        .collect())
}

/// Explains every scenario that fails, and insists on the cause that it was made for.
async fn explain<'a>(
    handle: &Handle,
    scenarios: &'a [Scenario],
) -> anyhow::Result<Vec<(&'a Scenario, Diagnosis)>> {
    let context = pod::Context {
        kube: handle.kube(),
        registry: handle
            .registry_client()
            .context("make the registry client")?,
        seen_from: "this machine".to_owned(),
        boot_id: why::boot_id(),
        budget: towline_explain::Budget::default(),
        eye: None,
        deep: None,
    };
    let pods = pods(handle).await?;
    let mut diagnoses = Vec::new();
    for scenario in scenarios.iter().filter(|scenario| scenario.cause.is_some()) {
        let pod = pods
            .iter()
            .find(|pod| demo::pods(scenario, &pod.name_any()))
            .context("find the pod")?;
        let name = pod.name_any();
        let found = Box::pin(pod::explain(&context, demo::NAMESPACE, &name))
            .await
            .context("explain a pod")?;
        let diagnosis = found.into_iter().next().context("a diagnosis")?;
        output::line("")?;
        why::print_text(&diagnosis)?;
        if diagnosis.cause != scenario.cause {
            bail!(
                "{} was made to show {:?}, and the answer is {:?}",
                scenario.name,
                scenario.cause,
                diagnosis.cause
            );
        }
        diagnoses.push((scenario, diagnosis));
    }
    Ok(diagnoses)
}

/// Applies each first fix that needs nobody's decision; gives the names of the scenarios that were mended.
async fn mend(
    handle: &Handle,
    diagnoses: &[(&Scenario, Diagnosis)],
) -> anyhow::Result<BTreeSet<String>> {
    let login = Login {
        username: USER.to_owned(),
        password: PASSWORD.to_owned().into(),
    };
    let mut mended = BTreeSet::from(["good".to_owned()]);
    for (scenario, diagnosis) in diagnoses {
        let Some(fix) = diagnosis
            .fixes
            .first()
            .filter(|fix| !fix.actions.is_empty())
        else {
            continue;
        };
        for (action, command) in fix.actions.iter().zip(&fix.commands) {
            let typed = command
                .replace("=USER", &format!("={USER}"))
                .replace("=PASSWORD", "=***")
                .replace("--arg user USER", &format!("--arg user {USER}"))
                .replace("--arg password PASSWORD", "--arg password ***");
            output::line(format!("  $ {typed}"))?;
            action.apply(&handle.kube(), Some(&login)).await?;
        }
        mended.insert(scenario.name.clone());
    }
    Ok(mended)
}
