//! What the API server fills in: pods, pod templates, `Deployment`s and `ReplicaSet`s.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentStrategy, ReplicaSet, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EmptyDirVolumeSource, EphemeralContainer, Pod, PodSecurityContext,
    PodSpec, PodStatus, PodTemplateSpec, Probe, Toleration, Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pull::default_policy;

const FILE_MODE: i32 = 0o644;
/// Lifetime of a projected service-account token, in seconds.
const TOKEN_SECONDS: i64 = 3600;
/// How long a pod tolerates a node that is not ready or not reachable, in seconds.
const TOLERATION_SECONDS: i64 = 300;
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// Fills in a pod as on creation: the spec, the two default tolerations, phase and quality-of-service class.
///
/// What belongs to other objects is not done here: the service account (its name, secrets, token volume), priority
/// classes, runtime classes and limit ranges.
pub fn pod(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_with(PodSpec::default);
    pod_spec(spec);
    tolerations(spec);
    let class = crate::qos::class(spec);
    let status = pod.status.get_or_insert_with(PodStatus::default);
    status.phase.get_or_insert_with(|| "Pending".to_owned());
    status.qos_class.get_or_insert_with(|| class.to_owned());
}

/// Fills in a pod's spec as it is done for pods and for templates alike.
pub fn pod_spec(spec: &mut PodSpec) {
    spec.dns_policy
        .get_or_insert_with(|| "ClusterFirst".to_owned());
    spec.restart_policy
        .get_or_insert_with(|| "Always".to_owned());
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.security_context
        .get_or_insert_with(PodSecurityContext::default);
    spec.scheduler_name
        .get_or_insert_with(|| "default-scheduler".to_owned());
    // The older field follows the newer one, and the other way round.
    match (&spec.service_account_name, &spec.service_account) {
        (Some(name), None) => spec.service_account = Some(name.clone()),
        (None, Some(name)) => spec.service_account_name = Some(name.clone()),
        _ => {}
    }
    let host_network = spec.host_network == Some(true);
    for from in spec
        .init_containers
        .iter_mut()
        .flatten()
        .chain(&mut spec.containers)
    {
        container(from, host_network);
    }
    for from in spec.ephemeral_containers.iter_mut().flatten() {
        ephemeral(from);
    }
    for from in spec.volumes.iter_mut().flatten() {
        volume(from);
    }
}

/// Fills in the pod's own field that templates lack: `enableServiceLinks`.
fn service_links(spec: &mut PodSpec) {
    spec.enable_service_links.get_or_insert(true);
}

/// Fills in the template of a `Deployment` or `ReplicaSet`.
pub fn pod_template(template: &mut PodTemplateSpec) {
    template.metadata.get_or_insert_with(ObjectMeta::default);
    pod_spec(template.spec.get_or_insert_with(PodSpec::default));
}

fn tolerations(spec: &mut PodSpec) {
    service_links(spec);
    let list = spec.tolerations.get_or_insert_with(Vec::new);
    for key in [NOT_READY, UNREACHABLE] {
        let covered = list.iter().any(|toleration| {
            let key_fits = toleration
                .key
                .as_deref()
                .is_none_or(|found| found.is_empty() || found == key);
            let effect_fits = toleration
                .effect
                .as_deref()
                .is_none_or(|found| found.is_empty() || found == "NoExecute");
            key_fits && effect_fits
        });
        if !covered {
            list.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(TOLERATION_SECONDS),
                value: None,
            });
        }
    }
}

fn container(container: &mut Container, host_network: bool) {
    let image = container.image.as_deref().unwrap_or_default();
    let policy = default_policy(image);
    container
        .image_pull_policy
        .get_or_insert_with(|| policy.as_str().to_owned());
    container
        .termination_message_path
        .get_or_insert_with(|| "/dev/termination-log".to_owned());
    container
        .termination_message_policy
        .get_or_insert_with(|| "File".to_owned());
    let resources = container.resources.get_or_insert_with(Default::default);
    default_requests(resources.limits.as_ref(), &mut resources.requests);
    for port in container.ports.iter_mut().flatten() {
        port_defaults(port, host_network);
    }
    for variable in container.env.iter_mut().flatten() {
        if let Some(field) = variable
            .value_from
            .as_mut()
            .and_then(|from| from.field_ref.as_mut())
        {
            field.api_version.get_or_insert_with(|| "v1".to_owned());
        }
    }
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    for probe in probes.into_iter().flatten() {
        probe_defaults(probe);
    }
    let lifecycle = container.lifecycle.as_mut();
    if let Some(lifecycle) = lifecycle {
        for hook in [&mut lifecycle.post_start, &mut lifecycle.pre_stop]
            .into_iter()
            .flatten()
        {
            if let Some(http) = hook.http_get.as_mut() {
                http.path.get_or_insert_with(|| "/".to_owned());
                http.scheme.get_or_insert_with(|| "HTTP".to_owned());
            }
        }
    }
}

