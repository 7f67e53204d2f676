//! `towline apply`: manifests to the server, by server-side apply.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client};

use crate::cluster::ClusterArgs;
use crate::exit::{OK, hinted};
use crate::manifests::{self, Manifest};
use crate::output;

/// Create or change the objects of manifests (a small convenience for machines without kubectl)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Manifest file or folder, `-` for standard input; repeatable
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let manifests = manifests::read(&args.filename)?;
    let cluster = args.cluster.connect().await?;
    for manifest in manifests {
        output::line(apply(&cluster.client, &cluster.namespace, manifest).await?)?;
    }
    Ok(ExitCode::from(OK))
}

/// Applies one object and says so, as `kubectl apply` would.
pub(crate) async fn apply(
    client: &Client,
    namespace: &str,
    manifest: Manifest,
) -> anyhow::Result<String> {
    let place = manifest.place;
    let object: DynamicObject = serde_json::from_value(manifest.object)
        .with_context(|| format!("read an object of {place}"))?;
    let (api, resource) = api_of(client, namespace, &object).await?;
    let name = object.metadata.name.clone().ok_or_else(|| {
        hinted(
            format!("an object of {place} has no metadata.name"),
            "name it",
        )
    })?;
    let params = PatchParams::apply("towline").force();
    let applied = api.patch(&name, &params, &Patch::Apply(&object)).await;
    applied.with_context(|| format!("apply {} {name} of {place}", resource.kind.to_lowercase()))?;
    Ok(format!("{}/{name} applied", resource.kind.to_lowercase()))
}

/// The API that an object belongs to, and its kind.
pub(crate) async fn api_of(
    client: &Client,
    namespace: &str,
    object: &DynamicObject,
) -> anyhow::Result<(Api<DynamicObject>, ApiResource)> {
    let types = object.types.clone().unwrap_or_default();
    let gvk = GroupVersionKind::try_from(&types)
        .with_context(|| format!("read apiVersion {:?}", types.api_version))?;
    let (resource, capabilities) = pinned_kind(client, &gvk).await.with_context(|| {
        format!(
            "the server does not know {} {}",
            types.api_version, types.kind
        )
    })?;
    let api = if capabilities.scope == Scope::Namespaced {
        let namespace = object.metadata.namespace.as_deref().unwrap_or(namespace);
        Api::namespaced_with(client.clone(), namespace, &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    };
    Ok((api, resource))
}
