//! Known holes of runtimes, tried on this one over its socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use towline_cri::v1;
use towline_lab::image::Layer;

use crate::fixture::{Node, Registry};
use crate::pods::{container, pod};

fn security(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap()
}

fn as_user(mut config: v1::ContainerConfig, user: i64) -> v1::ContainerConfig {
    security(&mut config).run_as_user = Some(v1::Int64Value { value: user });
    config
}

async fn started(name: &str, more: Option<Layer>) -> Option<(Registry, Node, String)> {
    if !towline_sys::testing::need_root() {
        return None;
    }
    let registry = Registry::start_with(more).await;
    let mut node = Node::start(name).await;
    let image = registry.image("v1");
    node.pull(&image).await.unwrap();
    Some((registry, node, image))
}

/// The spec that a container was made from.
fn spec_of(node: &Node, id: &str) -> Value {
    let state = node.directory.path().join("state/containers").join(id);
    let text = std::fs::read(state.join("bundle/config.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Everything in a folder, with the content of its files.
fn seen(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| (path.clone(), std::fs::read(&path).unwrap_or_default()))
        .collect()
}

/// An image's links in place of the files that a runtime puts into `/etc` or reads there.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2024_5154_cve_2024_9676_links_in_etc_lead_nowhere() {
    let outside = tempfile::tempdir().unwrap();
    let there = |name: &str| outside.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(there("resolv.conf"), "canary").unwrap();
    std::fs::write(there("passwd"), "intruder:x:4321:4321::/:/\n").unwrap();
    std::fs::write(there("group"), "intruders:x:4321:intruder\n").unwrap();
    let before = seen(outside.path());
    let up = "../".repeat(20);
    let links = Layer::new()
        .symlink("etc/resolv.conf", &there("resolv.conf"))
        .symlink("etc/hosts", &there("hosts"))
        .symlink("etc/hostname", &format!("{up}{}", there("hostname")))
        .symlink("etc/mtab", &there("mtab"))
        .symlink("etc/passwd", &there("passwd"))
        .symlink("etc/group", &format!("{up}{}", there("group")));
    let Some((_registry, mut node, image)) = started("links", Some(links)).await else {
        return;
    };
    let sandbox = node.run_pod(&pod(&node, "links")).await;
    // Whether it runs or is refused, nothing is made, changed or mounted outside.
    let sleeping = as_user(container("a", &image, &[]), 0);
    if let Ok(id) = node.create(&sandbox, sleeping).await {
        node.start_container(&id).await.ok();
    }
    assert_eq!(seen(outside.path()), before);
    let mounts = towline_sys::mount::mounts_under(outside.path()).unwrap();
    assert_eq!(mounts, Vec::<PathBuf>::new());
    // The host's file does not say who somebody is.
    let mut named = container("b", &image, &[]);
    security(&mut named).run_as_username = "intruder".to_owned();
    let refused = node.create(&sandbox, named).await.unwrap_err();
    assert!(refused.message().contains("intruder"), "{refused}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2022_4318_a_home_of_several_lines_writes_none() {
    let Some((_registry, mut node, image)) = started("home", None).await else {
        return;
    };
    let sandbox = node.run_pod(&pod(&node, "home")).await;
    // Nobody whom the image knows, so that a runtime may want to add him.
    let mut config = as_user(container("a", &image, &[]), 4321);
    config.envs = vec![v1::KeyValue {
        key: "HOME".to_owned(),
        value: "/x\nevil::0:0::/:/bin/sh".to_owned(),
    }];
    let id = node.run(&sandbox, config).await;
    let (code, passwd) = node.exec(&id, &["/bin/cat", "/etc/passwd"]).await;
    assert_eq!(code, 0, "{passwd}");
    assert_eq!(
        passwd,
        "root:x:0:0::/root:/\napp:x:1000:1001::/home/app:/\n"
    );
    node.finish().await;
}

/// An OCI runtime may obey annotations (as properties of systemd's units): those of a pod are for people.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2024_3154_annotations_of_a_pod_reach_no_oci_runtime() {
    let Some((_registry, mut node, image)) = started("notes", None).await else {
        return;
    };
    let notes = [
        ("org.systemd.property.DeviceAllow", "[('/dev/mem', 'rwm')]"),
        ("org.systemd.property.SuccessAction", "'poweroff-force'"),
        ("run.oci.hooks.stderr", "/etc/cron.d/evil"),
    ];
    let notes = notes.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut config = pod(&node, "notes");
    config.annotations = notes.clone().into();
    let sandbox = node.run_pod(&config).await;
    let mut config = container("a", &image, &[]);
    config.annotations = notes.into();
    let id = node.run(&sandbox, config).await;
    assert_eq!(node.status(&id).await.annotations.len(), 3, "they are kept");
    let spec = spec_of(&node, &id);
    assert!(
        spec["annotations"]
            .as_object()
            .is_none_or(serde_json::Map::is_empty)
    );
    assert!(!spec.to_string().contains("systemd") && !spec.to_string().contains("run.oci"));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2025_0750_a_log_stays_below_its_pods_directory() {
    let Some((_registry, mut node, image)) = started("log", None).await else {
        return;
    };
    let sandbox = node.run_pod(&pod(&node, "log")).await;
    let outside = tempfile::tempdir().unwrap();
    let absolute = outside.path().join("0.log").to_str().unwrap().to_owned();
    let climbing = format!("{}{absolute}", "../".repeat(20));
    for (at, path) in [absolute, climbing, "a/../../0.log".to_owned()]
        .iter()
        .enumerate()
    {
        let mut config = container(&format!("c{at}"), &image, &[]);
        config.log_path.clone_from(path);
        let refused = node.create(&sandbox, config).await.unwrap_err();
        assert!(
            refused.message().contains("without `..`"),
            "{path}: {refused}"
        );
    }
    // Nor does the directory of the pod itself climb.
    let mut config = pod(&node, "climbs");
    config.log_directory = format!("{}/../{}", config.log_directory, outside.path().display());
    let request = v1::RunPodSandboxRequest {
        config: Some(config),
        runtime_handler: String::new(),
    };
    if let Ok(answer) = node.runtime.run_pod_sandbox(request).await {
        let sandbox = answer.into_inner().pod_sandbox_id;
        let config = container("d", &image, &[]);
        let refused = node.create(&sandbox, config).await.unwrap_err();
        assert!(refused.message().contains("without `..`"), "{refused}");
    }
    assert_eq!(seen(outside.path()), BTreeMap::new());
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ghsa_7ww5_4wqc_m92c_what_tells_of_the_host_is_masked() {
    let Some((_registry, mut node, image)) = started("mask", None).await else {
        return;
    };
    let sandbox = node.run_pod(&pod(&node, "mask")).await;
    let config = as_user(container("a", &image, &[]), 0);
    let id = node.run(&sandbox, config).await;
    let spec = spec_of(&node, &id);
    let masked: Vec<&str> = spec["linux"]["maskedPaths"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path.as_str().unwrap())
        .collect();
    assert!(
        masked.contains(&"/sys/devices/virtual/powercap"),
        "{masked:?}"
    );
    // Of those that this machine has, nothing is seen.
    for path in masked {
        let Ok(meta) = std::fs::metadata(path) else {
            continue;
        };
        let tool = if meta.is_dir() { "/bin/ls" } else { "/bin/cat" };
        let (_, shown) = node.exec(&id, &[tool, path]).await;
        assert_eq!(shown, "", "{path}");
    }
    node.finish().await;
}
