//! Lines of a node's configuration: for causes whose remedy is there and not in the cluster. Made for the registry at hand, in the form of
//! the node's runtime; where that is not known, in the forms of the usual ones.

mod files;
mod runtime;
mod system;
#[cfg(test)]
mod tests;

use towline_cause::{Cause, Fixer, Step};

use super::Ground;
use crate::action::quoted;
use crate::decide::Verdict;
use crate::{Fix, NodeFile, Target};
use files::{CERTS_D, Site};
use runtime::Runtime;

/// What is to be changed for one runtime.
#[derive(Default)]
struct Change {
    /// What it does, and what the person has to know.
    words: String,
    files: Vec<NodeFile>,
    commands: Vec<String>,
}

/// The fixes that are made on nodes: none where the cause is not there, or the registry is not known.
pub(super) fn lines(ground: &Ground<'_>, verdict: &Verdict) -> Vec<Fix> {
    let (Some(cause), Some(image)) = (verdict.cause, ground.image) else {
        return Vec::new();
    };
    let failed = ground.proof.and_then(|proof| proof.failure.as_ref());
    let on_the_way = matches!(
        verdict.step,
        Some(Step::Dns | Step::Connect | Step::Tls | Step::Resolve)
    );
    let endpoint = failed
        .filter(|_| on_the_way)
        .and_then(|failed| failed.endpoint.as_deref());
    let site = Site::new(image, endpoint);
    if let Some(change) = system::of(cause, &site) {
        return vec![fix(change, check_of_name(cause, &site))];
    }
    let runtimes = Runtime::of(ground.runtime);
    let changes = runtimes.into_iter().filter_map(|runtime| {
        let change = change(cause, runtime, &site)?;
        let words = format!("On nodes with {runtime}: {}", change.words);
        Some(fix(
            Change { words, ..change },
            confirm(cause, runtime, ground.target),
        ))
    });
    changes.collect()
}

fn change(cause: Cause, runtime: Runtime, site: &Site) -> Option<Change> {
    match cause {
        Cause::TlsUnknownAuthority => Some(trust(runtime, site)),
        Cause::TlsIntercepted => Some(system::bundle(runtime)),
        Cause::TlsClientCertificateRequired => Some(client_certificate(runtime, site)),
        Cause::PlainHttpRegistry => Some(plain_http(runtime, site)),
        Cause::HttpsRegistryOverHttp => Some(https(runtime, site)),
        Cause::ProxyMisconfigured | Cause::ProxyAuthRequired => {
            Some(system::proxy(runtime, site, cause))
        }
        Cause::MirrorMisconfigured => mirror(runtime, site),
        Cause::RegistryBlocked => unblocked(runtime, site),
        Cause::TooManyOpenFiles => Some(system::descriptors(runtime)),
        Cause::SandboxImageUnavailable => system::sandbox_image(runtime),
        _ => None,
    }
}

fn fix(change: Change, confirm: String) -> Fix {
    Fix {
        description: change.words,
        commands: change.commands,
        who: vec![Fixer::ClusterAdmin],
        certain: false,
        actions: Vec::new(),
        files: change.files,
        confirm: Some(confirm),
    }
}

/// A pull on the node itself; our own node replays it when it is asked.
fn confirm(cause: Cause, runtime: Runtime, target: &Target) -> String {
    if cause == Cause::SandboxImageUnavailable {
        return format!("crictl pull {}", system::SANDBOX_IMAGE);
    }
    let image = quoted(&target.image);
    match (runtime, &target.node, &target.namespace) {
        (Runtime::Towline, Some(node), Some(namespace)) if target.kind == "Pod" => {
            format!(
                "towline why pod/{} -n {namespace} --from-node {node}",
                target.name
            )
        }
        (Runtime::Towline, Some(node), _) => format!("towline why {image} --from-node {node}"),
        (Runtime::Towline, None, _) => format!("towline pull {image}"),
        _ => format!("crictl pull {image}"),
    }
}

/// Where a name is in question, whether it resolves; else whether the registry answers.
fn check_of_name(cause: Cause, site: &Site) -> String {
    match cause {
        Cause::DnsFailed | Cause::DnsNameNotFound => format!("getent ahosts {}", site.host()),
        Cause::PullThrottled => "kubectl get --raw /api/v1/nodes/NODE/proxy/configz".to_owned(),
        _ => format!("curl -sSI https://{}/v2/", site.asked),
    }
}

