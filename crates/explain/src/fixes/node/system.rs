//! What belongs to the machine rather than to a registry: names, proxies, authorities, limits, the kubelet.

use towline_cause::Cause;

use super::Change;
use super::files::{self, Site};
use super::runtime::Runtime;
use crate::NodeFile;

/// What is the same for every runtime.
pub(super) fn of(cause: Cause, site: &Site) -> Option<Change> {
    let file = |path: &str, lines: String| {
        vec![NodeFile {
            path: path.to_owned(),
            lines,
        }]
    };
    let sysctl = || vec!["sysctl --system".to_owned()];
    Some(match cause {
        Cause::DnsNameNotFound => {
            let host = site.host();
            Change {
                words: format!(
                    "Let the nodes ask the name server that knows {host}, NAMESERVER in the lines (with systemd-resolved)"
                ),
                files: file(
                    "/etc/systemd/resolved.conf.d/registry.conf",
                    format!("[Resolve]\nDNS=NAMESERVER\nDomains=~{host}\n"),
                ),
                commands: vec!["systemctl restart systemd-resolved".to_owned()],
            }
        }
        Cause::DnsFailed => Change {
            words: "Point the nodes at name servers that answer, NAMESERVER and OTHER in the lines (with systemd-resolved)".to_owned(),
            files: file(
                "/etc/systemd/resolved.conf.d/dns.conf",
                "[Resolve]\nDNS=NAMESERVER OTHER\nDomains=~.\n".to_owned(),
            ),
            commands: vec!["systemctl restart systemd-resolved".to_owned()],
        },
        Cause::Ipv6Unreachable => Change {
            words: "Do without IPv6 on nodes that have none that works".to_owned(),
            files: file(
                "/etc/sysctl.d/90-no-ipv6.conf",
                "net.ipv6.conf.all.disable_ipv6 = 1\nnet.ipv6.conf.default.disable_ipv6 = 1\n"
                    .to_owned(),
            ),
            commands: sysctl(),
        },
        Cause::PathMtu => Change {
            words: "Let TCP find by itself what passes, until the network lets \"packet too big\" through".to_owned(),
            files: file(
                "/etc/sysctl.d/90-mtu.conf",
                "net.ipv4.tcp_mtu_probing = 1\n".to_owned(),
            ),
            commands: sysctl(),
        },
        Cause::PullThrottled => Change {
            words: "Let the kubelet start more pulls in a second, and bound how many run".to_owned(),
            files: file(
                "/var/lib/kubelet/config.yaml",
                "registryPullQPS: 20\nregistryBurst: 40\nmaxParallelImagePulls: 4\nserializeImagePulls: false\n".to_owned(),
            ),
            commands: vec!["systemctl restart kubelet".to_owned()],
        },
        _ => return None,
    })
}

/// A drop-in for a runtime's service.
fn drop_in(runtime: Runtime, name: &str, lines: &str) -> NodeFile {
    NodeFile {
        path: format!(
            "/etc/systemd/system/{}.service.d/{name}.conf",
            runtime.unit()
        ),
        lines: format!("[Service]\n{lines}"),
    }
}

/// What has to be known of a service that has several names.
fn service(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::K3s => {
            "; k3s stands for the service of the node, which may be k3s-agent, rke2-server or rke2-agent"
        }
        _ => "",
    }
}

fn restart(runtime: Runtime) -> String {
    format!("systemctl restart {}", runtime.unit())
}

/// The authority of a box that shows certificates of its own, for the whole node.
pub(super) fn bundle(runtime: Runtime) -> Change {
    Change {
        words: format!(
            "trust the authority of the box on the way, whose certificate (PEM) is CA.crt in the command; or have the registries exempted from it{}",
            service(runtime)
        ),
        files: Vec::new(),
        commands: vec![
            "if [ -d /etc/pki/ca-trust/source/anchors ]; then install -m 0644 CA.crt /etc/pki/ca-trust/source/anchors/proxy-ca.crt && update-ca-trust; else install -m 0644 CA.crt /usr/local/share/ca-certificates/proxy-ca.crt && update-ca-certificates; fi".to_owned(),
            restart(runtime),
        ],
    }
}

