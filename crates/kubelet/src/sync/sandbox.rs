//! The CRI form of a pod's sandbox.

use std::collections::HashMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, PodSecurityContext};
use towline_cri::v1::{
    DnsConfig, Int64Value, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol, SecurityProfile,
    security_profile::ProfileType,
};

use crate::images::records::foreign_annotations;
use crate::view;

/// What the node adds to a sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Defaults<'a> {
    /// Where logs of pods lie.
    pub(crate) log_root: &'a Path,
    /// Servers of the cluster's DNS, none where there is none.
    pub(crate) cluster_dns: &'a [String],
    pub(crate) cluster_domain: &'a str,
    /// The host's resolver configuration.
    pub(crate) resolv_conf: &'a str,
    pub(crate) cgroup_root: &'a str,
    pub(crate) qos: &'a str,
}

/// The directory of a pod's logs.
pub(crate) fn log_directory(log_root: &Path, pod: &Pod) -> String {
    let name = format!(
        "{}_{}_{}",
        view::namespace(pod),
        view::name(pod),
        view::uid(pod)
    );
    log_root.join(name).display().to_string()
}

/// The name that the pod's processes see.
pub(crate) fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let given = spec.and_then(|s| s.hostname_override.clone().or_else(|| s.hostname.clone()));
    let name = given
        .filter(|n| !n.is_empty())
        .unwrap_or_else(|| view::name(pod).to_owned());
    // A host name has at most 63 characters and ends with none of `-.`.
    let cut: String = name.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// The domain behind the host name, for pods with a subdomain.
pub(crate) fn domain(pod: &Pod, cluster_domain: &str) -> String {
    let subdomain = pod
        .spec
        .as_ref()
        .and_then(|s| s.subdomain.as_deref())
        .unwrap_or_default();
    if subdomain.is_empty() {
        return String::new();
    }
    format!("{subdomain}.{}.svc.{cluster_domain}", view::namespace(pod))
}

/// The sandbox's configuration.
pub(crate) fn config(pod: &Pod, attempt: u32, defaults: &Defaults<'_>) -> PodSandboxConfig {
    let mut labels: HashMap<String, String> = pod
        .metadata
        .labels
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect();
    labels.extend(view::labels(pod));
    let mut annotations: HashMap<String, String> = foreign_annotations(pod).into_iter().collect();
    annotations.insert("kubernetes.io/config.source".to_owned(), "api".to_owned());
    let host = view::host_network(pod);
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: view::name(pod).to_owned(),
            uid: view::uid(pod).to_owned(),
            namespace: view::namespace(pod).to_owned(),
            attempt,
        }),
        // On the node's network the pod shares the node's UTS namespace: there is no name to set, and runc refuses one.
        hostname: if host { String::new() } else { hostname(pod) },
        log_directory: log_directory(defaults.log_root, pod),
        dns_config: Some(dns(pod, defaults)),
        port_mappings: if host { Vec::new() } else { ports(pod) },
        labels,
        annotations,
        linux: Some(linux(pod, defaults)),
    }
}

fn ports(pod: &Pod) -> Vec<PortMapping> {
    let containers = view::containers(pod);
    let ports = containers
        .iter()
        .flat_map(|(_, c)| c.ports.iter().flatten());
    ports
        .filter(|port| port.host_port.is_some_and(|p| p > 0))
        .map(|port| PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            }
            .into(),
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or_default(),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

/// The namespaces of the pod; a container adds its own process namespace.
pub(crate) fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = pod.spec.as_ref();
    let host = |flag: Option<bool>| {
        if flag == Some(true) {
            NamespaceMode::Node
        } else {
            NamespaceMode::Pod
        }
    };
    let pid = if spec.and_then(|s| s.host_pid) == Some(true) {
        NamespaceMode::Node
    } else if spec.and_then(|s| s.share_process_namespace) == Some(true) {
        NamespaceMode::Pod
    } else {
        NamespaceMode::Container
    };
    NamespaceOption {
        network: host(spec.and_then(|s| s.host_network)).into(),
        pid: pid.into(),
        ipc: host(spec.and_then(|s| s.host_ipc)).into(),
        ..NamespaceOption::default()
    }
}

/// Whether a container of the pod is privileged.
fn privileged(pod: &Pod) -> bool {
    view::containers(pod).iter().any(|(_, container)| {
        let context = container.security_context.as_ref();
        context.and_then(|c| c.privileged) == Some(true)
    })
}

/// Groups that every process of the pod is in.
pub(crate) fn groups(context: Option<&PodSecurityContext>) -> Vec<i64> {
    let own = context
        .and_then(|c| c.supplemental_groups.clone())
        .unwrap_or_default();
    own.into_iter()
        .chain(context.and_then(|c| c.fs_group))
        .collect()
}

/// A number as CRI wraps it.
pub(crate) fn number(value: i64) -> Int64Value {
    Int64Value { value }
}

/// The parent group of the pod's processes in the cgroup tree.
pub(crate) fn cgroup_parent(root: &str, qos: &str, uid: &str) -> String {
    let root = root.trim_end_matches('/');
    match qos {
        "Guaranteed" => format!("{root}/kubepods/pod{uid}"),
        other => format!("{root}/kubepods/{}/pod{uid}", other.to_lowercase()),
    }
}

