//! `towline why`: the cause, its proof, and the change that helps.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use towline_explain::eye::Eye;
use towline_explain::pod::{Context, ExplainError};
use towline_explain::{Budget, Diagnosis, image, scan};
use towline_oci::Platform;

use crate::cluster::{self, Cluster, ClusterArgs};
use crate::exit::{self, UNDECIDED, Usage, hinted};
use crate::registry_client::RegistryArgs;

mod answer;
mod deep;
mod fix;
mod from_node;
mod markdown;
mod message;
mod target;
mod text;
mod watch;

use answer::{Answer, Style};
use target::{Asked, Place};
#[cfg(feature = "node")]
pub(crate) use text::print as print_text;

/// Say why images do not pull, prove it against the registry, and name the change that helps
///
/// TARGET is pod/NAME, a workload (deployment/NAME, statefulset/NAME, daemonset/NAME, replicaset/NAME, job/NAME, cronjob/NAME),
/// namespace/NAME, or an image reference; kubectl's other forms do too (pod NAME NAME, pods, deployments for all of them; with -n a bare NAME is a pod). Without TARGET, -n NAMESPACE asks about a whole namespace and -A about the cluster: pods
/// that fail for one reason are one answer. Read-only, but for --fix. Exit codes: 0 all pull, 1 some do not, 2 could not tell, 64 wrong command line.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// pod/NAME, deployment/NAME, ..., or an image such as ghcr.io/team/app:v1; repeatable
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Read what was pasted instead: a message, `kubectl describe pod`, `get events`, pods as YAML or JSON; - is standard input
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["targets", "all_namespaces", "watch", "fix"], allow_hyphen_values = true)]
    message: Option<String>,
    /// Every pod of every namespace
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Download each image's bytes too, a layer at a time, and compare their digests; nothing is kept. For layers that come wrong, slowly or
    /// not at all. At most 16 GB and 15 min an image
    #[arg(long, conflicts_with_all = ["message", "watch", "from_node"])]
    deep: bool,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Style,
    /// Platform to pull for, when TARGET is an image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Begin no further replay against a registry that got this many requests
    #[arg(long, value_name = "N", default_value_t = Budget::default().requests_per_registry)]
    budget: usize,
    /// Print a new answer whenever it changes, until Ctrl-C
    #[arg(short, long, conflicts_with = "fix")]
    watch: bool,
    /// Show a change that is certain as a diff, make it after a yes, and follow the pods until they run
    #[arg(long)]
    fix: bool,
    /// With --fix and --with-pod: do not ask
    #[arg(short, long)]
    yes: bool,
    /// Replay the pull on this node too, by Towline's kubelet there; where the two views differ, the node's decides
    #[arg(long, value_name = "NODE", conflicts_with = "message")]
    from_node: Option<String>,
    /// With --from-node: by a short-lived pod of this image, which holds towline, where another kubelet runs
    #[arg(long, value_name = "IMAGE", requires = "from_node", conflicts_with_all = ["watch", "fix"])]
    with_pod: Option<String>,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match Box::pin(explain(&args)).await {
        // Where no answer could be had, that is what the exit code says.
        Err(error) => Ok(exit::failed_with(&error, UNDECIDED)),
        code => code,
    }
}

async fn explain(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(message) = &args.message {
        let answer = message::read(message)?;
        answer.print(args.output)?;
        return Ok(ExitCode::from(answer.code()));
    }
    if args.yes && !args.fix && args.with_pod.is_none() {
        let words = "--yes answers what --fix and --with-pod ask";
        return Err(Usage(words.to_owned()).into());
    }
    let given = args.cluster.namespace.as_deref();
    // The namespace is that of the context, which is not read for images.
    let place = Place {
        namespace: given.unwrap_or_default(),
        given: given.is_some(),
        all: args.all_namespaces,
        from_node: args.from_node.is_some(),
    };
    let asked = target::read(&args.targets, place)?;
    match asked {
        Asked::Images(_) if args.watch || args.fix => {
            let words = "--watch and --fix are for objects of a cluster, not for images";
            Err(Usage(words.to_owned()).into())
        }
        Asked::Images(images) => of_images(args, &images).await,
        Asked::Cluster(_) => {
            let cluster = args.cluster.connect().await?;
            let namespace = &cluster.namespace;
            let asked = target::read(&args.targets, Place { namespace, ..place })?;
            let Asked::Cluster(asks) = asked else {
                return Err(Usage("name objects of the cluster".to_owned()).into());
            };
            let eye = from_node::eye(args, &cluster, &asks).await?;
            let place = cluster.place();
            let context = context(args, cluster, eye.clone())?;
            let work = Box::pin(objects(args, &context, &asks));
            let done = from_node::cleaned_up(eye.filter(|_| args.with_pod.is_some()), work).await;
            done.map_err(|error| place.reached(error))
        }
    }
}

