//! The table of kinds.

use k8s_openapi::api::{
    apps::v1 as apps, autoscaling::v2 as autoscaling, batch::v1 as batch,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    events::v1 as events, networking::v1 as networking, node::v1 as node, policy::v1 as policy,
    rbac::v1 as rbac, scheduling::v1 as scheduling, storage::v1 as storage,
};

use super::{Kind, round_trip};

const CREATE: &[&str] = &["create"];
const GET: &[&str] = &["get"];
const GET_PATCH_UPDATE: &[&str] = &["get", "patch", "update"];

const PLAIN: Kind = Kind {
    group: "",
    version: "v1",
    plural: "",
    singular: "",
    kind: "",
    short: &[],
    categories: &[],
    namespaced: true,
    status: false,
    scale: false,
    generation: false,
    acts: true,
    storage: "",
    subresources: &[],
    fields: &[],
    typed: Ok,
};

/// A kind of which objects are only kept.
const KEPT: Kind = Kind {
    acts: false,
    ..PLAIN
};

macro_rules! row {
    ($base:expr, $storage:literal, $plural:literal, $singular:literal, $type:ty, $kind:literal $(, $field:ident : $value:expr)* $(,)?) => {
        Kind {
            storage: $storage,
            plural: $plural,
            singular: $singular,
            kind: $kind,
            typed: round_trip::<$type>,
            $($field: $value,)*
            ..$base
        }
    };
}

const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject.kind", "/involvedObject/kind"),
    ("involvedObject.namespace", "/involvedObject/namespace"),
    ("involvedObject.name", "/involvedObject/name"),
    ("involvedObject.uid", "/involvedObject/uid"),
    ("involvedObject.apiVersion", "/involvedObject/apiVersion"),
    (
        "involvedObject.resourceVersion",
        "/involvedObject/resourceVersion",
    ),
    ("involvedObject.fieldPath", "/involvedObject/fieldPath"),
    ("regarding.kind", "/involvedObject/kind"),
    ("regarding.namespace", "/involvedObject/namespace"),
    ("regarding.name", "/involvedObject/name"),
    ("regarding.uid", "/involvedObject/uid"),
    ("regarding.apiVersion", "/involvedObject/apiVersion"),
    ("reason", "/reason"),
    ("reportingComponent", "/reportingComponent"),
    ("reportingController", "/reportingComponent"),
    ("source", "/source/component"),
    ("type", "/type"),
];

const POD_FIELDS: &[(&str, &str)] = &[
    ("spec.nodeName", "/spec/nodeName"),
    ("spec.host", "/spec/nodeName"),
    ("spec.restartPolicy", "/spec/restartPolicy"),
    ("spec.schedulerName", "/spec/schedulerName"),
    ("spec.serviceAccountName", "/spec/serviceAccountName"),
    ("spec.hostNetwork", "/spec/hostNetwork"),
    ("status.phase", "/status/phase"),
    ("status.podIP", "/status/podIP"),
    ("status.podIPs", "/status/podIP"),
    ("status.nominatedNodeName", "/status/nominatedNodeName"),
];

const POD_SUBRESOURCES: &[(&str, &str, &[&str])] = &[
    ("log", "Pod", GET),
    ("binding", "Binding", CREATE),
    ("eviction", "Eviction", CREATE),
];