fn ephemeral(container: &mut EphemeralContainer) {
    let policy = default_policy(container.image.as_deref().unwrap_or_default());
    container
        .image_pull_policy
        .get_or_insert_with(|| policy.as_str().to_owned());
    container
        .termination_message_path
        .get_or_insert_with(|| "/dev/termination-log".to_owned());
    container
        .termination_message_policy
        .get_or_insert_with(|| "File".to_owned());
    container.resources.get_or_insert_with(Default::default);
}

/// A limit without a request is also the request.
fn default_requests(
    limits: Option<&BTreeMap<String, Quantity>>,
    requests: &mut Option<BTreeMap<String, Quantity>>,
) {
    for (name, limit) in limits.into_iter().flatten() {
        requests
            .get_or_insert_with(BTreeMap::new)
            .entry(name.clone())
            .or_insert_with(|| limit.clone());
    }
}

fn port_defaults(port: &mut ContainerPort, host_network: bool) {
    port.protocol.get_or_insert_with(|| "TCP".to_owned());
    if host_network {
        port.host_port.get_or_insert(port.container_port);
    }
}

fn probe_defaults(probe: &mut Probe) {
    let or = |field: &mut Option<i32>, value| {
        if field.is_none_or(|found| found == 0) {
            *field = Some(value);
        }
    };
    or(&mut probe.timeout_seconds, 1);
    or(&mut probe.period_seconds, 10);
    or(&mut probe.success_threshold, 1);
    or(&mut probe.failure_threshold, 3);
    if let Some(http) = probe.http_get.as_mut() {
        http.path.get_or_insert_with(|| "/".to_owned());
        http.scheme.get_or_insert_with(|| "HTTP".to_owned());
    }
    if let Some(grpc) = probe.grpc.as_mut() {
        grpc.service.get_or_insert_with(String::new);
    }
}

