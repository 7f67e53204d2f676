//! `towline why`: the cause, its proof, and the change that helps.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use towline_explain::{Diagnosis, image, pod};
use towline_oci::Platform;

use crate::cluster::ClusterArgs;
use crate::exit::{BROKEN, OK, UNDECIDED, Usage, hinted};
use crate::output::{self, Format};
use crate::registry_client::RegistryArgs;

mod text;

#[cfg(feature = "node")]
pub(crate) use text::print as print_text;

/// Say why an image does not pull, prove it against the registry, and name the change that helps
///
/// TARGET is a pod (pod/NAME), or an image reference. Read-only. Exit codes: 0 it pulls, 1 it does not, 2 could not tell,
/// 64 wrong command line.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// pod/NAME, or an image such as ghcr.io/team/app:v1
    target: String,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// Platform to pull for, when TARGET is an image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

enum Target<'a> {
    Pod(&'a str),
    Image(&'a str),
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let diagnoses = match target(&args.target)? {
        Target::Pod(name) => of_pod(&args, name).await?,
        Target::Image(reference) => vec![of_image(&args, reference).await?],
    };
    match args.output {
        Format::Text => {
            for diagnosis in &diagnoses {
                text::print(diagnosis)?;
            }
        }
        format if diagnoses.len() == 1 => output::document(format, &diagnoses[0])?,
        format => output::document(format, &diagnoses)?,
    }
    Ok(ExitCode::from(code(&diagnoses)))
}

fn target(text: &str) -> anyhow::Result<Target<'_>> {
    match text.split_once('/') {
        Some(("pod" | "pods" | "po", name)) if !name.is_empty() && !name.contains('/') => {
            Ok(Target::Pod(name))
        }
        Some((kind @ ("deployment" | "deploy" | "statefulset" | "daemonset" | "job"), name)) => {
            Err(anyhow::Error::new(Usage(format!(
                "name a pod of {kind} {name}: pod/NAME"
            ))))
        }
        _ if text.is_empty() => Err(anyhow::Error::new(Usage(
            "name a pod (pod/NAME) or an image".to_owned(),
        ))),
        _ => Ok(Target::Image(text)),
    }
}

async fn of_pod(args: &Args, name: &str) -> anyhow::Result<Vec<Diagnosis>> {
    let cluster = args.cluster.connect().await?;
    let registry = args.registry.clone().beside(&cluster.kubeconfig).client()?;
    let context = pod::Context {
        kube: cluster.client,
        registry,
        seen_from: "this machine".to_owned(),
        boot_id: boot_id(),
    };
    let explained = pod::explain(&context, &cluster.namespace, name).await;
    explained.map_err(|error| match error {
        pod::ExplainError::NoPod { namespace, name } => hinted(
            format!("there is no pod {name:?} in namespace {namespace:?}"),
            "`towline get pods -A` lists them; an image is asked about by its whole name, such as docker.io/library/nginx:1.25",
        ),
        error @ pod::ExplainError::Api { .. } => anyhow::Error::new(error).context(format!("explain pod {name}")),
    })
}

async fn of_image(args: &Args, reference: &str) -> anyhow::Result<Diagnosis> {
    let platform = match &args.platform {
        Some(text) => Platform::parse(text)
            .ok_or_else(|| anyhow::Error::new(Usage(format!("{text:?} is not os/architecture"))))?,
        None => Platform::host(),
    };
    let local: &Path = &PathBuf::from(crate::cli::DEFAULT_DATA_DIR).join("kubeconfig");
    let args = args.registry.clone().beside(local);
    let client = args.client()?;
    let candidates = args.candidates(reference).context("read the logins")?;
    Ok(image::explain(&client, reference, platform, candidates).await)
}

/// The boot id of this machine: a node that reports the same one is this machine.
pub(crate) fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

fn code(diagnoses: &[Diagnosis]) -> u8 {
    let undecided = |diagnosis: &Diagnosis| diagnosis.cause == Some(towline_cause::Cause::Unknown);
    if diagnoses.iter().all(|diagnosis| diagnosis.pulls) {
        OK
    } else if diagnoses
        .iter()
        .any(|diagnosis| !diagnosis.pulls && !undecided(diagnosis))
    {
        BROKEN
    } else {
        UNDECIDED
    }
}
