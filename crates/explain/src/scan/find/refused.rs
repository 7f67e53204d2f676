//! Workloads of a namespace or of the cluster whose pods are refused before they are there: no list of pods shows them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Event, ObjectReference};
use kube::api::{DynamicObject, ListParams};
use kube::{Api, ResourceExt as _};

use super::{Found, Workload, get, none, workload};
use crate::pod::{Context, ExplainError};
use crate::scan::Ask;
use crate::world::{World, reason};

/// The most events that are looked through.
const MOST_EVENTS: u32 = 500;
/// The most workloads that are looked at.
const MOST: usize = 50;

/// Adds what the events tell of: workloads that have no pods, as the refused creation of some is no news where others are there. What may
/// not be read is noted; the pods that were found are explained all the same.
pub(in crate::scan) async fn add(context: &Context, world: &World, ask: &Ask, found: &mut Found) {
    let namespace = match ask {
        Ask::Namespace(namespace) => Some(namespace.as_str()),
        Ask::Cluster => None,
        Ask::Pod { .. } | Ask::Workload { .. } | Ask::Workloads { .. } => return,
    };
    let note = match look(context, world, namespace, found).await {
        Ok(false) => return,
        Ok(true) => {
            format!("of workloads whose pods cannot be made the first {MOST} are looked at")
        }
        Err(error) => {
            let why = match error {
                ExplainError::Api { what, source } => format!("{what}: {}", reason(&source)),
                other => other.to_string(),
            };
            format!("workloads whose pods cannot be made are not told: {why}")
        }
    };
    found.note.get_or_insert(note);
}

/// True where there are more than are looked at.
async fn look(
    context: &Context,
    world: &World,
    namespace: Option<&str>,
    found: &mut Found,
) -> Result<bool, ExplainError> {
    let events: Api<Event> = match namespace {
        Some(namespace) => Api::namespaced(context.kube.clone(), namespace),
        None => Api::all(context.kube.clone()),
    };
    let fields = format!("reason={}", none::REASON);
    let params = ListParams::default().fields(&fields).limit(MOST_EVENTS);
    let events = events.list(&params).await;
    let events = events.map_err(|source| ExplainError::Api {
        what: "events".to_owned(),
        source: Box::new(source),
    })?;
    let more = events
        .metadata
        .continue_
        .is_some_and(|token| !token.is_empty());
    let told = events
        .items
        .into_iter()
        .filter(|event| event.reason.as_deref() == Some(none::REASON));
    let makers: BTreeSet<Maker> = told
        .filter_map(|event| Maker::of(event.involved_object))
        .collect();
    let is_cut = more || makers.len() > MOST;
    let mut looked = BTreeSet::new();
    for maker in makers.into_iter().take(MOST) {
        let Some((kind, object)) = whole(context, &maker).await? else {
            continue;
        };
        if !looked.insert((maker.namespace.clone(), kind.kind(), object.name_any())) {
            continue;
        }
        let none = workload(context, world, kind, (&maker.namespace, object)).await?;
        let refused = none.templates.into_iter();
        let refused = refused.filter(|template| template.no_pods.refusal().is_some());
        found.templates.extend(refused);
    }
    Ok(is_cut)
}

/// What tried to make a pod.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Maker {
    namespace: String,
    kind: &'static str,
    name: String,
}

impl Maker {
    fn of(object: ObjectReference) -> Option<Self> {
        let kind = Workload::parse(object.kind.as_deref()?)?;
        Some(Self {
            namespace: object.namespace?,
            kind: kind.kind(),
            name: object.name?,
        })
    }
}

/// The workload that a person wrote: a replica set's deployment, a job's cron job stays with its job. Nothing where it is gone.
async fn whole(
    context: &Context,
    maker: &Maker,
) -> Result<Option<(Workload, DynamicObject)>, ExplainError> {
    let Some(kind) = Workload::parse(maker.kind) else {
        return Ok(None);
    };
    let Some(object) = there(get(context, kind, &maker.namespace, &maker.name).await)? else {
        return Ok(None);
    };
    let owners = object.owner_references().iter();
    let mut deployments = owners.filter(|owner| owner.kind == Workload::Deployment.kind());
    let Some(owner) = deployments.next() else {
        return Ok(Some((kind, object)));
    };
    let outer = Workload::Deployment;
    let outer_object = there(get(context, outer, &maker.namespace, &owner.name).await)?;
    Ok(outer_object.map(|object| (outer, object)))
}

fn there(got: Result<DynamicObject, ExplainError>) -> Result<Option<DynamicObject>, ExplainError> {
    match got {
        Ok(object) => Ok(Some(object)),
        Err(ExplainError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