fn volume(volume: &mut Volume) {
    if has_no_source(volume) {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    if let Some(secret) = volume.secret.as_mut() {
        secret.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(map) = volume.config_map.as_mut() {
        map.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(downward) = volume.downward_api.as_mut() {
        downward.default_mode.get_or_insert(FILE_MODE);
        for item in downward.items.iter_mut().flatten() {
            if let Some(field) = item.field_ref.as_mut() {
                field.api_version.get_or_insert_with(|| "v1".to_owned());
            }
        }
    }
    if let Some(projected) = volume.projected.as_mut() {
        projected.default_mode.get_or_insert(FILE_MODE);
        projected.sources.iter_mut().flatten().for_each(projection);
    }
    if let Some(path) = volume.host_path.as_mut() {
        path.type_.get_or_insert_with(String::new);
    }
    if let Some(image) = volume.image.as_mut() {
        let policy = default_policy(image.reference.as_deref().unwrap_or_default());
        image
            .pull_policy
            .get_or_insert_with(|| policy.as_str().to_owned());
    }
}

fn projection(source: &mut VolumeProjection) {
    if let Some(token) = source.service_account_token.as_mut() {
        token.expiration_seconds.get_or_insert(TOKEN_SECONDS);
    }
    for item in source
        .downward_api
        .iter_mut()
        .flat_map(|downward| downward.items.iter_mut().flatten())
    {
        if let Some(field) = item.field_ref.as_mut() {
            field.api_version.get_or_insert_with(|| "v1".to_owned());
        }
    }
}

/// True for a volume that names nothing but itself.
fn has_no_source(volume: &Volume) -> bool {
    *volume
        == Volume {
            name: volume.name.clone(),
            ..Volume::default()
        }
}

/// Fills in a Deployment as on creation.
pub fn deployment(deployment: &mut Deployment) {
    let Some(spec) = deployment.spec.as_mut() else {
        return;
    };
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(10);
    spec.progress_deadline_seconds.get_or_insert(600);
    let strategy = spec
        .strategy
        .get_or_insert_with(DeploymentStrategy::default);
    let type_ = strategy
        .type_
        .get_or_insert_with(|| "RollingUpdate".to_owned());
    if type_ == "RollingUpdate" {
        let rolling = strategy
            .rolling_update
            .get_or_insert_with(RollingUpdateDeployment::default);
        rolling
            .max_surge
            .get_or_insert_with(|| IntOrString::String("25%".to_owned()));
        rolling
            .max_unavailable
            .get_or_insert_with(|| IntOrString::String("25%".to_owned()));
    }
    pod_template(&mut spec.template);
}

/// Fills in a `ReplicaSet` as on creation.
pub fn replica_set(set: &mut ReplicaSet) {
    let Some(spec) = set.spec.as_mut() else {
        return;
    };
    spec.replicas.get_or_insert(1);
    if let Some(template) = spec.template.as_mut() {
        pod_template(template);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn defaulted(spec: &Value) -> Value {
        let mut pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        super::pod(&mut pod);
        serde_json::to_value(pod).unwrap()
    }

    #[test]
    fn a_small_pod_becomes_what_kubernetes_makes_of_it() {
        let pod = defaulted(&json!({"containers": [{"name": "a", "image": "nginx"}]}));
        assert_eq!(
            pod["spec"],
            json!({
                "containers": [{"name": "a", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
                "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
                "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
                "tolerations": [
                    {"key": NOT_READY, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                    {"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]
            })
        );
        assert_eq!(
            pod["status"],
            json!({"phase": "Pending", "qosClass": "BestEffort"})
        );
    }

    #[test]
    fn what_is_written_stays() {
        let spec = json!({
            "containers": [{"name": "a", "image": "nginx", "imagePullPolicy": "Never", "resources": {},
                "terminationMessagePath": "/x", "terminationMessagePolicy": "FallbackToLogsOnError"}],
            "dnsPolicy": "Default", "enableServiceLinks": false, "restartPolicy": "Never", "schedulerName": "mine",
            "securityContext": {"runAsUser": 1}, "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}]});
        assert_eq!(defaulted(&spec)["spec"], spec);
    }

    #[test]
    fn parts_of_containers_and_volumes() {
        let pod = defaulted(&json!({
            "hostNetwork": true, "serviceAccountName": "sa",
            "containers": [{"name": "a", "image": "nginx:1", "ports": [{"containerPort": 80}],
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "resources": {"limits": {"cpu": "1"}},
                "readinessProbe": {"httpGet": {"port": 80}}, "livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 3}}],
            "volumes": [{"name": "none"}, {"name": "s", "secret": {"secretName": "x"}},
                {"name": "c", "configMap": {"name": "x", "defaultMode": 256}}, {"name": "h", "hostPath": {"path": "/"}},
                {"name": "i", "image": {"reference": "nginx"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]
        }));
        let container = &pod["spec"]["containers"][0];
        assert_eq!(
            container["ports"],
            json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}])
        );
        assert_eq!(
            container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"],
            "v1"
        );
        assert_eq!(
            container["resources"],
            json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})
        );
        assert_eq!(
            container["readinessProbe"],
            json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
                "successThreshold": 1, "failureThreshold": 3})
        );
        assert_eq!(container["livenessProbe"]["periodSeconds"], 3);
        let volumes = &pod["spec"]["volumes"];
        assert_eq!(volumes[0]["emptyDir"], json!({}));
        assert_eq!(volumes[1]["secret"]["defaultMode"], 420);
        assert_eq!(volumes[2]["configMap"]["defaultMode"], 256);
        assert_eq!(volumes[3]["hostPath"]["type"], "");
        assert_eq!(volumes[4]["image"]["pullPolicy"], "Always");
        assert_eq!(volumes[5]["projected"]["defaultMode"], 420);
        assert_eq!(
            volumes[5]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"],
            3600
        );
        assert_eq!(pod["spec"]["serviceAccount"], "sa");
        assert_eq!(pod["status"]["qosClass"], "Burstable");
    }

    #[test]
    fn workloads() {
        let mut deployment: Deployment = serde_json::from_value(json!({"spec": {"selector": {},
            "template": {"spec": {"containers": [{"name": "a", "image": "nginx:1"}]}}}}))
        .unwrap();
        super::deployment(&mut deployment);
        let spec = serde_json::to_value(deployment.spec.unwrap()).unwrap();
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!(
            (
                &spec["replicas"],
                &spec["revisionHistoryLimit"],
                &spec["progressDeadlineSeconds"]
            ),
            (&json!(1), &json!(10), &json!(600))
        );
        let template = &spec["template"]["spec"];
        assert_eq!(template["containers"][0]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(template.get("enableServiceLinks"), None);
        assert_eq!(template.get("tolerations"), None);

        let mut set: ReplicaSet = serde_json::from_value(json!({"spec": {"selector": {},
            "template": {"spec": {"containers": [{"name": "a", "image": "nginx"}]}}}}))
        .unwrap();
        replica_set(&mut set);
        assert_eq!(set.spec.unwrap().replicas, Some(1));

        let mut recreate: Deployment = serde_json::from_value(
            json!({"spec": {"selector": {}, "strategy": {"type": "Recreate"}, "template": {}}}),
        )
        .unwrap();
        super::deployment(&mut recreate);
        assert_eq!(
            recreate.spec.unwrap().strategy.unwrap().rolling_update,
            None
        );
    }
}
