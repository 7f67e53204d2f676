//! The lines, runtime by runtime.

use towline_cause::Confidence;
use towline_oci::Reference;

use super::super::fixes;
use super::*;
use crate::proof::{Proof, ProofFailure};

/// What is told for a cause on a node with this runtime; `endpoint` is who failed.
fn told(
    cause: Cause,
    image: &str,
    runtime: Option<&str>,
    failed: Option<(Step, &str)>,
) -> Vec<Fix> {
    let target = Target {
        kind: "Pod".into(),
        namespace: Some("shop".into()),
        name: "web-1".into(),
        container: Some("app".into()),
        node: Some("n1".into()),
        ..Target::image(image)
    };
    let image = Reference::parse(image).unwrap();
    let step = failed.map_or(Step::Tls, |(step, _)| step);
    let failure = ProofFailure {
        cause,
        step,
        detail: String::new(),
        alternatives: Vec::new(),
        endpoint: failed.map(|(_, endpoint)| endpoint.to_owned()),
    };
    let proof = Proof {
        failure: Some(failure),
        ..Proof::default()
    };
    let ground = Ground {
        target: &target,
        image: Some(&image),
        secrets: &[],
        spare_secret: None,
        elsewhere: None,
        service_account: "default",
        account_secrets: None,
        free_name: None,
        proof: Some(&proof),
        runtime,
    };
    let verdict = Verdict {
        cause: Some(cause),
        step: Some(step),
        confidence: Confidence::Proven,
        alternatives: Vec::new(),
    };
    fixes(&ground, &verdict)
}

const IMAGE: &str = "r.example.com:5000/team/app:v1";

fn file<'a>(fix: &'a Fix, path: &str) -> &'a str {
    let found = fix.files.iter().find(|file| file.path == path);
    &found.unwrap_or_else(|| panic!("no {path}: {fix:#?}")).lines
}

