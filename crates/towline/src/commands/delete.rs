//! `towline delete`: objects by kind and name, or by manifest.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use kube::api::DeleteParams;
use kube::core::DynamicObject;

use crate::cluster::ClusterArgs;
use crate::commands::{apply, get};
use crate::exit::{OK, Usage};
use crate::{manifests, output};

/// Delete objects (a small convenience for machines without kubectl)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kind and names, such as: pod web-1 web-2
    #[arg(value_name = "KIND NAME")]
    object: Vec<String>,
    /// Delete the objects of these manifests
    #[arg(short, long = "filename", value_name = "FILE")]
    filename: Vec<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.filename.is_empty() && args.object.len() < 2 {
        return Err(anyhow::Error::new(Usage(
            "name a kind and an object, or give -f FILE".to_owned(),
        )));
    }
    let cluster = args.cluster.connect().await?;
    if let Some((kind, names)) = args.object.split_first() {
        let (resource, scope) = get::resolve(&cluster.client, kind).await?;
        let namespaced = scope == kube::discovery::Scope::Namespaced;
        let api = get::api(
            &cluster.client,
            &resource,
            namespaced.then_some(cluster.namespace.as_str()),
        );
        for name in names {
            api.delete(name, &DeleteParams::background())
                .await
                .with_context(|| format!("delete {kind} {name}"))?;
            output::line(format!("{}/{name} deleted", resource.kind.to_lowercase()))?;
        }
    }
    for manifest in manifests::read(&args.filename)? {
        let object: DynamicObject = serde_json::from_value(manifest.object)?;
        let (api, resource) = apply::api_of(&cluster.client, &cluster.namespace, &object).await?;
        let name = object.metadata.name.unwrap_or_default();
        api.delete(&name, &DeleteParams::background())
            .await
            .with_context(|| format!("delete {} {name}", resource.kind))?;
        output::line(format!("{}/{name} deleted", resource.kind.to_lowercase()))?;
    }
    Ok(ExitCode::from(OK))
}
