//! Secrets and config maps as a container or a volume asks for them: with Kubernetes' words where one is missing.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};

use crate::credentials;
use crate::objects::{Id, Objects};
use crate::view;

/// Where secrets and config maps come from: the API server, by watch.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) secrets: Arc<Objects<Secret>>,
    pub(crate) config_maps: Arc<Objects<ConfigMap>>,
}

impl Sources {
    /// A secret. An absent one is an error unless it is optional.
    pub(crate) async fn secret(
        &self,
        namespace: &str,
        name: &str,
        optional: bool,
    ) -> Result<Option<Arc<Secret>>, String> {
        let found = self
            .secrets
            .get(namespace, name)
            .await
            .map_err(|e| e.to_string())?;
        present(found, optional, "secret", name)
    }

    /// A config map. An absent one is an error unless it is optional.
    pub(crate) async fn config_map(
        &self,
        namespace: &str,
        name: &str,
        optional: bool,
    ) -> Result<Option<Arc<ConfigMap>>, String> {
        let found = self
            .config_maps
            .get(namespace, name)
            .await
            .map_err(|e| e.to_string())?;
        present(found, optional, "configmap", name)
    }

    /// Watches what the pod names from now on.
    pub(crate) fn register(&self, pod: &Pod) {
        let (secrets, maps) = named(pod);
        self.secrets.register(view::uid(pod), &secrets);
        self.config_maps.register(view::uid(pod), &maps);
    }

    /// Stops watching for a pod.
    pub(crate) fn unregister(&self, uid: &str) {
        self.secrets.register(uid, &HashSet::new());
        self.config_maps.register(uid, &HashSet::new());
    }
}

fn present<K>(
    found: Option<Arc<K>>,
    optional: bool,
    kind: &str,
    name: &str,
) -> Result<Option<Arc<K>>, String> {
    match found {
        None if !optional => Err(format!("{kind} \"{name}\" not found")),
        found => Ok(found),
    }
}

/// Secrets and config maps that a pod names anywhere.
pub(crate) fn named(pod: &Pod) -> (HashSet<Id>, HashSet<Id>) {
    let namespace = view::namespace(pod);
    let mut secrets: HashSet<String> = credentials::names(pod).into_iter().collect();
    let mut maps: HashSet<String> = HashSet::new();
    for (_, container) in view::containers(pod) {
        for from in container.env_from.iter().flatten() {
            secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
            maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
        }
        let sources = container.env.iter().flatten();
        for from in sources.filter_map(|variable| variable.value_from.as_ref()) {
            secrets.extend(from.secret_key_ref.iter().map(|r| r.name.clone()));
            maps.extend(from.config_map_key_ref.iter().map(|r| r.name.clone()));
        }
    }
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    for volume in volumes {
        secrets.extend(volume.secret.iter().filter_map(|s| s.secret_name.clone()));
        maps.extend(volume.config_map.iter().map(|c| c.name.clone()));
        let projections = volume
            .projected
            .iter()
            .flat_map(|p| p.sources.iter().flatten());
        for projection in projections {
            secrets.extend(projection.secret.iter().map(|s| s.name.clone()));
            maps.extend(projection.config_map.iter().map(|c| c.name.clone()));
        }
    }
    let ids = |names: HashSet<String>| {
        let named = names.into_iter().filter(|name| !name.is_empty());
        named.map(|name| (namespace.to_owned(), name)).collect()
    };
    (ids(secrets), ids(maps))
}
