//! `towline get`: objects as the server's own table.

use std::process::ExitCode;

use anyhow::Context as _;
use kube::core::{ApiResource, DynamicObject};
use kube::discovery::{Discovery, Scope};
use kube::{Api, Client};
use serde::Deserialize;

use crate::cluster::ClusterArgs;
use crate::exit::{OK, hinted};
use crate::output::{self, Format};
use crate::table;

/// List objects, or print one (a small convenience for machines without kubectl)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kind, such as pods, deploy, events
    kind: String,
    /// Name of one object
    name: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    cluster: ClusterArgs,
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    column_definitions: Vec<Column>,
    #[serde(default)]
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    #[serde(default)]
    priority: i32,
}

#[derive(Deserialize)]
struct Row {
    cells: Vec<serde_json::Value>,
    object: Option<serde_json::Value>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let cluster = args.cluster.connect().await?;
    let (resource, scope) = resolve(&cluster.client, &args.kind).await?;
    let namespaced = scope == Scope::Namespaced && !args.all_namespaces;
    let api = api(
        &cluster.client,
        &resource,
        namespaced.then_some(cluster.namespace.as_str()),
    );
    if args.output != Format::Text {
        print_document(&api, &args).await?;
        return Ok(ExitCode::from(OK));
    }
    let path = match &args.name {
        Some(name) => format!("{}/{name}", api.resource_url()),
        None => format!("{}?limit=500", api.resource_url()),
    };
    let request = http_request(&path)?;
    let table: Table = cluster
        .client
        .request(request)
        .await
        .with_context(|| format!("list {}", args.kind))?;
    if table.rows.is_empty() {
        output::note(format!(
            "No resources found in {} namespace.",
            cluster.namespace
        ));
        return Ok(ExitCode::from(OK));
    }
    for line in lines(&table, args.all_namespaces && scope == Scope::Namespaced) {
        output::line(line)?;
    }
    Ok(ExitCode::from(OK))
}

fn http_request(path: &str) -> anyhow::Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path)
        .header("accept", TABLE)
        .body(Vec::new())?)
}

async fn print_document(api: &Api<DynamicObject>, args: &Args) -> anyhow::Result<()> {
    match &args.name {
        Some(name) => output::document(args.output, &api.get(name).await?),
        None => output::document(
            args.output,
            &api.list(&kube::api::ListParams::default()).await?,
        ),
    }
}

fn lines(table: &Table, with_namespace: bool) -> Vec<String> {
    let shown: Vec<usize> = (0..table.column_definitions.len())
        .filter(|i| table.column_definitions[*i].priority == 0)
        .collect();
    let mut header: Vec<String> = shown
        .iter()
        .map(|i| table.column_definitions[*i].name.clone())
        .collect();
    if with_namespace {
        header.insert(0, "Namespace".to_owned());
    }
    let rows: Vec<Vec<String>> = table
        .rows
        .iter()
        .map(|row| {
            let mut cells: Vec<String> = shown.iter().map(|i| cell(row.cells.get(*i))).collect();
            if with_namespace {
                let namespace = row
                    .object
                    .as_ref()
                    .and_then(|object| object["metadata"]["namespace"].as_str());
                cells.insert(0, namespace.unwrap_or("-").to_owned());
            }
            cells
        })
        .collect();
    table::layout(&header, &rows)
}

fn cell(value: Option<&serde_json::Value>) -> String {
    match value {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

/// Finds a kind by plural, singular, short name or kind.
pub(crate) async fn resolve(client: &Client, word: &str) -> anyhow::Result<(ApiResource, Scope)> {
    const SHORT: [(&str, &str); 9] = [
        ("po", "pods"),
        ("no", "nodes"),
        ("ns", "namespaces"),
        ("ev", "events"),
        ("cm", "configmaps"),
        ("sa", "serviceaccounts"),
        ("svc", "services"),
        ("deploy", "deployments"),
        ("rs", "replicasets"),
    ];
    let wanted = word.to_lowercase();
    let wanted = SHORT
        .iter()
        .find(|(short, _)| *short == wanted)
        .map_or(wanted.as_str(), |(_, plural)| plural);
    let discovery = Discovery::new(client.clone())
        .run()
        .await
        .context("ask the server for its kinds")?;
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            let kind = resource.kind.to_lowercase();
            if resource.plural == wanted || kind == wanted {
                return Ok((resource, capabilities.scope));
            }
        }
    }
    Err(hinted(
        format!("the server has no kind {word:?}"),
        "kinds are pods, deployments, secrets, events, ...",
    ))
}

/// The API of a kind, in a namespace or in all.
pub(crate) fn api(
    client: &Client,
    resource: &ApiResource,
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}