fn linux(pod: &Pod, defaults: &Defaults<'_>) -> LinuxPodSandboxConfig {
    let context = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let sysctls = context.and_then(|c| c.sysctls.clone()).unwrap_or_default();
    LinuxPodSandboxConfig {
        cgroup_parent: cgroup_parent(defaults.cgroup_root, defaults.qos, view::uid(pod)),
        security_context: Some(LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces(pod)),
            run_as_user: context.and_then(|c| c.run_as_user).map(number),
            run_as_group: context.and_then(|c| c.run_as_group).map(number),
            supplemental_groups: groups(context),
            privileged: privileged(pod),
            seccomp: Some(SecurityProfile {
                profile_type: ProfileType::RuntimeDefault.into(),
                localhost_ref: String::new(),
            }),
            ..LinuxSandboxSecurityContext::default()
        }),
        sysctls: sysctls.into_iter().map(|s| (s.name, s.value)).collect(),
        ..LinuxPodSandboxConfig::default()
    }
}

fn dns(pod: &Pod, defaults: &Defaults<'_>) -> DnsConfig {
    let spec = pod.spec.as_ref();
    let policy = spec
        .and_then(|s| s.dns_policy.as_deref())
        .unwrap_or("ClusterFirst");
    let mut config = match policy {
        "None" => DnsConfig::default(),
        "ClusterFirst" if !view::host_network(pod) => cluster_dns(pod, defaults),
        "ClusterFirstWithHostNet" => cluster_dns(pod, defaults),
        _ => resolver(defaults.resolv_conf),
    };
    if let Some(own) = spec.and_then(|s| s.dns_config.as_ref()) {
        let add = |to: &mut Vec<String>, more: &Option<Vec<String>>| {
            for item in more.iter().flatten() {
                if !to.contains(item) {
                    to.push(item.clone());
                }
            }
        };
        add(&mut config.servers, &own.nameservers);
        add(&mut config.searches, &own.searches);
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            let same = |o: &String| o.split(':').next() == Some(name.as_str());
            config.options.retain(|o| !same(o));
            config.options.push(match &option.value {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.clone(),
            });
        }
    }
    config
}

fn cluster_dns(pod: &Pod, defaults: &Defaults<'_>) -> DnsConfig {
    let host = resolver(defaults.resolv_conf);
    if defaults.cluster_dns.is_empty() {
        return host;
    }
    let (namespace, domain) = (view::namespace(pod), defaults.cluster_domain);
    let mut searches = vec![
        format!("{namespace}.svc.{domain}"),
        format!("svc.{domain}"),
        domain.to_owned(),
    ];
    searches.extend(host.searches);
    DnsConfig {
        servers: defaults.cluster_dns.to_vec(),
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

/// Reads a resolver configuration, the last `search` line counts.
fn resolver(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let key = words.next();
        let values = words.map(str::to_owned);
        match key {
            Some("nameserver") => config.servers.extend(values.take(1)),
            Some("search") => config.searches = values.filter(|s| s != ".").collect(),
            Some("options") => config.options = values.collect(),
            _ => {}
        }
    }
    config.servers.truncate(3);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec,
        }))
        .unwrap()
    }

    const HOST: &str = "nameserver 10.0.0.1\nsearch corp.test\noptions edns0\n";

    fn defaults(cluster: &[String]) -> Defaults<'_> {
        Defaults {
            log_root: Path::new("/var/log/pods"),
            cluster_dns: cluster,
            cluster_domain: "cluster.local",
            resolv_conf: HOST,
            cgroup_root: "/",
            qos: "Burstable",
        }
    }

    #[test]
    fn names_and_places() {
        let config = config(
            &pod(&serde_json::json!({"containers": []})),
            2,
            &defaults(&[]),
        );
        assert_eq!(config.log_directory, "/var/log/pods/n_p_u");
        assert_eq!(config.hostname, "p");
        assert_eq!(
            config.linux.unwrap().cgroup_parent,
            "/kubepods/burstable/podu"
        );
        assert_eq!(config.labels["io.kubernetes.pod.uid"], "u");
        assert_eq!(config.metadata.unwrap().attempt, 2);
    }

    #[test]
    fn a_pod_on_the_nodes_network_sets_no_hostname() {
        let spec = serde_json::json!({"containers": [], "hostNetwork": true});
        assert_eq!(config(&pod(&spec), 0, &defaults(&[])).hostname, "");
    }

    #[test]
    fn dns_by_policy() {
        let cluster = ["10.96.0.10".to_owned()];
        let dns = |spec, cluster: &[String]| {
            config(&pod(&spec), 0, &defaults(cluster))
                .dns_config
                .unwrap()
        };
        let first = dns(serde_json::json!({"containers": []}), &cluster);
        assert_eq!(first.servers, ["10.96.0.10"]);
        assert_eq!(
            first.searches,
            [
                "n.svc.cluster.local",
                "svc.cluster.local",
                "cluster.local",
                "corp.test"
            ]
        );
        let none = dns(serde_json::json!({"containers": []}), &[]);
        assert_eq!(
            (none.servers, none.options),
            (vec!["10.0.0.1".into()], vec!["edns0".into()])
        );
        let own = dns(
            serde_json::json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {
                "nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]}}),
            &cluster,
        );
        assert_eq!(
            (own.servers, own.options),
            (vec!["1.1.1.1".into()], vec!["ndots:2".into()])
        );
    }
}
