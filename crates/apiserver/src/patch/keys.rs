//! How the lists and maps of built-in types are merged. One table for strategic merge patch and for apply.

/// How a list merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    /// Replaced as a whole.
    Atomic,
    /// A set of plain values.
    Set,
    /// Objects that are told apart by these fields; a strategic merge patch uses the first alone.
    Map(&'static [&'static str]),
}

/// The nearest list or map above a field that changes what the field's name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place<'a> {
    /// Name of the field that holds the object.
    pub(super) parent: &'a str,
    /// Name of the field above that.
    pub(super) above: &'a str,
}

impl<'a> Place<'a> {
    pub(super) fn enter(self, field: &'a str) -> Self {
        Self {
            parent: field,
            above: self.parent,
        }
    }
}

/// How the list in `field` of an object at `place` merges.
pub(super) fn list(place: Place<'_>, field: &str) -> List {
    let container = matches!(
        place.parent,
        "containers" | "initContainers" | "ephemeralContainers"
    );
    match (place.parent, field) {
        (
            _,
            "containers"
            | "initContainers"
            | "ephemeralContainers"
            | "volumes"
            | "resourceClaims"
            | "schedulingGates",
        )
        // Those of a service account, which stand at its top, are replaced as a whole.
        | ("spec", "imagePullSecrets")
        | ("", "secrets") => List::Map(&["name"]),
        (_, "env") if container => List::Map(&["name"]),
        (_, "ports") if container => List::Map(&["containerPort", "protocol"]),
        (_, "volumeMounts") if container => List::Map(&["mountPath"]),
        (_, "volumeDevices") if container => List::Map(&["devicePath"]),
        ("spec", "ports") => List::Map(&["port", "protocol"]),
        ("spec", "topologySpreadConstraints") => List::Map(&["topologyKey", "whenUnsatisfiable"]),
        ("status", "conditions" | "addresses") => List::Map(&["type"]),
        ("spec", "hostAliases") | ("status", "podIPs" | "hostIPs") => List::Map(&["ip"]),
        ("metadata", "ownerReferences") => List::Map(&["uid"]),
        ("metadata", "finalizers") | ("spec", "finalizers" | "podCIDRs") => List::Set,
        _ => List::Atomic,
    }
}

/// Maps of which only one alternative may be set: an apply of one drops the others when `$retainKeys` says so. For
/// server-side apply, maps that are replaced as a whole.
pub(super) fn atomic_map(place: Place<'_>, field: &str) -> bool {
    matches!(
        field,
        "selector"
            | "nodeSelector"
            | "resourceFieldRef"
            | "secretKeyRef"
            | "configMapKeyRef"
            | "fieldRef"
    ) && place.parent == "spec"
        || matches!(field, "matchLabels") && place.parent == "selector" && place.above == "spec"
}