fn toml(text: &str) -> serde_json::Value {
    toml::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn containerd_is_told_by_a_tree_of_hosts() {
    let told = told(
        Cause::TlsUnknownAuthority,
        IMAGE,
        Some("containerd://2.1.9"),
        None,
    );
    let fix = &told[0];
    assert!(
        fix.description.starts_with(
            "On nodes with containerd 2.x: trust the authority of r.example.com:5000,"
        ),
        "{}",
        fix.description
    );
    let hosts = toml(file(
        fix,
        "/etc/containerd/certs.d/r.example.com:5000/hosts.toml",
    ));
    assert_eq!(hosts["server"], "https://r.example.com:5000");
    let host = &hosts["host"]["https://r.example.com:5000"];
    assert_eq!(
        host["ca"],
        "/etc/containerd/certs.d/r.example.com:5000/ca.crt"
    );
    assert!(host.get("skip_verify").is_none(), "a comment only: {host}");
    let config = toml(file(fix, "/etc/containerd/config.toml"));
    assert_eq!(
        config["plugins"]["io.containerd.cri.v1.images"]["registry"]["config_path"],
        "/etc/containerd/certs.d"
    );
    assert_eq!(
        fix.commands,
        ["install -D -m 0644 CA.crt /etc/containerd/certs.d/r.example.com:5000/ca.crt"]
    );
    assert_eq!(
        fix.confirm.as_deref(),
        Some("crictl pull r.example.com:5000/team/app:v1")
    );
    assert_eq!(fix.who, [Fixer::ClusterAdmin]);
    assert!(!fix.certain);
    // What the registry's people can do comes last.
    assert_eq!(
        told.last().unwrap().description,
        Cause::TlsUnknownAuthority.fix()
    );
    assert_eq!(told.len(), 2);
}

#[test]
fn the_form_is_that_of_the_version() {
    let config = |runtime| {
        let told = told(Cause::PlainHttpRegistry, IMAGE, runtime, None);
        file(&told[0], "/etc/containerd/config.toml").to_owned()
    };
    let (new, old) = ("io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri");
    for (runtime, has_new, has_old) in [
        (Some("containerd://2.1.9"), true, false),
        (Some("containerd://1.7.28"), false, true),
        (Some("containerd://v1.6.0"), false, true),
        (Some("containerd://"), true, true),
        (None, true, true),
    ] {
        let text = config(runtime);
        toml(&text);
        assert_eq!(
            (text.contains(new), text.contains(old)),
            (has_new, has_old),
            "{runtime:?}: {text}"
        );
    }
    let forms = told(Cause::PlainHttpRegistry, IMAGE, None, None);
    let names: Vec<&str> = forms
        .iter()
        .map(|fix| fix.description.split(':').next().unwrap())
        .collect();
    assert_eq!(
        names[..2],
        ["On nodes with containerd", "On nodes with CRI-O"]
    );
}

#[test]
fn docker_hub_is_asked_at_its_own_host() {
    let told = told(
        Cause::TlsIntercepted,
        "nginx:1.27",
        Some("containerd://2.0.0"),
        None,
    );
    assert!(told[0].files.is_empty());
    assert!(told[0].commands[1].ends_with("containerd"), "{told:#?}");
    let mirrored = self::told(
        Cause::MirrorMisconfigured,
        "nginx:1.27",
        Some("containerd://2.0.0"),
        None,
    );
    let hosts = toml(file(
        &mirrored[0],
        "/etc/containerd/certs.d/docker.io/hosts.toml",
    ));
    assert_eq!(hosts["server"], "https://registry-1.docker.io");
    assert!(hosts["host"].get("https://MIRROR").is_some(), "{hosts}");
}

#[test]
fn a_mirror_that_failed_is_named_and_the_registry_stays() {
    let failed = Some((Step::Tls, "https://mirror.example.com:443"));
    let told = told(
        Cause::TlsUnknownAuthority,
        "nginx:1.27",
        Some("containerd://1.7.1"),
        failed,
    );
    let hosts = toml(file(
        &told[0],
        "/etc/containerd/certs.d/docker.io/hosts.toml",
    ));
    assert_eq!(hosts["server"], "https://registry-1.docker.io");
    assert!(
        hosts["host"].get("https://mirror.example.com").is_some(),
        "{hosts}"
    );
    // A token service is no mirror: its authority is set for the registry's host.
    let failed = Some((Step::Authenticate, "https://auth.example.com"));
    let token = self::told(
        Cause::TlsUnknownAuthority,
        IMAGE,
        Some("containerd://1.7.1"),
        failed,
    );
    let hosts = toml(file(
        &token[0],
        "/etc/containerd/certs.d/r.example.com:5000/hosts.toml",
    ));
    assert!(
        hosts["host"].get("https://r.example.com:5000").is_some(),
        "{hosts}"
    );
}

#[test]
fn cri_o_has_folders_of_certificates_and_drop_ins() {
    let crio = Some("cri-o://1.31.2");
    let trust = told(Cause::TlsUnknownAuthority, IMAGE, crio, None);
    assert!(trust[0].files.is_empty());
    assert_eq!(
        trust[0].commands,
        ["install -D -m 0644 CA.crt /etc/containers/certs.d/r.example.com:5000/ca.crt"]
    );
    let plain = told(Cause::PlainHttpRegistry, IMAGE, crio, None);
    let path = "/etc/containers/registries.conf.d/50-r-example-com-5000.conf";
    let conf = toml(file(&plain[0], path));
    assert_eq!(conf["registry"][0]["location"], "r.example.com:5000");
    assert_eq!(conf["registry"][0]["insecure"], true);
    assert_eq!(plain[0].commands, ["systemctl reload crio"]);
    let client = told(Cause::TlsClientCertificateRequired, IMAGE, crio, None);
    assert!(
        client[0].commands[1].ends_with("/etc/containers/certs.d/r.example.com:5000/client.key")
    );
    let mirror = told(
        Cause::MirrorMisconfigured,
        IMAGE,
        crio,
        Some((Step::Connect, "http://m.example.com:8080")),
    );
    let conf = toml(file(&mirror[0], path));
    assert_eq!(
        conf["registry"][0]["mirror"][0]["location"],
        "m.example.com:8080"
    );
    let blocked = told(Cause::RegistryBlocked, IMAGE, crio, None);
    assert_eq!(
        toml(file(&blocked[0], path))["registry"][0]["blocked"],
        false
    );
}

#[test]
fn docker_has_its_file_and_folder() {
    let docker = Some("docker://27.3.1");
    let trust = told(Cause::TlsUnknownAuthority, IMAGE, docker, None);
    assert_eq!(
        trust[0].commands,
        ["install -D -m 0644 CA.crt /etc/docker/certs.d/r.example.com:5000/ca.crt"]
    );
    let plain = told(Cause::PlainHttpRegistry, IMAGE, docker, None);
    let daemon: serde_json::Value =
        serde_json::from_str(file(&plain[0], "/etc/docker/daemon.json")).unwrap();
    assert_eq!(daemon["insecure-registries"][0], "r.example.com:5000");
    let hub = told(Cause::MirrorMisconfigured, "nginx:1.27", docker, None);
    assert!(file(&hub[0], "/etc/docker/daemon.json").contains("https://MIRROR"));
    // Docker mirrors Docker Hub alone: there is nothing to write for others.
    let other = told(Cause::MirrorMisconfigured, IMAGE, docker, None);
    assert!(other.iter().all(|fix| fix.files.is_empty()), "{other:#?}");
}

#[test]
fn k3s_writes_the_configuration_of_its_containerd_itself() {
    let k3s = Some("containerd://2.0.5-k3s1");
    let trust = told(Cause::TlsUnknownAuthority, IMAGE, k3s, None);
    let text = file(&trust[0], "/etc/rancher/k3s/registries.yaml");
    let yaml: serde_json::Value = serde_saphyr::from_str(text).unwrap();
    assert_eq!(
        yaml["mirrors"]["r.example.com:5000"]["endpoint"][0],
        "https://r.example.com:5000"
    );
    assert_eq!(
        yaml["configs"]["r.example.com:5000"]["tls"]["ca_file"],
        "/etc/rancher/k3s/certs.d/r.example.com:5000/ca.crt"
    );
    let proxy = told(Cause::ProxyMisconfigured, IMAGE, k3s, None);
    assert!(
        file(&proxy[0], "/etc/systemd/system/k3s.service.env").contains("CONTAINERD_HTTPS_PROXY=")
    );
}

#[test]
fn our_own_node_is_told_by_its_options_and_asked_for_the_proof() {
    let own = Some("towline://0.3.0");
    let trust = told(Cause::TlsUnknownAuthority, IMAGE, own, None);
    assert!(
        trust[0]
            .description
            .contains("--hosts-dir /etc/towline/certs.d"),
        "{}",
        trust[0].description
    );
    toml(file(
        &trust[0],
        "/etc/towline/certs.d/r.example.com:5000/hosts.toml",
    ));
    assert_eq!(
        trust[0].confirm.as_deref(),
        Some("towline why pod/web-1 -n shop --from-node n1")
    );
    let proxy = told(Cause::ProxyMisconfigured, IMAGE, own, None);
    assert!(
        proxy[0]
            .description
            .contains("--registry-proxy r.example.com:5000="),
        "{}",
        proxy[0].description
    );
}

#[test]
fn a_proxy_is_a_drop_in_of_the_service() {
    for (runtime, unit) in [
        ("containerd://1.7.0", "containerd"),
        ("cri-o://1.30.0", "crio"),
        ("docker://27.0.0", "docker"),
    ] {
        let told = told(Cause::ProxyAuthRequired, IMAGE, Some(runtime), None);
        let path = format!("/etc/systemd/system/{unit}.service.d/http-proxy.conf");
        let lines = file(&told[0], &path);
        assert!(lines.starts_with("[Service]\n"), "{lines}");
        assert!(
            lines.contains("Environment=\"HTTPS_PROXY=http://USER:PASSWORD@PROXY:PORT\"\n"),
            "{lines}"
        );
        assert!(lines.contains("NO_PROXY=localhost,"), "{lines}");
        assert_eq!(
            told[0].commands,
            [
                format!("chmod 600 {path}"),
                "systemctl daemon-reload".to_owned(),
                format!("systemctl restart {unit}")
            ]
        );
    }
}

#[test]
fn names_and_the_way_are_the_machines_own() {
    let named = told(Cause::DnsNameNotFound, IMAGE, None, None);
    let resolved: Vec<&Fix> = named.iter().filter(|fix| !fix.files.is_empty()).collect();
    assert_eq!(resolved.len(), 1, "once, whatever the runtime");
    let lines = file(resolved[0], "/etc/systemd/resolved.conf.d/registry.conf");
    assert_eq!(lines, "[Resolve]\nDNS=NAMESERVER\nDomains=~r.example.com\n");
    assert_eq!(
        resolved[0].confirm.as_deref(),
        Some("getent ahosts r.example.com")
    );
    for cause in [
        Cause::DnsFailed,
        Cause::PathMtu,
        Cause::Ipv6Unreachable,
        Cause::PullThrottled,
    ] {
        assert_eq!(told(cause, IMAGE, None, None)[0].files.len(), 1, "{cause}");
    }
}

#[test]
fn nothing_is_written_where_the_change_is_not_on_nodes() {
    for cause in [
        Cause::TagNotFound,
        Cause::TlsCertificateExpired,
        Cause::RegistryError,
        Cause::NoCredentials,
    ] {
        for fix in told(cause, IMAGE, Some("containerd://2.1.9"), None) {
            assert!(fix.files.is_empty(), "{cause}: {fix:#?}");
        }
    }
    // Our own runtime has no sandbox image.
    let own = told(
        Cause::SandboxImageUnavailable,
        IMAGE,
        Some("towline://0.3.0"),
        None,
    );
    assert_eq!(own[0].description, Cause::SandboxImageUnavailable.fix());
}

#[test]
fn an_endpoint_that_is_none_reaches_no_file() {
    let failed = Some((Step::Tls, "https://evil\"]\nx = \"y/"));
    let told = told(
        Cause::TlsUnknownAuthority,
        IMAGE,
        Some("containerd://2.1.9"),
        failed,
    );
    let hosts = toml(file(
        &told[0],
        "/etc/containerd/certs.d/r.example.com:5000/hosts.toml",
    ));
    assert!(
        hosts["host"].get("https://r.example.com:5000").is_some(),
        "{hosts}"
    );
}

/// The strict readers of our client take what is written for containerd and for CRI-O, and go where it says.
#[test]
fn the_files_are_read_as_they_are_meant() {
    use towline_distribution::{Client, Options, Sources};

    let image = Reference::parse("nginx:1.27").unwrap();
    let failed = Some((Step::Connect, "https://m.example.com:8443"));
    for (runtime, whole) in [
        ("containerd://2.1.9", "certs.d"),
        ("cri-o://1.31.2", "containers"),
    ] {
        let told = told(
            Cause::MirrorMisconfigured,
            "nginx:1.27",
            Some(runtime),
            failed,
        );
        let root = tempfile::tempdir().unwrap();
        let mut sources = Sources::default();
        let written = told[0]
            .files
            .iter()
            .filter(|file| file.path.contains(whole));
        for file in written {
            let path = root.path().join(file.path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &file.lines).unwrap();
        }
        if whole == "certs.d" {
            sources.hosts_dirs = vec![root.path().join("etc/containerd/certs.d")];
        } else {
            let conf = root.path().join("etc/containers/registries.conf");
            std::fs::write(&conf, "").unwrap();
            sources.registries_conf = Some(conf);
        }
        let options = Options {
            endpoints: sources,
            ..Options::default()
        };
        let plan = Client::new(options).unwrap().plan(&image).unwrap();
        let asked = serde_json::to_string(&plan).unwrap();
        let mirror = asked.find("m.example.com:8443");
        let registry = asked.find("registry-1.docker.io");
        assert!(mirror.is_some() && registry.is_some(), "{runtime}: {asked}");
    }
}

#[test]
fn a_mirror_keeps_its_scheme_and_stands_below_its_registry() {
    let failed = Some((Step::Connect, "http://m.example.com:8080"));
    let lines = |cause, runtime, path| {
        let told = told(cause, "nginx:1.27", Some(runtime), failed);
        file(&told[0], path).to_owned()
    };
    let k3s = lines(
        Cause::MirrorMisconfigured,
        "containerd://2.1.4-k3s1",
        "/etc/rancher/k3s/registries.yaml",
    );
    assert!(k3s.contains("\"http://m.example.com:8080\""), "{k3s}");
    let crio = "/etc/containers/registries.conf.d/50-docker-io.conf";
    for cause in [Cause::MirrorMisconfigured, Cause::PlainHttpRegistry] {
        let lines = toml(&lines(cause, "cri-o://1.31.2", crio));
        let registry = &lines["registry"][0];
        assert_eq!(registry["location"].as_str(), Some("docker.io"));
        let mirror = &registry["mirror"][0];
        assert_eq!(mirror["location"].as_str(), Some("m.example.com:8080"));
        assert_eq!(mirror["insecure"].as_bool(), Some(true), "{cause}");
    }
}

#[test]
fn containerds_own_file_names_the_version_of_its_form() {
    for (runtime, version) in [("containerd://1.7.27", 2), ("containerd://2.1.9", 3)] {
        let told = told(Cause::SandboxImageUnavailable, IMAGE, Some(runtime), None);
        let lines = toml(file(&told[0], "/etc/containerd/config.toml"));
        assert_eq!(lines["version"].as_i64(), Some(version));
        assert_eq!(
            told[0].confirm.as_deref(),
            Some("crictl pull REGISTRY/pause:3.10")
        );
    }
}
