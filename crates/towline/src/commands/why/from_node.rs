//! `towline why --from-node NODE`: the pull replayed there too, by the node's kubelet, or by a pod where that was asked for by name.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use towline_explain::eye::{Eye, Right, Visit};
use towline_explain::scan::Ask;

use super::Args;
use crate::cluster::Cluster;
use crate::exit::{Usage, hinted};
use crate::output::note;

/// What looks from the node that was named; none where none was.
pub(super) async fn eye(
    args: &Args,
    cluster: &Cluster,
    asks: &[Ask],
) -> anyhow::Result<Option<Arc<Eye>>> {
    let Some(node) = &args.from_node else {
        return Ok(None);
    };
    let client = cluster.client.clone();
    there(&client, node).await?;
    let Some(image) = &args.with_pod else {
        return Ok(Some(Arc::new(Eye::kubelet(client, node))));
    };
    let mut namespaces = Vec::new();
    for ask in asks {
        let (Ask::Pod { namespace, .. } | Ask::Workload { namespace, .. }) = ask else {
            let words = "--with-pod makes a pod for each image: name a pod or a workload";
            return Err(Usage(words.to_owned()).into());
        };
        if !namespaces.contains(namespace) {
            namespaces.push(namespace.clone());
        }
    }
    if namespaces.is_empty() {
        namespaces.push(cluster.namespace.clone());
    }
    allowed(args, cluster, &namespaces).await?;
    let visit = Visit::new(image.as_str(), cluster.namespace.as_str());
    Ok(Some(Arc::new(Eye::pod(client, node, visit))))
}

/// Whether the cluster has this node, where the caller may know: a pod for a node that is not there would wait for nobody.
async fn there(client: &kube::Client, node: &str) -> anyhow::Result<()> {
    let nodes: kube::Api<Node> = kube::Api::all(client.clone());
    match nodes.get_opt(node).await {
        Ok(None) => Err(hinted(
            format!("the cluster has no node {node:?}"),
            "`towline get nodes` lists them",
        )),
        // Who may not read nodes may still look from one.
        Ok(Some(_)) | Err(_) => Ok(()),
    }
}

/// Says what it takes and asks before anything is made.
async fn allowed(args: &Args, cluster: &Cluster, namespaces: &[String]) -> anyhow::Result<()> {
    let (node, image) = (
        args.from_node.as_deref().unwrap_or_default(),
        args.with_pod.as_deref().unwrap_or_default(),
    );
    note(format!(
        "this makes a pod of {image} on node {node}, which uses the node's network, mounts the pull secrets by reference, and is deleted at the end"
    ));
    note("it takes the rights to");
    let mut refused = Vec::new();
    for namespace in namespaces {
        for right in Visit::rights(&cluster.client, namespace).await {
            note(format!("  {right}"));
            if right.allowed == Some(false) {
                refused.push(right);
            }
        }
    }
    if let Some(first) = refused.first() {
        let Right {
            verb,
            resource,
            namespace,
            ..
        } = first;
        return Err(hinted(
            format!("the cluster does not let you {verb} {resource} in namespace {namespace}"),
            "without --with-pod the node's own kubelet is asked, where it is Towline's",
        ));
    }
    if args.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        let words =
            "--with-pod asks before it makes a pod, and nobody is there to answer: give --yes";
        return Err(Usage(words.to_owned()).into());
    }
    let mut out = std::io::stderr().lock();
    write!(out, "make it? [y/N] ")?;
    out.flush()?;
    drop(out);
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(hinted(
            "nothing was made",
            "without --from-node this machine alone is looked from",
        ))
    }
}

/// Does the work, and deletes what was made for it, also where a signal ends it.
pub(super) async fn cleaned_up<T>(
    eye: Option<Arc<Eye>>,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let Some(eye) = eye else {
        return work.await;
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        told = crate::commands::until_told() => match told {
            Ok(()) => Err(anyhow::anyhow!("interrupted")),
            Err(error) => Err(error.into()),
        },
    };
    for left in eye.clean_up().await {
        note(format!("left behind: {left}"));
    }
    outcome
}
