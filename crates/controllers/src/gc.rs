//! The garbage collector: what only objects own that are gone goes too.
//!
//! A quick round looks at the kinds that workloads make; a full one, now and then, at every kind. An owner
//! that no list shows is asked for by name before anything is deleted for its sake.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions,
};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use towline_sys::task::CancellationToken;

use crate::workloads::is;

/// Time between two full rounds.
const FULL: Duration = Duration::from_secs(60);
/// Changes that come close together are looked at once.
const SETTLE: Duration = Duration::from_millis(50);
/// A round that left something to do is followed by another after this.
const AGAIN: Duration = Duration::from_millis(500);
/// Kinds of a quick round.
const QUICK: [&str; 6] = [
    "pods",
    "replicasets",
    "deployments",
    "configmaps",
    "secrets",
    "services",
];
/// Kinds that come and go too fast to be owned.
const NEVER: [&str; 2] = ["events", "leases"];
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What matters of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    /// Its uid.
    pub uid: String,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its finalizers.
    pub finalizers: Vec<String>,
}

/// What to do to an object, named by its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Delete it: all its owners are gone, or its owner waits for that.
    Delete(usize),
    /// Take this owner out of it: the owner goes and leaves it behind.
    Release(usize, String),
    /// Take this finalizer from it: nothing is left to wait for.
    Finish(usize, &'static str),
}

/// Decides for all objects. `gone` says whether an owner of an object that is not among them does not exist.
pub fn plan(objects: &[Object], gone: impl Fn(usize, &OwnerReference) -> bool) -> Vec<Action> {
    let places: BTreeMap<&str, usize> = objects
        .iter()
        .enumerate()
        .map(|(at, object)| (object.uid.as_str(), at))
        .collect();
    let mut actions = Vec::new();
    let waits = |object: &Object, finalizer: &str| {
        object.deleting && object.finalizers.iter().any(|held| held == finalizer)
    };
    for (at, object) in objects.iter().enumerate() {
        let (mut absent, mut foreground) = (0, false);
        for owner in &object.owners {
            match places.get(owner.uid.as_str()) {
                None if gone(at, owner) => absent += 1,
                None => {}
                Some(&place) if waits(&objects[place], ORPHAN) => {
                    actions.push(Action::Release(at, owner.uid.clone()));
                }
                Some(&place) => foreground |= waits(&objects[place], FOREGROUND),
            }
        }
        let unowned = !object.owners.is_empty() && absent == object.owners.len();
        if !object.deleting && (unowned || (foreground && object.owners.len() == 1 + absent)) {
            actions.push(Action::Delete(at));
        }
        let owned_by_it =
            |other: &&Object| other.owners.iter().any(|owner| owner.uid == object.uid);
        if waits(object, ORPHAN) && !objects.iter().any(|other| owned_by_it(&other)) {
            actions.push(Action::Finish(at, ORPHAN));
        }
        let blocks = |other: &Object| {
            other
                .owners
                .iter()
                .any(|owner| owner.uid == object.uid && owner.block_owner_deletion == Some(true))
        };
        if waits(object, FOREGROUND) && !objects.iter().any(blocks) {
            actions.push(Action::Finish(at, FOREGROUND));
        }
    }
    actions
}

/// An object of a round: where it is, and what it is.
struct Found {
    resource: ApiResource,
    scope: Scope,
    object: DynamicObject,
}

/// Runs until told to stop.
pub(crate) async fn run(client: Client, litter: Arc<Notify>, stop: CancellationToken) {
    let mut kinds: Vec<(ApiResource, Scope)> = Vec::new();
    let mut full = Instant::now();
    let mut again: Option<Instant> = None;
    loop {
        let due = again.unwrap_or(full).min(full);
        tokio::select! {
            () = stop.cancelled() => return,
            () = litter.notified() => tokio::time::sleep(SETTLE).await,
            () = tokio::time::sleep_until(due) => {}
        }
        let whole = Instant::now() >= full || kinds.is_empty();
        if whole {
            full = Instant::now() + FULL;
            match discover(&client).await {
                Ok(found) => kinds = found,
                Err(error) => tracing::warn!(%error, "cannot discover kinds"),
            }
        }
        again = match round(&client, &kinds, whole).await {
            Ok(0) => None,
            Ok(_) => Some(Instant::now() + AGAIN),
            Err(error) => {
                tracing::warn!(%error, "cannot collect garbage");
                Some(Instant::now() + AGAIN)
            }
        };
    }
}

