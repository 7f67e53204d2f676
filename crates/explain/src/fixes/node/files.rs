//! The files in which runtimes are told about registries.

use std::fmt::Write as _;

use towline_oci::Reference;

use crate::NodeFile;

/// Where containerd's documentation puts the tree of hosts.
pub(super) const CERTS_D: &str = "/etc/containerd/certs.d";
/// What a person fills in where no mirror is known.
const MIRROR: &str = "MIRROR";

/// The registry that is asked, and who answers for it.
#[derive(Debug)]
pub(super) struct Site {
    /// As images name it: `docker.io`, `registry.example.com:5000`.
    pub(super) registry: String,
    /// Host and port of its API.
    api: String,
    /// Host and port that failed: the API's own, or a mirror's.
    pub(super) asked: String,
    /// By which it was asked: `https` where nothing is known of it.
    scheme: &'static str,
}

impl Site {
    /// `endpoint` is the scheme, host and port that failed, where it stands for the registry.
    pub(super) fn new(image: &Reference, endpoint: Option<&str>) -> Self {
        let api = image.api_host().to_owned();
        let asked = endpoint.and_then(authority);
        let (scheme, asked) = asked.unwrap_or_else(|| ("https", api.clone()));
        Self {
            registry: image.registry().to_owned(),
            asked,
            api,
            scheme,
        }
    }

    /// The host that was asked, without its port.
    pub(super) fn host(&self) -> &str {
        let end = self.asked.rfind(':');
        let port = end.filter(|at| self.asked[at + 1..].bytes().all(|c| c.is_ascii_digit()));
        port.map_or(&self.asked, |at| &self.asked[..at])
    }

    /// Whether another one was asked in the registry's place.
    pub(super) fn is_mirrored(&self) -> bool {
        self.asked != self.api
    }

    /// The mirror that was asked, or a word for one, and its scheme.
    pub(super) fn mirror(&self) -> (&'static str, &str) {
        if self.is_mirrored() {
            (self.scheme, &self.asked)
        } else {
            ("https", MIRROR)
        }
    }
}

/// Scheme, and host and port of an endpoint as an image would name them; `None` where it holds anything else.
fn authority(endpoint: &str) -> Option<(&'static str, String)> {
    let (scheme, rest) = endpoint.split_once("://")?;
    let authority = rest.split('/').next()?;
    let (scheme, usual) = match scheme {
        "http" => ("http", ":80"),
        _ => ("https", ":443"),
    };
    let authority = authority.strip_suffix(usual).unwrap_or(authority);
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    let named = !authority.is_empty() && authority.chars().all(plain);
    named.then(|| (scheme, authority.to_owned()))
}

/// containerd's file for the registry, with the asked host by this scheme.
pub(super) fn hosts_toml(site: &Site, folder: &str, scheme: &str, lines: &[String]) -> NodeFile {
    hosts_toml_of(site, folder, &format!("{scheme}://{}", site.asked), lines)
}

/// The same, with any address in front of the registry.
pub(super) fn hosts_toml_of(
    site: &Site,
    folder: &str,
    address: &str,
    lines: &[String],
) -> NodeFile {
    let own = address
        .split_once("://")
        .is_some_and(|(_, host)| host == site.api);
    let server = if own {
        address.to_owned()
    } else {
        format!("https://{}", site.api)
    };
    let mut text = format!(
        "server = \"{server}\"\n\n[host.\"{address}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
    );
    for line in lines {
        writeln!(text, "  {line}").ok();
    }
    NodeFile {
        path: format!("{folder}/{}/hosts.toml", site.registry),
        lines: text,
    }
}

/// What a person has to know who adds to containerd's file: a section that stands there twice keeps containerd from starting.
pub(super) const IN_SECTION: &str = "; where the section is there already set the key in it, and leave the version that the file names";

/// Lines of containerd's file, which begins with the version of its form; both forms where containerd's own version is not known.
pub(super) fn config_toml(major: Option<u32>, new: &str, old: &str) -> String {
    match major {
        Some(0 | 1) => format!("version = 2\n{old}"),
        Some(_) => format!("version = 3\n{new}"),
        None => format!(
            "# containerd 2.x: below a first line \"version = 3\"\n{new}# containerd 1.x: below a first line \"version = 2\"\n{old}"
        ),
    }
}

/// The lines by which containerd knows the tree.
pub(super) fn config_path(major: Option<u32>) -> NodeFile {
    let section =
        |plugin: &str| format!("[plugins.\"{plugin}\".registry]\n  config_path = \"{CERTS_D}\"\n");
    let new = section("io.containerd.cri.v1.images");
    let old = section("io.containerd.grpc.v1.cri");
    NodeFile {
        path: "/etc/containerd/config.toml".to_owned(),
        lines: config_toml(major, &new, &old),
    }
}

/// A drop-in of `registries.conf` for one location.
pub(super) fn registries_conf(site: &Site, location: &str, lines: &[&str]) -> NodeFile {
    let name: String = site
        .registry
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let mut text = format!("[[registry]]\nlocation = \"{location}\"\n");
    for line in lines {
        writeln!(text, "{line}").ok();
    }
    NodeFile {
        path: format!("/etc/containers/registries.conf.d/50-{name}.conf"),
        lines: text,
    }
}

/// The same for whoever was asked, which may be a mirror: such a one is named below its registry.
pub(super) fn registries_conf_of_asked(site: &Site, line: &str) -> NodeFile {
    if !site.is_mirrored() {
        return registries_conf(site, &site.asked, &[line]);
    }
    let location = format!("location = \"{}\"", site.asked);
    let lines = ["", "[[registry.mirror]]", &location, line];
    registries_conf(site, &site.registry, &lines)
}

/// One setting of Docker's file.
pub(super) fn daemon_json(setting: &str) -> NodeFile {
    NodeFile {
        path: "/etc/docker/daemon.json".to_owned(),
        lines: format!("{{\n  {setting}\n}}\n"),
    }
}

/// k3s' file: the address of the registry, and keys of its TLS.
pub(super) fn k3s(site: &Site, scheme: &str, tls: &[(&str, &str)]) -> NodeFile {
    let asked = &site.asked;
    let mut text = format!(
        "mirrors:\n  \"{}\":\n    endpoint:\n      - \"{scheme}://{asked}\"\n",
        site.registry
    );
    if !tls.is_empty() {
        writeln!(text, "configs:\n  \"{asked}\":\n    tls:").ok();
        for (key, value) in tls {
            writeln!(text, "      {key}: \"{value}\"").ok();
        }
    }
    registries_yaml(text)
}

/// k3s' file with a mirror in front of the registry.
pub(super) fn k3s_mirror(site: &Site, mirror: &str) -> NodeFile {
    registries_yaml(format!(
        "mirrors:\n  \"{}\":\n    endpoint:\n      - \"{mirror}\"\n",
        site.registry
    ))
}

fn registries_yaml(lines: String) -> NodeFile {
    NodeFile {
        path: "/etc/rancher/k3s/registries.yaml".to_owned(),
        lines,
    }
}
