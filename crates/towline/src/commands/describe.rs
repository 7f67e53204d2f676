//! `towline describe`: an object, its events and, for a pod, what its pulls came to.

use std::process::ExitCode;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::core::DynamicObject;
use kube::discovery::Scope;
use kube::{Api, ResourceExt as _};

use crate::cluster::ClusterArgs;
use crate::commands::get;
use crate::exit::OK;
use crate::output::{self, Format};

/// Show an object and its events (a small convenience for machines without kubectl)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kind, such as pod
    kind: String,
    /// Name of the object
    name: String,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let cluster = args.cluster.connect().await?;
    let (resource, scope) = get::resolve(&cluster.client, &args.kind).await?;
    let namespaced = scope == Scope::Namespaced;
    let api = get::api(
        &cluster.client,
        &resource,
        namespaced.then_some(cluster.namespace.as_str()),
    );
    let mut object = api
        .get(&args.name)
        .await
        .with_context(|| format!("read {} {}", args.kind, args.name))?;
    object.metadata.managed_fields = None;
    // It repeats the whole object, a secret's values included.
    if let Some(annotations) = &mut object.metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    if resource.kind == "Secret" {
        hide_values(&mut object);
    }
    output::document(Format::Yaml, &object)?;
    let namespace = object.namespace().unwrap_or_else(|| "default".to_owned());
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), &namespace);
    // An earlier object of that name had events of its own. Those of nodes carry the node's name in place of its uid.
    let uid = object.uid().filter(|_| resource.kind != "Node");
    let same = uid.map_or_else(String::new, |uid| format!(",involvedObject.uid={uid}"));
    let fields = format!(
        "involvedObject.name={},involvedObject.kind={}{same}",
        args.name, resource.kind
    );
    let list = events
        .list(&ListParams::default().fields(&fields).limit(500))
        .await
        .context("read its events")?;
    output::line("events:")?;
    for event in list.items {
        let (kind, reason) = (
            event.type_.unwrap_or_default(),
            event.reason.unwrap_or_default(),
        );
        let times = event
            .count
            .filter(|count| *count > 1)
            .map(|count| format!(" (x{count})"))
            .unwrap_or_default();
        output::line(format!(
            "- {kind} {reason}{times}: {}",
            event.message.unwrap_or_default()
        ))?;
    }
    Ok(ExitCode::from(OK))
}

/// The values of a secret are never printed.
fn hide_values(object: &mut DynamicObject) {
    if let Some(data) = object
        .data
        .get_mut("data")
        .and_then(serde_json::Value::as_object_mut)
    {
        for value in data.values_mut() {
            *value = serde_json::Value::String("[redacted]".to_owned());
        }
    }
}