/// Where containerd and our node find the tree of hosts, and what has to name it.
fn tree(runtime: Runtime) -> (&'static str, Vec<NodeFile>, &'static str) {
    match runtime {
        Runtime::Towline => (
            "/etc/towline/certs.d",
            Vec::new(),
            "start the node with --hosts-dir /etc/towline/certs.d; the files are read again for each pull",
        ),
        Runtime::Containerd(major) => (
            CERTS_D,
            vec![files::config_path(major)],
            "hosts.toml is read for each pull; only where config.toml did not name the tree containerd has to be restarted, and then the section that is there gets the key and loses its `mirrors` and `configs`, which containerd refuses beside it",
        ),
        _ => (CERTS_D, Vec::new(), ""),
    }
}

/// Where a runtime looks for certificates, a folder a host.
fn certificates(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Crio => "/etc/containers/certs.d",
        Runtime::Docker => "/etc/docker/certs.d",
        Runtime::K3s => "/etc/rancher/k3s/certs.d",
        Runtime::Containerd(_) | Runtime::Towline => tree(runtime).0,
    }
}

/// The files that name a host's certificates, with what k3s has for it and with the lines of `hosts.toml`, and what has to be done then. Where
/// the folder of [`certificates`] is enough there is none.
fn setting(
    runtime: Runtime,
    site: &Site,
    of_k3s: &[(&str, &str)],
    lines: &[String],
) -> (Vec<NodeFile>, &'static str) {
    match runtime {
        Runtime::Crio | Runtime::Docker => (Vec::new(), "no restart is needed"),
        Runtime::K3s => (vec![files::k3s(site, "https", of_k3s)], K3S_RESTART),
        Runtime::Containerd(_) | Runtime::Towline => {
            let (folder, more, words) = tree(runtime);
            let hosts = files::hosts_toml(site, folder, "https", lines);
            ([hosts].into_iter().chain(more).collect(), words)
        }
    }
}

fn trust(runtime: Runtime, site: &Site) -> Change {
    let host = &site.asked;
    let ca = format!("{}/{host}/ca.crt", certificates(runtime));
    let lines = [
        format!("ca = \"{ca}\""),
        "# skip_verify = true    # instead of ca, for a test alone: anybody on the way can then replace an image".to_owned(),
    ];
    let (files, more) = setting(runtime, site, &[("ca_file", &ca)], &lines);
    Change {
        words: format!(
            "trust the authority of {host}, whose certificate (PEM) is CA.crt in the command; {more}"
        ),
        files,
        commands: vec![format!("install -D -m 0644 CA.crt {ca}")],
    }
}

/// What makes the containerd of k3s read its file.
const K3S_RESTART: &str = "RKE2 reads /etc/rancher/rke2/registries.yaml; both read it when they start: systemctl restart k3s (k3s-agent, rke2-server, rke2-agent)";

fn client_certificate(runtime: Runtime, site: &Site) -> Change {
    let host = &site.asked;
    let folder = certificates(runtime);
    let (cert, key) = (
        format!("{folder}/{host}/client.cert"),
        format!("{folder}/{host}/client.key"),
    );
    let lines = [format!("client = [[\"{cert}\", \"{key}\"]]")];
    let of_k3s = [("cert_file", cert.as_str()), ("key_file", key.as_str())];
    let (files, more) = setting(runtime, site, &of_k3s, &lines);
    Change {
        words: format!(
            "give the runtime the client certificate for {host}, CLIENT.crt and CLIENT.key in the commands; {more}"
        ),
        files,
        commands: vec![
            format!("install -D -m 0644 CLIENT.crt {cert}"),
            format!("install -D -m 0600 CLIENT.key {key}"),
        ],
    }
}

