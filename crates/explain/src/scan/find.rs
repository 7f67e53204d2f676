//! From what is asked about to the pods that want a look.

mod all;
mod namespace;
mod none;
pub(super) mod refused;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use super::Ask;
use crate::Owner;
use crate::pod::{Context, ExplainError, wants_a_look};
use crate::world::{Around, World};
pub(crate) use none::NoPods;

/// Pods in a page.
const PAGE: u32 = 500;
/// The most broken pods that are explained; a cluster where more fail has few causes that these do not show.
const MAX_PODS: usize = 20_000;

/// A kind of object that makes pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// apps/v1
    Deployment,
    /// apps/v1
    ReplicaSet,
    /// apps/v1
    StatefulSet,
    /// apps/v1
    DaemonSet,
    /// v1
    ReplicationController,
    /// batch/v1
    Job,
    /// batch/v1; its newest job stands for it
    CronJob,
}

impl Workload {
    const ALL: [Self; 7] = [
        Self::Deployment,
        Self::ReplicaSet,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::ReplicationController,
        Self::Job,
        Self::CronJob,
    ];

    /// Finds a kind by singular, plural, short name, or one of them with its group (`deployments.apps`).
    pub fn parse(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        let (word, group) = word.split_once('.').unwrap_or((&word, ""));
        Self::ALL.into_iter().find(|kind| {
            let singular = kind.word();
            let named = word == singular
                || word.strip_suffix('s') == Some(singular)
                || word == kind.short();
            named
                && (group.is_empty() || group.strip_prefix("v1.").unwrap_or(group) == kind.group())
        })
    }

    /// Singular, in lower case: `deployment`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::ReplicaSet => "replicaset",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
            Self::ReplicationController => "replicationcontroller",
            Self::Job => "job",
            Self::CronJob => "cronjob",
        }
    }

    fn short(self) -> &'static str {
        match self {
            Self::Deployment => "deploy",
            Self::ReplicaSet => "rs",
            Self::StatefulSet => "sts",
            Self::DaemonSet => "ds",
            Self::ReplicationController => "rc",
            Self::Job => "job",
            Self::CronJob => "cj",
        }
    }

    fn group(self) -> &'static str {
        match self {
            Self::ReplicationController => "",
            Self::Job | Self::CronJob => "batch",
            _ => "apps",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::ReplicationController => "ReplicationController",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
        }
    }
}

/// What a workload without pods would make.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) workload: Owner,
    pub(crate) pod: Pod,
    pub(crate) no_pods: NoPods,
}

/// Pods to explain.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Pods seen, those that are well included.
    pub(super) seen: usize,
    /// Those of them of which an image is not there.
    pub(super) waiting: usize,
    pub(super) pods: Vec<Pod>,
    /// Workloads without pods.
    pub(super) templates: Vec<Template>,
    /// What all pods that were seen say of each other, where they are all of a namespace or of the cluster.
    pub(super) around: Option<Arc<Around>>,
    /// What could not be found out of what was asked about.
    pub(super) note: Option<String>,
}

pub(super) async fn find(
    context: &Context,
    world: &World,
    ask: &Ask,
) -> Result<Found, ExplainError> {
    match ask {
        Ask::Pod { namespace, name } => super::one(context, namespace, name).await,
        Ask::Workload {
            kind,
            namespace,
            name,
        } => {
            let asked = get(context, *kind, namespace, name).await?;
            workload(context, world, *kind, (namespace, asked)).await
        }
        Ask::Workloads { kind, namespace } => all::find(context, *kind, namespace.as_deref()).await,
        Ask::Namespace(namespace) => {
            let pods = Api::namespaced(context.kube.clone(), namespace);
            let params = ListParams::default();
            let what = format!("the pods of {ask}");
            let mut found = list(&pods, params, &what, wants_a_look).await?;
            if found.seen == 0 {
                found.note = namespace::is_there(&context.kube, namespace).await?;
            }
            Ok(found)
        }
        Ask::Cluster => {
            let pods = Api::all(context.kube.clone());
            let (params, what) = (ListParams::default(), "the pods of all namespaces");
            list(&pods, params, what, wants_a_look).await
        }
    }
}

