//! Every workload of a kind: objects, jobs and pods are listed once for all of them.

use std::collections::HashMap;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, ListParams};
use kube::{Api, ResourceExt as _};

use super::{Found, PAGE, Workload, api, list, namespace, newest_jobs, none, without_pods};
use crate::pod::{Context, ExplainError, wants_a_look};
use crate::world::{by_name, controller};

/// The most workloads of a kind that are looked at.
const MAX_WORKLOADS: usize = 2000;
/// Workloads without pods of which it is asked why at the same time.
const AT_ONCE: usize = 8;

pub(super) async fn find(
    context: &Context,
    kind: Workload,
    place: Option<&str>,
) -> Result<Found, ExplainError> {
    let (objects, cut) = objects(context, kind, place).await?;
    let note = match objects.len() {
        0 => Some("there are none".to_owned()),
        most if cut => Some(format!("the first {most} of them")),
        _ => None,
    };
    if objects.is_empty() {
        let unread = match place {
            Some(name) => namespace::is_there(&context.kube, name).await?,
            None => None,
        };
        return Ok(Found {
            note: unread.or(note),
            ..Found::default()
        });
    }
    let each = with_jobs(context, kind, place, objects).await?;
    let makers = Makers::of(context, kind, place, &each).await;
    let mut made = vec![0_usize; each.len()];
    let mut waiting = 0;
    let pods: Api<Pod> = match place {
        Some(name) => Api::namespaced(context.kube.clone(), name),
        None => Api::all(context.kube.clone()),
    };
    let what = format!("the pods of the {}s", kind.word());
    let listed = list(&pods, ListParams::default(), &what, |pod| {
        let ending = pod.metadata.deletion_timestamp.is_some();
        let Some(at) = makers.of_pod(pod).filter(|_| !ending) else {
            return false;
        };
        made[at] += 1;
        // The healthy ones are only counted.
        let wanted = wants_a_look(pod);
        waiting += usize::from(wanted);
        wanted
    })
    .await?;
    let mut all = Found {
        seen: made.iter().sum(),
        waiting,
        note,
        ..listed
    };
    let empty = each.iter().zip(&made).filter(|(_, made)| **made == 0);
    let empty = empty.filter(|((_, object), _)| !is_past(kind, object));
    let asked = empty.map(|((stands, object), _)| async move {
        let namespace = object.namespace().unwrap_or_default();
        without_pods(context, *stands, object, &namespace).await
    });
    let mut asked = futures::stream::iter(asked).buffered(AT_ONCE);
    while let Some(template) = asked.next().await {
        all.templates.extend(template);
    }
    Ok(all)
}

/// The objects of a kind, and whether there are more than [`MAX_WORKLOADS`].
async fn objects(
    context: &Context,
    kind: Workload,
    place: Option<&str>,
) -> Result<(Vec<DynamicObject>, bool), ExplainError> {
    let api = api(context, kind, place);
    let mut params = ListParams::default().limit(PAGE);
    let mut objects = Vec::new();
    loop {
        let page = api.list(&params).await;
        let page = page.map_err(|source| ExplainError::Api {
            what: format!("the {}s", kind.word()),
            source: Box::new(source),
        })?;
        objects.extend(page.items);
        let more = page.metadata.continue_.filter(|token| !token.is_empty());
        match more {
            Some(token) if objects.len() < MAX_WORKLOADS => {
                params = params.continue_token(&token);
            }
            more => return Ok((objects, more.is_some())),
        }
    }
}

/// Each object with its kind; the newest job of a cron job stands for it.
async fn with_jobs(
    context: &Context,
    kind: Workload,
    place: Option<&str>,
    objects: Vec<DynamicObject>,
) -> Result<Vec<(Workload, DynamicObject)>, ExplainError> {
    let mut jobs = match kind {
        Workload::CronJob => newest_jobs(context, place, "the jobs of the cronjobs").await?,
        _ => HashMap::new(),
    };
    let each = objects.into_iter().map(|object| {
        let job = object.uid().and_then(|uid| jobs.remove(&uid));
        job.map_or((kind, object), |job| (Workload::Job, job))
    });
    Ok(each.collect())
}

/// What was there and is not to come again: the replica sets of a deployment's earlier revisions, and jobs that are over.
fn is_past(kind: Workload, object: &DynamicObject) -> bool {
    match kind {
        Workload::ReplicaSet => {
            object.data["spec"]["replicas"] == 0 && controller(object.owner_references()).is_some()
        }
        Workload::Job => none::is_over(object).is_some(),
        _ => false,
    }
}

/// Which workload made a pod.
#[derive(Debug, Default)]
struct Makers {
    by_uid: HashMap<String, usize>,
    /// Deployments by namespace and name, where their replica sets may not be listed.
    by_name: HashMap<(String, String), usize>,
}

impl Makers {
    async fn of(
        context: &Context,
        kind: Workload,
        place: Option<&str>,
        each: &[(Workload, DynamicObject)],
    ) -> Self {
        let mut makers = Self::default();
        for (at, (_, object)) in each.iter().enumerate() {
            makers.by_uid.extend(object.uid().map(|uid| (uid, at)));
        }
        if kind == Workload::Deployment && makers.add_replica_sets(context, place).await.is_err() {
            let named = each.iter().enumerate().map(|(at, (_, object))| {
                let namespace = object.namespace().unwrap_or_default();
                ((namespace, object.name_any()), at)
            });
            makers.by_name = named.collect();
        }
        makers
    }

    async fn add_replica_sets(
        &mut self,
        context: &Context,
        place: Option<&str>,
    ) -> Result<(), kube::Error> {
        let api = api(context, Workload::ReplicaSet, place);
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list_metadata(&params).await?;
            for set in page.items {
                let mut owners = set.owner_references().iter();
                let at = owners.find_map(|owner| self.by_uid.get(&owner.uid).copied());
                self.by_uid.extend(set.uid().zip(at));
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    fn of_pod(&self, pod: &Pod) -> Option<usize> {
        let mut owners = pod.owner_references().iter();
        let direct = owners.find_map(|owner| self.by_uid.get(&owner.uid));
        direct.copied().or_else(|| {
            let owner = by_name(pod, &controller(pod.owner_references())?)?;
            let key = (pod.namespace().unwrap_or_default(), owner.name);
            self.by_name.get(&key).copied()
        })
    }
}