async fn discover(client: &Client) -> Result<Vec<(ApiResource, Scope)>, kube::Error> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let resources = discovery
        .groups()
        .flat_map(kube::discovery::ApiGroup::recommended_resources);
    let usable = resources.filter(|(resource, capabilities)| {
        capabilities.supports_operation(verbs::LIST)
            && capabilities.supports_operation(verbs::DELETE)
            && !NEVER.contains(&resource.plural.as_str())
    });
    Ok(usable
        .map(|(resource, capabilities)| (resource, capabilities.scope))
        .collect())
}

/// One round; how much was done.
async fn round(
    client: &Client,
    kinds: &[(ApiResource, Scope)],
    whole: bool,
) -> Result<usize, kube::Error> {
    let mut found = Vec::new();
    for (resource, scope) in kinds {
        if !whole && !QUICK.contains(&resource.plural.as_str()) {
            continue;
        }
        let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
        for object in api.list(&ListParams::default()).await?.items {
            found.push(Found {
                resource: resource.clone(),
                scope: scope.clone(),
                object,
            });
        }
    }
    let objects: Vec<Object> = found.iter().map(|found| object(&found.object)).collect();
    let gone = confirm(client, kinds, &found, &objects).await?;
    let actions = plan(&objects, |at, owner| {
        gone.contains(&(at, owner.uid.clone()))
    });
    for action in &actions {
        match act(client, &found, action).await {
            Ok(()) => {}
            // It changed or went meanwhile: the next round sees.
            Err(error) if is(&error, 404) || is(&error, 409) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(actions.len())
}

fn object(object: &DynamicObject) -> Object {
    let metadata = &object.metadata;
    Object {
        uid: metadata.uid.clone().unwrap_or_default(),
        owners: metadata.owner_references.clone().unwrap_or_default(),
        deleting: metadata.deletion_timestamp.is_some(),
        finalizers: metadata.finalizers.clone().unwrap_or_default(),
    }
}

/// Asks by name for the owners that no list showed; those that do not exist, by the place of what they own.
async fn confirm(
    client: &Client,
    kinds: &[(ApiResource, Scope)],
    found: &[Found],
    objects: &[Object],
) -> Result<BTreeSet<(usize, String)>, kube::Error> {
    let known: BTreeSet<&str> = objects.iter().map(|object| object.uid.as_str()).collect();
    let mut asked: BTreeMap<String, bool> = BTreeMap::new();
    let mut gone = BTreeSet::new();
    for (at, object) in objects.iter().enumerate() {
        for owner in object
            .owners
            .iter()
            .filter(|owner| !known.contains(owner.uid.as_str()))
        {
            let known = asked.get(&owner.uid).copied();
            let absent = if let Some(known) = known {
                known
            } else {
                let namespace = found[at].object.metadata.namespace.as_deref();
                let absent = is_gone(client, kinds, owner, namespace).await?;
                asked.insert(owner.uid.clone(), absent);
                absent
            };
            if absent {
                gone.insert((at, owner.uid.clone()));
            }
        }
    }
    Ok(gone)
}

/// Whether an owner does not exist. Of a kind that the server does not know nothing is concluded.
async fn is_gone(
    client: &Client,
    kinds: &[(ApiResource, Scope)],
    owner: &OwnerReference,
    namespace: Option<&str>,
) -> Result<bool, kube::Error> {
    let group = owner
        .api_version
        .rsplit_once('/')
        .map_or("", |(group, _)| group);
    let kind = kinds
        .iter()
        .find(|(resource, _)| resource.kind == owner.kind && resource.group == group);
    let Some((resource, scope)) = kind else {
        return Ok(false);
    };
    let api: Api<DynamicObject> = match (scope, namespace) {
        (Scope::Namespaced, Some(namespace)) => {
            Api::namespaced_with(client.clone(), namespace, resource)
        }
        (Scope::Namespaced, None) => return Ok(false),
        (Scope::Cluster, _) => Api::all_with(client.clone(), resource),
    };
    let held = api.get_opt(&owner.name).await?;
    Ok(held.is_none_or(|held| held.metadata.uid.as_ref() != Some(&owner.uid)))
}

async fn act(client: &Client, found: &[Found], action: &Action) -> Result<(), kube::Error> {
    let (Action::Delete(at) | Action::Release(at, _) | Action::Finish(at, _)) = action;
    let Found {
        resource,
        scope,
        object,
    } = &found[*at];
    let metadata = &object.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    let api: Api<DynamicObject> = match (scope, metadata.namespace.as_deref()) {
        (Scope::Namespaced, Some(namespace)) => {
            Api::namespaced_with(client.clone(), namespace, resource)
        }
        _ => Api::all_with(client.clone(), resource),
    };
    let patch = match action {
        Action::Delete(_) => {
            let preconditions = Some(Preconditions {
                uid: metadata.uid.clone(),
                resource_version: None,
            });
            let parameters = DeleteParams {
                preconditions,
                ..DeleteParams::background()
            };
            tracing::info!(
                kind = resource.kind,
                name,
                "deleting what nobody owns any more"
            );
            return api.delete(name, &parameters).await.map(drop);
        }
        Action::Release(_, uid) => {
            let owners = metadata
                .owner_references
                .iter()
                .flatten()
                .filter(|owner| owner.uid != *uid);
            json!({"metadata": {"ownerReferences": owners.collect::<Vec<_>>(), "resourceVersion": metadata.resource_version}})
        }
        Action::Finish(_, finalizer) => {
            let finalizers = metadata
                .finalizers
                .iter()
                .flatten()
                .filter(|held| held != finalizer);
            json!({"metadata": {"finalizers": finalizers.collect::<Vec<_>>(), "resourceVersion": metadata.resource_version}})
        }
    };
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(uid: &str, owners: &[&str]) -> Object {
        let reference = |uid: &&str| OwnerReference {
            uid: (*uid).to_owned(),
            block_owner_deletion: Some(true),
            ..OwnerReference::default()
        };
        Object {
            uid: uid.to_owned(),
            owners: owners.iter().map(reference).collect(),
            ..Object::default()
        }
    }

    fn going(uid: &str, finalizer: &str) -> Object {
        Object {
            deleting: true,
            finalizers: vec![finalizer.to_owned()],
            ..owned(uid, &[])
        }
    }

    fn decide(objects: &[Object]) -> Vec<Action> {
        plan(objects, |_, owner| owner.uid.starts_with("gone"))
    }

    #[test]
    fn only_what_no_living_owner_holds_is_deleted() {
        let objects = [
            owned("set", &[]),
            owned("pod", &["set"]),
            owned("lost", &["gone"]),
            owned("half", &["gone", "set"]),
            owned("unknown", &["elsewhere"]),
            Object {
                deleting: true,
                ..owned("already", &["gone"])
            },
        ];
        assert_eq!(decide(&objects), [Action::Delete(2)]);
    }

    #[test]
    fn orphans_are_released_before_their_owner_goes() {
        let release = [going("set", ORPHAN), owned("pod", &["set"])];
        assert_eq!(decide(&release), [Action::Release(1, "set".to_owned())]);
        let finish = [going("set", ORPHAN), owned("pod", &[])];
        assert_eq!(decide(&finish), [Action::Finish(0, ORPHAN)]);
    }

    #[test]
    fn in_the_foreground_the_owner_goes_last() {
        let first = [going("set", FOREGROUND), owned("pod", &["set"])];
        assert_eq!(decide(&first), [Action::Delete(1)]);
        let waiting = [
            going("set", FOREGROUND),
            Object {
                deleting: true,
                ..owned("pod", &["set"])
            },
        ];
        assert_eq!(decide(&waiting), []);
        assert_eq!(
            decide(&[going("set", FOREGROUND)]),
            [Action::Finish(0, FOREGROUND)]
        );
    }
}