/// The proxy of the runtime's process: it does not read what shells are told.
pub(super) fn proxy(runtime: Runtime, site: &Site, cause: Cause) -> Change {
    let login = if cause == Cause::ProxyAuthRequired {
        "USER:PASSWORD@"
    } else {
        ""
    };
    let without = "localhost,127.0.0.1,10.0.0.0/8,.svc,.cluster.local";
    let secret = match runtime {
        _ if login.is_empty() => "",
        Runtime::K3s => "; encode what is special in the login (`@` is `%40`)",
        _ => "; encode what is special in the login (`@` is `%40`, and systemd wants `%` doubled)",
    };
    let words = format!(
        "name the proxy, PROXY:PORT in the lines{secret}; where {} is reached without one, add it to NO_PROXY instead",
        site.asked
    );
    let value = |name: &str| match name {
        "NO_PROXY" => without.to_owned(),
        _ => format!("http://{login}PROXY:PORT"),
    };
    let names = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
    if runtime == Runtime::K3s {
        let lines = names.map(|name| format!("CONTAINERD_{name}={}\n", value(name)));
        return Change {
            words: format!(
                "{words} (k3s-agent reads /etc/systemd/system/k3s-agent.service.env, RKE2 /etc/default/rke2-server or rke2-agent){}",
                service(runtime)
            ),
            files: vec![NodeFile {
                path: "/etc/systemd/system/k3s.service.env".to_owned(),
                lines: lines.concat(),
            }],
            commands: vec![restart(runtime)],
        };
    }
    let lines = names.map(|name| format!("Environment=\"{name}={}\"\n", value(name)));
    let file = drop_in(runtime, "http-proxy", &lines.concat());
    let mut commands = vec!["systemctl daemon-reload".to_owned(), restart(runtime)];
    if !login.is_empty() {
        commands.insert(0, format!("chmod 600 {}", file.path));
    }
    Change {
        words: if runtime == Runtime::Towline {
            format!(
                "{words}; or start it with --registry-proxy {}=http://PROXY:PORT (or =direct)",
                site.asked
            )
        } else {
            words
        },
        files: vec![file],
        commands,
    }
}

/// More file descriptors for the runtime.
pub(super) fn descriptors(runtime: Runtime) -> Change {
    Change {
        words: format!(
            "raise the limit of open files of the runtime{}",
            service(runtime)
        ),
        files: vec![drop_in(runtime, "limits", "LimitNOFILE=1048576\n")],
        commands: vec!["systemctl daemon-reload".to_owned(), restart(runtime)],
    }
}

/// What a person fills in.
pub(super) const SANDBOX_IMAGE: &str = "REGISTRY/pause:3.10";

/// The image of the sandbox, at a place that the nodes reach. Our own runtime needs none.
pub(super) fn sandbox_image(runtime: Runtime) -> Option<Change> {
    let image = SANDBOX_IMAGE;
    let new = format!(
        "[plugins.\"io.containerd.cri.v1.images\".pinned_images]\n  sandbox = \"{image}\"\n"
    );
    let old = format!("[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"{image}\"\n");
    let (path, lines) = match runtime {
        Runtime::Containerd(major) => (
            "/etc/containerd/config.toml",
            files::config_toml(major, &new, &old),
        ),
        Runtime::K3s => (
            "/etc/rancher/k3s/config.yaml",
            format!("pause-image: {image}\n"),
        ),
        Runtime::Crio => (
            "/etc/crio/crio.conf.d/50-pause.conf",
            format!("[crio.image]\npause_image = \"{image}\"\n"),
        ),
        Runtime::Docker => (
            "/etc/systemd/system/cri-docker.service.d/pause.conf",
            format!(
                "[Service]\nExecStart=\nExecStart=/usr/bin/cri-dockerd --container-runtime-endpoint fd:// --pod-infra-container-image={image}\n"
            ),
        ),
        Runtime::Towline => return None,
    };
    let unit = match runtime {
        Runtime::Docker => "cri-docker",
        other => other.unit(),
    };
    let mut commands = vec![format!("systemctl restart {unit}")];
    if runtime == Runtime::Docker {
        commands.insert(0, "systemctl daemon-reload".to_owned());
    }
    let note = match runtime {
        Runtime::Containerd(_) => files::IN_SECTION,
        Runtime::K3s => "; RKE2 reads /etc/rancher/rke2/config.yaml",
        Runtime::Docker => "; keep the options that `systemctl cat cri-docker` shows",
        _ => "",
    };
    Some(Change {
        words: format!(
            "name a sandbox image that the nodes reach, {image} in the lines{note}{}",
            service(runtime)
        ),
        files: vec![NodeFile {
            path: path.to_owned(),
            lines,
        }],
        commands,
    })
}
