//! What the cluster's API says, each thing asked once, however many pods share it.

mod around;
mod clock;
mod events;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt as _};
use towline_oci::Platform;

pub(crate) use around::{Around, Own};
pub(crate) use clock::NodeClock;
pub(crate) use events::{Said, Spoken};

use crate::Owner;
use crate::memo::Memo;

/// The most secrets of a namespace that are looked at.
const MAX_SECRETS: u32 = 200;
/// The most pods of a namespace that are looked at for what they say of another: a page.
const MAX_AROUND: u32 = 500;

/// An answer, or why there is none (`403 Forbidden`).
pub(crate) type Answer<T> = Result<T, String>;

/// Where pods of a cluster stand: what they share is read when the first of them asks.
pub(crate) struct World {
    client: Client,
    /// Whether many pods are looked at: then events are read by namespace.
    many: bool,
    secrets: Memo<(String, String), Answer<Option<Arc<Secret>>>>,
    pull_secrets: Memo<String, Answer<Arc<[Secret]>>>,
    nodes: Memo<String, Answer<NodeFact>>,
    owners: Memo<(String, String, String), Answer<Option<Owner>>>,
    accounts: Memo<(String, String), Answer<Arc<[String]>>>,
    events: Memo<String, Answer<Arc<Spoken>>>,
    around: Memo<String, Answer<Arc<Around>>>,
    clocks: Memo<String, Answer<NodeClock>>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("many", &self.many)
            .finish_non_exhaustive()
    }
}

/// What is known of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeFact {
    pub(crate) platform: Option<Platform>,
    pub(crate) boot_id: Option<String>,
    /// Whether its kubelet is alive, as the cluster sees it.
    pub(crate) ready: bool,
    /// Names of the images that it has, at most those that it lists.
    pub(crate) images: Vec<String>,
    /// `containerd://2.1.9`.
    pub(crate) runtime: Option<String>,
    /// Pressure and readiness that bear on pulls, in words.
    pub(crate) troubles: Vec<String>,
}

impl World {
    pub(crate) fn new(client: Client, many: bool) -> Self {
        Self {
            client,
            many,
            secrets: Memo::default(),
            pull_secrets: Memo::default(),
            nodes: Memo::default(),
            owners: Memo::default(),
            accounts: Memo::default(),
            events: Memo::default(),
            around: Memo::default(),
            clocks: Memo::default(),
        }
    }

    pub(crate) async fn secret(&self, namespace: &str, name: &str) -> Answer<Option<Arc<Secret>>> {
        let key = (namespace.to_owned(), name.to_owned());
        let ask = || async {
            let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
            let found = secrets.get_opt(name).await;
            found
                .map(|found| found.map(Arc::new))
                .map_err(|error| reason(&error))
        };
        self.secrets.get(key, ask).await
    }