/// Reads pods page by page, and keeps those that are wanted: a cluster may hold more than fits into memory.
async fn list(
    pods: &Api<Pod>,
    params: ListParams,
    what: &str,
    mut wanted: impl FnMut(&Pod) -> bool,
) -> Result<Found, ExplainError> {
    let mut params = params.limit(PAGE);
    let mut found = Found::default();
    let mut around = Around::default();
    loop {
        let page = pods
            .list(&params)
            .await
            .map_err(|source| ExplainError::Api {
                what: what.to_owned(),
                source: Box::new(source),
            })?;
        for mut pod in page.items {
            found.seen += 1;
            around.take(&pod);
            found.waiting += usize::from(wants_a_look(&pod));
            if wanted(&pod) && found.pods.len() < MAX_PODS {
                pod.metadata.managed_fields = None;
                found.pods.push(pod);
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    found.around = Some(Arc::new(around));
    Ok(found)
}

async fn workload(
    context: &Context,
    world: &World,
    kind: Workload,
    (namespace, asked): (&str, DynamicObject),
) -> Result<Found, ExplainError> {
    let (kind, object) = match kind {
        Workload::CronJob => {
            let what = format!("the jobs of cronjob {namespace}/{}", asked.name_any());
            let mut jobs = newest_jobs(context, Some(namespace), &what).await?;
            let job = asked.uid().and_then(|uid| jobs.remove(&uid));
            job.map_or((kind, asked), |job| (Workload::Job, job))
        }
        _ => (kind, asked),
    };
    let uid = object.uid().unwrap_or_default();
    let name = object.name_any();
    let pods: Api<Pod> = Api::namespaced(context.kube.clone(), namespace);
    let params = match selector(&object.data["spec"]["selector"]) {
        Some(selector) => ListParams::default().labels(&selector),
        None => ListParams::default(),
    };
    let what = format!("the pods of {} {namespace}/{name}", kind.word());
    let listed = list(&pods, params, &what, |_| true).await?;
    // A selector may catch pods of others; and what is ending is nobody's answer.
    let mut own = Vec::new();
    for pod in listed.pods {
        let ending = pod.metadata.deletion_timestamp.is_some();
        if !ending && is_of(world, namespace, &pod, (kind, &name, &uid)).await {
            own.push(pod);
        }
    }
    let seen = own.len();
    let waiting = own.iter().filter(|pod| wants_a_look(pod)).count();
    if waiting > 0 {
        own.retain(wants_a_look);
    } else {
        own.truncate(1);
    }
    let mut found = Found {
        seen,
        waiting,
        pods: own,
        ..Found::default()
    };
    if found.seen == 0 {
        let template = without_pods(context, kind, &object, namespace).await;
        found.templates.extend(template);
    }
    Ok(found)
}

/// What a workload without pods would make, and why it has none.
async fn without_pods(
    context: &Context,
    kind: Workload,
    object: &DynamicObject,
    namespace: &str,
) -> Option<Template> {
    let pod = template(kind, object, namespace)?;
    let workload = Owner {
        kind: kind.kind().to_owned(),
        name: object.name_any(),
    };
    let no_pods = none::why(&context.kube, kind, object, namespace).await;
    Some(Template {
        workload,
        pod,
        no_pods,
    })
}

/// Whether a pod was made by this workload, itself or through a replica set.
async fn is_of(
    world: &World,
    namespace: &str,
    pod: &Pod,
    (kind, name, uid): (Workload, &str, &str),
) -> bool {
    let mut owners = pod.owner_references().iter();
    if owners.any(|owner| owner.uid == uid) {
        return true;
    }
    let (outer, _) = world.owner(namespace, pod).await;
    outer.is_some_and(|outer| outer.kind == kind.kind() && outer.name == name)
}

async fn get(
    context: &Context,
    kind: Workload,
    namespace: &str,
    name: &str,
) -> Result<DynamicObject, ExplainError> {
    let found = api(context, kind, Some(namespace)).get_opt(name).await;
    let found = found.map_err(|source| ExplainError::Api {
        what: format!("{} {namespace}/{name}", kind.word()),
        source: Box::new(source),
    })?;
    found.ok_or_else(|| ExplainError::Missing {
        kind: kind.word().to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

fn api(context: &Context, kind: Workload, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(kind.group(), "v1", kind.kind()));
    match namespace {
        Some(namespace) => Api::namespaced_with(context.kube.clone(), namespace, &resource),
        None => Api::all_with(context.kube.clone(), &resource),
    }
}

/// The newest job of each cron job, by the cron job's uid.
async fn newest_jobs(
    context: &Context,
    namespace: Option<&str>,
    what: &str,
) -> Result<HashMap<String, DynamicObject>, ExplainError> {
    let jobs = api(context, Workload::Job, namespace);
    let mut params = ListParams::default().limit(PAGE);
    let mut newest: HashMap<String, DynamicObject> = HashMap::new();
    let made = |job: &DynamicObject| job.creation_timestamp().map(|time| time.0);
    loop {
        let page = jobs
            .list(&params)
            .await
            .map_err(|source| ExplainError::Api {
                what: what.to_owned(),
                source: Box::new(source),
            })?;
        for job in page.items {
            let owners = job.owner_references().iter();
            let crons: Vec<String> = owners.map(|owner| owner.uid.clone()).collect();
            for cron in crons {
                let known = newest.get(&cron);
                if known.is_none_or(|known| made(known) < made(&job)) {
                    newest.insert(cron, job.clone());
                }
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(newest),
        }
    }
}

/// The pod that a workload's template would make.
fn template(kind: Workload, object: &DynamicObject, namespace: &str) -> Option<Pod> {
    let spec = &object.data["spec"];
    let template = match kind {
        Workload::CronJob => &spec["jobTemplate"]["spec"]["template"],
        _ => &spec["template"],
    };
    let template: PodTemplateSpec = serde_json::from_value(template.clone()).ok()?;
    Some(Pod {
        metadata: kube::api::ObjectMeta {
            namespace: Some(namespace.to_owned()),
            ..kube::api::ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    })
}

/// A label selector as the API takes it; `None` where nothing is selected.
fn selector(value: &Value) -> Option<String> {
    let plain = value.as_object()?;
    let selector: LabelSelector =
        if plain.contains_key("matchLabels") || plain.contains_key("matchExpressions") {
            serde_json::from_value(value.clone()).ok()?
        } else {
            LabelSelector {
                match_labels: serde_json::from_value(value.clone()).ok(),
                match_expressions: None,
            }
        };
    let labels = selector.match_labels.iter().flatten();
    let mut words: Vec<String> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    for one in selector.match_expressions.iter().flatten() {
        let values = one.values.as_deref().unwrap_or_default().join(",");
        words.push(match one.operator.as_str() {
            "In" => format!("{} in ({values})", one.key),
            "NotIn" => format!("{} notin ({values})", one.key),
            "Exists" => one.key.clone(),
            "DoesNotExist" => format!("!{}", one.key),
            _ => return None,
        });
    }
    (!words.is_empty()).then(|| words.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_have_the_names_that_kubectl_takes() {
        for (word, want) in [
            ("deploy", Some(Workload::Deployment)),
            ("deployments.apps", Some(Workload::Deployment)),
            ("deployments.v1.apps", Some(Workload::Deployment)),
            ("StatefulSet", Some(Workload::StatefulSet)),
            ("cj", Some(Workload::CronJob)),
            ("jobs.batch", Some(Workload::Job)),
            ("deployments.batch", None),
            ("nginx", None),
            ("ghcr.io", None),
        ] {
            assert_eq!(Workload::parse(word), want, "{word}");
        }
    }

    #[test]
    fn selectors_are_written_as_the_api_takes_them() {
        let of = |value| selector(&value);
        assert_eq!(
            of(json!({"matchLabels": {"app": "web"}})).unwrap(),
            "app=web"
        );
        assert_eq!(of(json!({"app": "old"})).unwrap(), "app=old");
        let some = json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "x", "operator": "DoesNotExist"}]});
        assert_eq!(of(some).unwrap(), "tier in (a,b),!x");
        assert_eq!(of(json!({})), None);
        assert_eq!(of(Value::Null), None);
    }
}