fn plain_http(runtime: Runtime, site: &Site) -> Change {
    let host = &site.asked;
    let words = format!("say that {host} speaks plain HTTP (a certificate for it is better)");
    match runtime {
        Runtime::Containerd(_) | Runtime::Towline => {
            let (folder, more, note) = tree(runtime);
            let hosts = files::hosts_toml(site, folder, "http", &[]);
            Change {
                words: format!("{words}; {note}"),
                files: [hosts].into_iter().chain(more).collect(),
                commands: Vec::new(),
            }
        }
        Runtime::K3s => Change {
            words: format!("{words}; {K3S_RESTART}"),
            files: vec![files::k3s(site, "http", &[])],
            commands: Vec::new(),
        },
        Runtime::Crio => Change {
            words,
            files: vec![files::registries_conf_of_asked(site, "insecure = true")],
            commands: vec!["systemctl reload crio".to_owned()],
        },
        Runtime::Docker => Change {
            words: format!("{words}; merge the line into the file that is there"),
            files: vec![files::daemon_json(&format!(
                "\"insecure-registries\": [\"{host}\"]"
            ))],
            commands: vec!["systemctl reload docker".to_owned()],
        },
    }
}

fn https(runtime: Runtime, site: &Site) -> Change {
    let host = &site.asked;
    let words = format!("speak HTTPS to {host}");
    match runtime {
        Runtime::Containerd(_) | Runtime::Towline => {
            let (folder, _, _) = tree(runtime);
            Change {
                words: format!(
                    "{words}, in the place of the http:// that is there; it is read for each pull"
                ),
                files: vec![files::hosts_toml(site, folder, "https", &[])],
                commands: Vec::new(),
            }
        }
        Runtime::K3s => Change {
            words: format!("{words}, in the place of the http:// that is there; {K3S_RESTART}"),
            files: vec![files::k3s(site, "https", &[])],
            commands: Vec::new(),
        },
        Runtime::Crio => Change {
            words: format!("{words}, and take away any `insecure = true` for it"),
            files: vec![files::registries_conf_of_asked(site, "insecure = false")],
            commands: vec!["systemctl reload crio".to_owned()],
        },
        Runtime::Docker => Change {
            words: format!("{words}: take it out of insecure-registries"),
            files: Vec::new(),
            commands: vec![
                "grep -n insecure-registries /etc/docker/daemon.json".to_owned(),
                "systemctl reload docker".to_owned(),
            ],
        },
    }
}

fn mirror(runtime: Runtime, site: &Site) -> Option<Change> {
    let registry = &site.registry;
    let (scheme, host) = site.mirror();
    let mirror = format!("{scheme}://{host}");
    let words = format!(
        "name the mirror of {registry} with its scheme, port and path; {registry} itself stays the last to be asked"
    );
    Some(match runtime {
        Runtime::Containerd(_) | Runtime::Towline => {
            let (folder, more, note) = tree(runtime);
            let lines = ["# override_path = true    # where the address ends in the whole path of the API, such as /v2/hub".to_owned()];
            let hosts = files::hosts_toml_of(site, folder, &mirror, &lines);
            Change {
                words: format!("{words}; {note}"),
                files: [hosts].into_iter().chain(more).collect(),
                commands: Vec::new(),
            }
        }
        Runtime::K3s => Change {
            words: format!("{words}; {K3S_RESTART}"),
            files: vec![files::k3s_mirror(site, &mirror)],
            commands: Vec::new(),
        },
        Runtime::Crio => Change {
            words,
            files: vec![files::registries_conf(
                site,
                registry,
                &[
                    "",
                    "[[registry.mirror]]",
                    &format!("location = \"{host}\""),
                    &format!("insecure = {}", scheme == "http"),
                ],
            )],
            commands: vec!["systemctl reload crio".to_owned()],
        },
        Runtime::Docker if registry == "docker.io" => Change {
            words: format!("{words}; merge the line into the file that is there"),
            files: vec![files::daemon_json(&format!(
                "\"registry-mirrors\": [\"{mirror}\"]"
            ))],
            commands: vec!["systemctl reload docker".to_owned()],
        },
        // Docker mirrors nothing but Docker Hub.
        Runtime::Docker => return None,
    })
}

fn unblocked(runtime: Runtime, site: &Site) -> Option<Change> {
    let registry = &site.registry;
    let file = files::registries_conf(site, registry, &["blocked = false"]);
    let words = format!("allow {registry}, and take away the entry that blocks it");
    match runtime {
        Runtime::Crio => Some(Change {
            words,
            files: vec![file],
            commands: vec!["systemctl reload crio".to_owned()],
        }),
        Runtime::Towline => Some(Change {
            words: format!("{words} in the file that --registries-conf names"),
            files: vec![file],
            commands: Vec::new(),
        }),
        Runtime::Containerd(_) | Runtime::K3s | Runtime::Docker => None,
    }
}