async fn of_images(args: &Args, images: &[String]) -> anyhow::Result<ExitCode> {
    let eye = if args.from_node.is_some() {
        let cluster = args.cluster.connect().await?;
        from_node::eye(args, &cluster, &[]).await?
    } else {
        None
    };
    let work = async {
        let mut diagnoses = Vec::new();
        for image in images {
            diagnoses.push(of_image(args, image, eye.as_deref()).await?);
        }
        Ok(Answer::of(&images.join(", "), diagnoses))
    };
    let made = eye.clone().filter(|_| args.with_pod.is_some());
    let answer = from_node::cleaned_up(made, Box::pin(work)).await;
    deep::end();
    let answer = answer?;
    answer.print(args.output)?;
    Ok(ExitCode::from(answer.code()))
}

async fn objects(args: &Args, context: &Context, asks: &[scan::Ask]) -> anyhow::Result<ExitCode> {
    if args.fix && args.output != Style::Text {
        return Err(Usage("--fix speaks to a person: leave -o out".to_owned()).into());
    }
    let memory = scan::Memory::new(context);
    let mut answer = of_cluster(context, asks, &memory).await?;
    answer.print(args.output)?;
    if args.watch {
        answer = Box::pin(watch::run(context, (asks, &memory), args.output, answer)).await?;
    }
    if args.fix {
        let changed = Box::pin(fix::offer(context, answer.diagnoses(), args.yes)).await?;
        if !changed.is_empty() {
            let runs = Box::pin(fix::follow(context, &changed)).await?;
            // Whether the bytes come right was seen before the change.
            let context = &Context {
                deep: None,
                ..context.clone()
            };
            answer = of_cluster(context, asks, &scan::Memory::new(context)).await?;
            if !runs || answer.code() != exit::OK {
                answer.print(args.output)?;
            }
        }
    }
    Ok(ExitCode::from(answer.code()))
}

fn context(args: &Args, cluster: Cluster, eye: Option<Arc<Eye>>) -> anyhow::Result<Context> {
    let registry = args.registry.clone().beside(&cluster.kubeconfig).client()?;
    Ok(Context {
        kube: cluster.client,
        registry,
        seen_from: "this machine".to_owned(),
        boot_id: boot_id(),
        budget: Budget {
            requests_per_registry: args.budget,
            ..Budget::default()
        },
        eye,
        deep: args.deep.then(deep::watched),
    })
}

async fn of_cluster(
    context: &Context,
    asks: &[scan::Ask],
    memory: &scan::Memory,
) -> anyhow::Result<Answer> {
    let explained = Box::pin(scan::explain_again(context, asks, memory)).await;
    deep::end();
    let scan = explained.map_err(not_explained)?;
    Ok(Answer::of_scan(scan, asks))
}

/// Why there is no answer, and what helps.
fn not_explained(error: ExplainError) -> anyhow::Error {
    match &error {
        ExplainError::Missing { kind, .. } => hinted(
            error.to_string(),
            format!(
                "`towline get {kind}s -A` lists them; an image is asked about by its whole name and without -n, such as docker.io/library/nginx:1.25"
            ),
        ),
        ExplainError::NoNamespace { near, .. } if near.is_empty() => hinted(
            error.to_string(),
            "`towline get namespaces` lists them; -A asks about all",
        ),
        ExplainError::NoNamespace { near, .. } => hinted(
            error.to_string(),
            format!("did you mean {}?", near.join(", ")),
        ),
        ExplainError::Api { what, source } if is_forbidden(source) => hinted(
            format!(
                "the cluster does not let you read {what}: {}",
                cluster::words(source)
            ),
            "docs/rbac-why.yaml lists the rights that this takes; -n NAMESPACE asks about one namespace alone",
        ),
        ExplainError::Api { what, source } if matches!(**source, kube::Error::Api(_)) => {
            anyhow::anyhow!("cannot read {what}: {}", cluster::words(source))
        }
        ExplainError::Api { .. } => anyhow::Error::new(error),
    }
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

async fn of_image(args: &Args, reference: &str, eye: Option<&Eye>) -> anyhow::Result<Diagnosis> {
    let deep = args.deep.then(deep::watched);
    let platform = match &args.platform {
        Some(text) => Platform::parse(text)
            .ok_or_else(|| anyhow::Error::new(Usage(format!("{text:?} is not os/architecture"))))?,
        None => Platform::host(),
    };
    let local: &Path = &PathBuf::from(crate::cli::DEFAULT_DATA_DIR).join("kubeconfig");
    let args = args.registry.clone().beside(local);
    let client = args.client()?;
    let candidates = args.candidates(reference, &client).await;
    let candidates = candidates.context("read the logins")?;
    let seen = (eye, deep);
    Ok(image::explain(&client, reference, platform, candidates, seen).await)
}

/// The boot id of this machine: a node that reports the same one is this machine.
pub(crate) fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}
