//! The parts in the place of the industry's own, and the other way round.

use std::process::Command;

use serde_json::Value;
use towline_sys::testing::{need_program, need_root};

use crate::support::node::Node;
use crate::support::program::text;
use crate::support::registry::{LOGIN, OurRegistry, hello, push};

#[test]
fn crictl_drives_our_runtime() {
    if !need_root() || need_program("crictl").is_none() {
        return;
    }
    let node = Node::up();
    let image = format!("{}/lib/app:1.0", node.address("registry"));
    push(
        &hello("x"),
        node.address("registry"),
        "lib/app",
        "1.0",
        None,
    );
    let endpoint = format!("unix://{}", node.facts["cri"].as_str().unwrap());
    let crictl = |args: &[&str]| {
        let output = Command::new("crictl")
            .args([
                "--runtime-endpoint",
                &endpoint,
                "--image-endpoint",
                &endpoint,
            ])
            .args(args)
            .output()
            .unwrap();
        (output.status.success(), text(&output))
    };
    assert!(crictl(&["version"]).1.contains("towline"));
    let (ok, info) = crictl(&["info"]);
    assert!(ok && info.contains("RuntimeReady"), "{info}");
    let (ok, pulled) = crictl(&["pull", &image]);
    assert!(ok, "{pulled}");
    let (_, images) = crictl(&["images", "-o", "json"]);
    // Remarks about crictl's own configuration stand around the document.
    let (first, last) = (images.find('{').unwrap(), images.rfind('}').unwrap());
    let images: Value = serde_json::from_str(&images[first..=last]).unwrap();
    assert_eq!(images["images"][0]["repoTags"][0], image);
    let (ok, failed) = crictl(&["pull", &format!("{image}-wrong")]);
    assert!(!ok && failed.contains("cause=TagNotFound"), "{failed}");

    let folder = tempfile::tempdir().unwrap();
    let pod = folder.path().join("pod.json");
    let container = folder.path().join("container.json");
    let logs = folder.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    std::fs::write(&pod, format!(r#"{{"metadata":{{"name":"p","namespace":"default","uid":"u1","attempt":1}},"log_directory":"{}","linux":{{}}}}"#, logs.display())).unwrap();
    std::fs::write(&container, format!(r#"{{"metadata":{{"name":"c"}},"image":{{"image":"{image}"}},"log_path":"c.log","linux":{{}}}}"#)).unwrap();
    let (ok, id) = crictl(&["run", container.to_str().unwrap(), pod.to_str().unwrap()]);
    assert!(ok, "{id}");
    let is_id = |line: &&str| line.len() == 64 && line.chars().all(|c| c.is_ascii_hexdigit());
    let id = id
        .lines()
        .find(is_id)
        .unwrap_or_else(|| panic!("no id: {id}"))
        .to_owned();
    let (ok, said) = crictl(&["exec", "-s", &id, "/bin/echo", "from", "inside"]);
    assert!(ok && said.contains("from inside"), "{said}");
    assert!(crictl(&["ps"]).1.contains("Running"));
    let (_, pods) = crictl(&["pods", "-q"]);
    let pod = pods
        .lines()
        .find(is_id)
        .unwrap_or_else(|| panic!("no id: {pods}"));
    let (ok, removed) = crictl(&["rmp", "-f", pod]);
    assert!(ok, "{removed}");
}

#[test]
fn skopeo_and_crane_use_our_registry() {
    if !need_root() || need_program("skopeo").is_none() || need_program("crane").is_none() {
        return;
    }
    let node = Node::up();
    let registry = node.address("registry");
    push(&hello("x"), registry, "lib/app", "1.0", None);
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().unwrap();
        assert!(
            output.status.success(),
            "{program} {args:?}: {}",
            text(&output)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let source = format!("docker://{registry}/lib/app:1.0");
    let target = format!("docker://{registry}/copy/app:1.0");
    run(
        "skopeo",
        &[
            "copy",
            "--insecure-policy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            &source,
            &target,
        ],
    );
    let digests = [
        run(
            "crane",
            &["digest", "--insecure", &format!("{registry}/lib/app:1.0")],
        ),
        run(
            "crane",
            &["digest", "--insecure", &format!("{registry}/copy/app:1.0")],
        ),
        run(
            "skopeo",
            &[
                "inspect",
                "--tls-verify=false",
                "--format",
                "{{.Digest}}",
                &target,
            ],
        ),
    ];
    assert_eq!(digests[0], digests[1]);
    assert_eq!(digests[1], digests[2]);
}

#[test]
fn podman_uses_our_registry() {
    if !need_root() || need_program("podman").is_none() || need_program("htpasswd").is_none() {
        return;
    }
    let registry = OurRegistry::with_login();
    let pushed = hello("x");
    for repository in ["public/app", "team/app"] {
        push(&pushed, registry.address, repository, "1.0", Some(LOGIN));
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("auth.json"), "{}").unwrap();
    let podman = |args: &[&str]| {
        let output = Command::new("podman")
            .arg("--root")
            .arg(folder.path().join("root"))
            .arg("--runroot")
            .arg(folder.path().join("run"))
            .args(["--storage-driver", "vfs"])
            .args(args)
            .env("REGISTRY_AUTH_FILE", folder.path().join("auth.json"))
            .output()
            .unwrap();
        (output.status.success(), text(&output))
    };
    let login = format!("{}:{}", LOGIN.0, LOGIN.1);
    let copy = registry.image("team/copy:1.0");
    let private = registry.image("team/app:1.0");
    let public = registry.image("public/app:1.0");
    let (ok, said) = podman(&["pull", "--tls-verify=false", &public]);
    assert!(ok, "{said}");
    let (ok, said) = podman(&["pull", "--tls-verify=false", &private]);
    assert!(!ok && said.contains("unauthorized"), "{said}");
    let (ok, said) = podman(&["pull", "--tls-verify=false", "--creds", &login, &private]);
    assert!(ok, "{said}");
    let (ok, said) = podman(&[
        "push",
        "--tls-verify=false",
        "--creds",
        &login,
        &private,
        &copy,
    ]);
    assert!(ok, "{said}");
    let id = |image: &str| podman(&["image", "inspect", "--format", "{{.Id}}", image]).1;
    let first = id(&private);
    assert!(podman(&["rmi", "--all", "--force"]).0);
    let (ok, said) = podman(&["pull", "--tls-verify=false", "--creds", &login, &copy]);
    assert!(ok, "{said}");
    assert_eq!(id(&copy), first, "what podman pushed is what it pulled");
    let (ok, said) = podman(&[
        "pull",
        "--tls-verify=false",
        &registry.image("team/app:2.0"),
    ]);
    assert!(!ok, "{said}");
}