/// Every kind that is stored.
pub(crate) static KINDS: &[Kind] = &[
    row!(PLAIN, "core/namespaces", "namespaces", "namespace", core::Namespace, "Namespace",
        short: &["ns"], namespaced: false, status: true, fields: &[("status.phase", "/status/phase")],
        subresources: &[("finalize", "Namespace", &["update"])]),
    row!(PLAIN, "core/nodes", "nodes", "node", core::Node, "Node",
        short: &["no"], namespaced: false, status: true, fields: &[("spec.unschedulable", "/spec/unschedulable")],
        subresources: &[("proxy", "NodeProxyOptions", &["create", "get"])]),
    row!(PLAIN, "core/pods", "pods", "pod", core::Pod, "Pod",
        short: &["po"], categories: &["all"], status: true, generation: true, fields: POD_FIELDS,
        subresources: POD_SUBRESOURCES),
    row!(PLAIN, "core/secrets", "secrets", "secret", core::Secret, "Secret", fields: &[("type", "/type")]),
    row!(PLAIN, "core/configmaps", "configmaps", "configmap", core::ConfigMap, "ConfigMap", short: &["cm"]),
    row!(PLAIN, "core/services", "services", "service", core::Service, "Service",
        short: &["svc"], categories: &["all"], status: true, acts: false,
        fields: &[("spec.clusterIP", "/spec/clusterIP"), ("spec.type", "/spec/type")]),
    row!(PLAIN, "core/serviceaccounts", "serviceaccounts", "serviceaccount", core::ServiceAccount, "ServiceAccount",
        short: &["sa"], subresources: &[("token", "TokenRequest", CREATE)]),
    row!(PLAIN, "core/events", "events", "event", core::Event, "Event", short: &["ev"], fields: EVENT_FIELDS),
    row!(KEPT, "core/replicationcontrollers", "replicationcontrollers", "replicationcontroller",
        core::ReplicationController, "ReplicationController", short: &["rc"], categories: &["all"], status: true,
        generation: true),
    row!(KEPT, "core/endpoints", "endpoints", "endpoints", core::Endpoints, "Endpoints", short: &["ep"]),
    row!(KEPT, "core/persistentvolumeclaims", "persistentvolumeclaims", "persistentvolumeclaim",
        core::PersistentVolumeClaim, "PersistentVolumeClaim", short: &["pvc"], status: true),
    row!(KEPT, "core/persistentvolumes", "persistentvolumes", "persistentvolume",
        core::PersistentVolume, "PersistentVolume", short: &["pv"], namespaced: false, status: true),
    row!(KEPT, "core/limitranges", "limitranges", "limitrange", core::LimitRange, "LimitRange", short: &["limits"]),
    row!(KEPT, "core/resourcequotas", "resourcequotas", "resourcequota",
        core::ResourceQuota, "ResourceQuota", short: &["quota"], status: true),
    row!(
        KEPT,
        "core/podtemplates",
        "podtemplates",
        "podtemplate",
        core::PodTemplate,
        "PodTemplate"
    ),
    row!(PLAIN, "apps/deployments", "deployments", "deployment", apps::Deployment, "Deployment",
        group: "apps", short: &["deploy"], categories: &["all"], status: true, scale: true, generation: true),
    row!(PLAIN, "apps/replicasets", "replicasets", "replicaset", apps::ReplicaSet, "ReplicaSet",
        group: "apps", short: &["rs"], categories: &["all"], status: true, scale: true, generation: true),
    row!(KEPT, "apps/statefulsets", "statefulsets", "statefulset", apps::StatefulSet, "StatefulSet",
        group: "apps", short: &["sts"], categories: &["all"], status: true, scale: true, generation: true),
    row!(KEPT, "apps/daemonsets", "daemonsets", "daemonset", apps::DaemonSet, "DaemonSet",
        group: "apps", short: &["ds"], categories: &["all"], status: true, generation: true),
    row!(KEPT, "apps/controllerrevisions", "controllerrevisions", "controllerrevision",
        apps::ControllerRevision, "ControllerRevision", group: "apps"),
    row!(KEPT, "batch/jobs", "jobs", "job", batch::Job, "Job",
        group: "batch", categories: &["all"], status: true, generation: true),
    row!(KEPT, "batch/cronjobs", "cronjobs", "cronjob", batch::CronJob, "CronJob",
        group: "batch", short: &["cj"], categories: &["all"], status: true, generation: true),
    row!(PLAIN, "core/events", "events", "event", events::Event, "Event",
        group: "events.k8s.io", short: &["ev"], fields: EVENT_FIELDS),
    row!(PLAIN, "coordination/leases", "leases", "lease", coordination::Lease, "Lease", group: "coordination.k8s.io"),
    row!(KEPT, "autoscaling/horizontalpodautoscalers", "horizontalpodautoscalers", "horizontalpodautoscaler",
        autoscaling::HorizontalPodAutoscaler, "HorizontalPodAutoscaler",
        group: "autoscaling", version: "v2", short: &["hpa"], categories: &["all"], status: true),
    row!(KEPT, "networking/ingresses", "ingresses", "ingress", networking::Ingress, "Ingress",
        group: "networking.k8s.io", short: &["ing"], status: true, generation: true),
    row!(KEPT, "networking/ingressclasses", "ingressclasses", "ingressclass",
        networking::IngressClass, "IngressClass", group: "networking.k8s.io", namespaced: false, generation: true),
    row!(KEPT, "networking/networkpolicies", "networkpolicies", "networkpolicy",
        networking::NetworkPolicy, "NetworkPolicy", group: "networking.k8s.io", short: &["netpol"], generation: true),
    row!(KEPT, "policy/poddisruptionbudgets", "poddisruptionbudgets", "poddisruptionbudget",
        policy::PodDisruptionBudget, "PodDisruptionBudget",
        group: "policy", short: &["pdb"], status: true, generation: true),
    row!(KEPT, "storage/storageclasses", "storageclasses", "storageclass", storage::StorageClass, "StorageClass",
        group: "storage.k8s.io", short: &["sc"], namespaced: false),
    row!(KEPT, "storage/csidrivers", "csidrivers", "csidriver", storage::CSIDriver, "CSIDriver",
        group: "storage.k8s.io", namespaced: false),
    row!(KEPT, "storage/csinodes", "csinodes", "csinode", storage::CSINode, "CSINode",
        group: "storage.k8s.io", namespaced: false),
    row!(KEPT, "storage/volumeattachments", "volumeattachments", "volumeattachment",
        storage::VolumeAttachment, "VolumeAttachment", group: "storage.k8s.io", namespaced: false, status: true),
    row!(KEPT, "node/runtimeclasses", "runtimeclasses", "runtimeclass", node::RuntimeClass, "RuntimeClass",
        group: "node.k8s.io", namespaced: false),
    row!(KEPT, "scheduling/priorityclasses", "priorityclasses", "priorityclass",
        scheduling::PriorityClass, "PriorityClass",
        group: "scheduling.k8s.io", short: &["pc"], namespaced: false),
    row!(KEPT, "discovery/endpointslices", "endpointslices", "endpointslice",
        discovery::EndpointSlice, "EndpointSlice", group: "discovery.k8s.io"),
    row!(KEPT, "rbac/roles", "roles", "role", rbac::Role, "Role", group: "rbac.authorization.k8s.io"),
    row!(KEPT, "rbac/rolebindings", "rolebindings", "rolebinding", rbac::RoleBinding, "RoleBinding",
        group: "rbac.authorization.k8s.io"),
    row!(KEPT, "rbac/clusterroles", "clusterroles", "clusterrole", rbac::ClusterRole, "ClusterRole",
        group: "rbac.authorization.k8s.io", namespaced: false),
    row!(KEPT, "rbac/clusterrolebindings", "clusterrolebindings", "clusterrolebinding",
        rbac::ClusterRoleBinding, "ClusterRoleBinding",
        group: "rbac.authorization.k8s.io", namespaced: false),
];

/// Verbs of the `/status` and `/scale` subresources.
pub(crate) const SUBRESOURCE_VERBS: &[&str] = GET_PATCH_UPDATE;
