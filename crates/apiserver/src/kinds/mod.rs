//! The kinds served, as rows of data for one generic path.

mod events;
mod fields;
mod rows;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub(crate) use fields::field_value;
pub(crate) use rows::{KINDS, SUBRESOURCE_VERBS};

/// One kind of object.
#[expect(
    clippy::struct_field_names,
    reason = "the kind's name is its kind, in the words of the API"
)]
#[derive(Debug)]
pub(crate) struct Kind {
    /// API group, empty for the core group.
    pub(crate) group: &'static str,
    /// API version inside the group.
    pub(crate) version: &'static str,
    /// Plural resource name, as in paths.
    pub(crate) plural: &'static str,
    /// Singular resource name.
    pub(crate) singular: &'static str,
    /// Kind name.
    pub(crate) kind: &'static str,
    /// Short names for kubectl.
    pub(crate) short: &'static [&'static str],
    /// Categories for kubectl.
    pub(crate) categories: &'static [&'static str],
    /// Objects live in namespaces.
    pub(crate) namespaced: bool,
    /// Has a `/status` subresource, and `status` is separate from the rest.
    pub(crate) status: bool,
    /// Has a `/scale` subresource.
    pub(crate) scale: bool,
    /// `metadata.generation` counts changes of the spec.
    pub(crate) generation: bool,
    /// Part of this system acts on it; otherwise writes answer with a warning.
    pub(crate) acts: bool,
    /// Key prefix in the store; two kinds that are one storage share it.
    pub(crate) storage: &'static str,
    /// Further subresources: name, kind, verbs.
    pub(crate) subresources: &'static [(&'static str, &'static str, &'static [&'static str])],
    /// Field selectors beyond `metadata.name` and `metadata.namespace`: label and JSON pointer.
    pub(crate) fields: &'static [(&'static str, &'static str)],
    /// Reads the object as its type and writes it again: unknown fields are lost, wrong types are errors.
    pub(crate) typed: fn(Value) -> Result<Value, serde_json::Error>,
}

/// The typed round trip of one type of `k8s-openapi`.
pub(super) fn round_trip<T: Serialize + DeserializeOwned>(
    value: Value,
) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(value)?)
}

impl Kind {
    /// `v1` or `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods` or `deployments.apps`, as error messages name resources.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// The key prefix of all objects, or of those in one namespace.
    pub(crate) fn prefix(&self, namespace: Option<&str>) -> String {
        match namespace {
            Some(namespace) => format!("{}/{namespace}/", self.storage),
            None => format!("{}/", self.storage),
        }
    }

    /// The key of one object; cluster-scoped objects have an empty namespace.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> String {
        let namespace = if self.namespaced { namespace } else { "" };
        format!("{}/{namespace}/{name}", self.storage)
    }

    /// The stored object as this kind shows it.
    pub(crate) fn present(&self, stored: &Value) -> Value {
        if self.group == "events.k8s.io" {
            events::from_core(stored)
        } else {
            stored.clone()
        }
    }

    /// What this kind's object becomes in the store.
    pub(crate) fn storable(&self, object: Value) -> Value {
        if self.group == "events.k8s.io" {
            events::to_core(object)
        } else {
            object
        }
    }

    /// Whether presenting changes the object at all.
    pub(crate) fn presents(&self) -> bool {
        self.group == "events.k8s.io"
    }

    /// The typed round trip of the stored form.
    pub(crate) fn typed_storage(&self) -> fn(Value) -> Result<Value, serde_json::Error> {
        if self.presents() {
            round_trip::<k8s_openapi::api::core::v1::Event>
        } else {
            self.typed
        }
    }

    /// The verbs that discovery lists.
    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        if self.plural == "namespaces" {
            &[
                "create", "delete", "get", "list", "patch", "update", "watch",
            ]
        } else {
            &[
                "create",
                "delete",
                "deletecollection",
                "get",
                "list",
                "patch",
                "update",
                "watch",
            ]
        }
    }

    /// The kind served under a group, version and plural.
    pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        KINDS
            .iter()
            .find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
    }

    /// The kind with a plural in a group, whatever its version.
    pub(crate) fn named(group: &str, plural: &str) -> &'static Self {
        KINDS
            .iter()
            .find(|kind| kind.group == group && kind.plural == plural)
            .unwrap_or(&KINDS[0])
    }
}

/// The groups and versions served, core first, each once.
pub(crate) fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for kind in KINDS {
        if !found.contains(&(kind.group, kind.version)) {
            found.push((kind.group, kind.version));
        }
    }
    for extra in [
        ("authentication.k8s.io", "v1"),
        ("authorization.k8s.io", "v1"),
    ] {
        found.push(extra);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_unique_and_typed() {
        let mut seen = std::collections::HashSet::new();
        for kind in KINDS {
            assert!(
                seen.insert((kind.group, kind.version, kind.plural)),
                "{} twice",
                kind.qualified()
            );
            let made =
                (kind.typed)(serde_json::json!({"metadata": {"name": "x"}, "bogus": 1})).unwrap();
            assert_eq!(made["kind"], kind.kind, "{}", kind.qualified());
            assert_eq!(
                made["apiVersion"],
                kind.api_version(),
                "{}",
                kind.qualified()
            );
            assert!(made.get("bogus").is_none());
        }
    }
}