    /// Pull secrets of a namespace, at most [`MAX_SECRETS`].
    pub(crate) async fn pull_secrets(&self, namespace: &str) -> Answer<Arc<[Secret]>> {
        let ask = || async {
            let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
            let of = |kind: &'static str| {
                let fields = format!("type=kubernetes.io/{kind}");
                let params = ListParams::default().fields(&fields).limit(MAX_SECRETS);
                let secrets = secrets.clone();
                async move { secrets.list(&params).await }
            };
            let (new, old) = futures::join!(of("dockerconfigjson"), of("dockercfg"));
            let mut found = new.map_err(|error| reason(&error))?.items;
            found.extend(old.map_err(|error| reason(&error))?.items);
            Ok(found.into())
        };
        self.pull_secrets.get(namespace.to_owned(), ask).await
    }

    pub(crate) async fn node(&self, name: &str) -> Answer<NodeFact> {
        let ask = || async {
            let nodes: Api<Node> = Api::all(self.client.clone());
            let node = nodes.get(name).await;
            node.map(|node| node_fact(&node))
                .map_err(|error| reason(&error))
        };
        self.nodes.get(name.to_owned(), ask).await
    }

    /// The secrets that a service account gives to pods made from now on.
    pub(crate) async fn account_secrets(
        &self,
        namespace: &str,
        name: &str,
    ) -> Answer<Arc<[String]>> {
        let ask = || async {
            let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
            let account = accounts.get(name).await.map_err(|error| reason(&error))?;
            let secrets = account.image_pull_secrets.unwrap_or_default();
            Ok(secrets
                .into_iter()
                .map(|reference| reference.name)
                .collect())
        };
        let key = (namespace.to_owned(), name.to_owned());
        self.accounts.get(key, ask).await
    }

    /// What made a pod, and what made that: where a change belongs. The second is why the outer owner stays unknown, if it does.
    pub(crate) async fn owner(
        &self,
        namespace: &str,
        pod: &Pod,
    ) -> (Option<Owner>, Option<Unknown>) {
        let Some(direct) = controller(pod.owner_references()) else {
            return (None, None);
        };
        let (group, kind) = match direct.kind.as_str() {
            "ReplicaSet" => ("apps", "ReplicaSet"),
            "Job" => ("batch", "Job"),
            _ => return (Some(direct), None),
        };
        let key = (
            namespace.to_owned(),
            direct.kind.clone(),
            direct.name.clone(),
        );
        let ask = || async {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), namespace, &resource);
            let object = api.get_metadata(&direct.name).await;
            object
                .map(|object| controller(object.owner_references()))
                .map_err(|error| reason(&error))
        };
        match self.owners.get(key, ask).await {
            Ok(outer) => (outer.or(Some(direct)), None),
            Err(why) => {
                let what = format!("{} {namespace}/{}", kind.to_lowercase(), direct.name);
                let owner = by_name(pod, &direct).unwrap_or(direct);
                (Some(owner), Some(Unknown { what, why }))
            }
        }
    }

    /// What time a node has. A lease that is behind tells it only of a node that is `ready`.
    pub(crate) async fn clock(&self, node: &str, ready: bool) -> Answer<NodeClock> {
        let ask = || clock::read(&self.client, node);
        let clock = self.clocks.get(node.to_owned(), ask).await;
        clock.and_then(|clock| clock.of_the_living(ready))
    }

    /// The pods of a namespace, at most [`MAX_AROUND`], as witnesses of what works there and where.
    pub(crate) async fn around(&self, namespace: &str) -> Answer<Arc<Around>> {
        let ask = || async {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let params = ListParams::default().limit(MAX_AROUND);
            let page = pods.list(&params).await.map_err(|error| reason(&error))?;
            let more = page.metadata.continue_.as_deref().unwrap_or_default();
            let mut around = Around::default();
            around.cut = !more.is_empty();
            page.items.iter().for_each(|pod| around.take(pod));
            Ok(Arc::new(around))
        };
        self.around.get(namespace.to_owned(), ask).await
    }

    /// What was said of a pod's pulls.
    pub(crate) async fn events(&self, namespace: &str, pod: &Pod) -> Answer<Vec<Said>> {
        let uid = pod.uid().unwrap_or_default();
        let name = pod.name_any();
        let all = if self.many {
            let ask = || events::read(&self.client, namespace, None);
            self.events.get(namespace.to_owned(), ask).await?
        } else {
            events::read(&self.client, namespace, Some((&name, &uid))).await?
        };
        Ok(all.of(&name, &uid).to_vec())
    }
}

/// Something that could not be read.
#[derive(Debug, Clone)]
pub(crate) struct Unknown {
    pub(crate) what: String,
    pub(crate) why: String,
}

fn node_fact(node: &Node) -> NodeFact {
    let status = node.status.as_ref();
    let info = status.and_then(|status| status.node_info.as_ref());
    let conditions = status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions
        .clone()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let bad = conditions.filter(|condition| match condition.type_.as_str() {
        "DiskPressure" | "NetworkUnavailable" => condition.status == "True",
        "Ready" => condition.status != "True",
        _ => false,
    });
    let images = status
        .iter()
        .flat_map(|status| status.images.iter().flatten());
    NodeFact {
        images: images
            .flat_map(|image| image.names.iter().flatten().cloned())
            .collect(),
        platform: info.map(|info| Platform::new(&info.operating_system, &info.architecture)),
        boot_id: info
            .map(|info| info.boot_id.clone())
            .filter(|id| !id.is_empty()),
        ready,
        runtime: info
            .map(|info| info.container_runtime_version.clone())
            .filter(|version| !version.is_empty()),
        troubles: bad
            .map(|condition| match condition.type_.as_str() {
                "Ready" => "the node is not ready".to_owned(),
                other => format!("the node reports {other}"),
            })
            .collect(),
    }
}

pub(crate) fn controller(owners: &[OwnerReference]) -> Option<Owner> {
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    Some(Owner {
        kind: owner.kind.clone(),
        name: owner.name.clone(),
    })
}

/// The deployment of a replica set that may not be read: it names its replica sets after itself and the hash that their pods bear.
pub(crate) fn by_name(pod: &Pod, direct: &Owner) -> Option<Owner> {
    let hash = pod.labels().get("pod-template-hash")?;
    let name = direct.name.strip_suffix(hash.as_str())?.strip_suffix('-')?;
    (direct.kind == "ReplicaSet" && !name.is_empty()).then(|| Owner {
        kind: "Deployment".to_owned(),
        name: name.to_owned(),
    })
}

/// A refusal in a few words.
pub(crate) fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}", status.code, status.reason),
        other => other.to_string(),
    }
}
