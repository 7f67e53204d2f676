//! What a container may and may not, and what it shares with others.

use std::time::{Duration, Instant};

use towline_cri::v1;

use crate::fixture::{Node, PATIENCE, Registry, spec};
use crate::pods::{container, logs, pod};

fn security(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap()
}

fn namespaces(config: &mut v1::PodSandboxConfig) -> &mut v1::NamespaceOption {
    let linux = config.linux.as_mut().unwrap();
    let security = linux.security_context.as_mut().unwrap();
    security.namespace_options.as_mut().unwrap()
}

async fn started(name: &str) -> Option<(Registry, Node, String)> {
    if !towline_sys::testing::need_root() {
        return None;
    }
    let registry = Registry::start().await;
    let mut node = Node::start(name).await;
    let image = registry.image("v1");
    node.pull(&image).await.unwrap();
    Some((registry, node, image))
}

/// The value of a line of `/proc/1/status`.
fn line<'a>(status: &'a str, name: &str) -> &'a str {
    let found = status.lines().find_map(|l| l.strip_prefix(name));
    found.unwrap_or_else(|| panic!("{name}: {status}")).trim()
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_privileges_and_users() {
    let Some((_registry, mut node, image)) = started("s").await else {
        return;
    };
    let config = pod(&node, "s");
    let sandbox = node.run_pod(&config).await;
    let mut plain = container("plain", &image, &[]);
    security(&mut plain).run_as_user = Some(v1::Int64Value { value: 0 });
    let plain = node.run(&sandbox, plain).await;
    let (_, status) = node.exec(&plain, &["/bin/cat", "/proc/1/status"]).await;
    assert_eq!(line(&status, "CapBnd:"), "00000000a80425fb");
    assert_eq!(line(&status, "CapInh:"), "0000000000000000");
    assert_eq!(line(&status, "NoNewPrivs:"), "0");
    // What the host must not let through.
    let (code, _) = node
        .exec(&plain, &["/bin/write", "/proc/sys/kernel/domainname", "x"])
        .await;
    assert_ne!(code, 0);
    let (_, hidden) = node.exec(&plain, &["/bin/cat", "/proc/timer_list"]).await;
    assert_eq!(hidden, "");
    let (code, _) = node
        .exec(&plain, &["/bin/write", "/sys/kernel/profiling", "1"])
        .await;
    assert_ne!(code, 0);

    let mut strict = container("strict", &image, &[]);
    let context = security(&mut strict);
    context.run_as_user = Some(v1::Int64Value { value: 1000 });
    context.run_as_group = Some(v1::Int64Value { value: 77 });
    context.supplemental_groups = vec![88];
    context.supplemental_groups_policy = v1::SupplementalGroupsPolicy::Strict as i32;
    context.no_new_privs = true;
    context.readonly_rootfs = true;
    context.capabilities = Some(v1::Capability {
        drop_capabilities: vec!["ALL".to_owned()],
        add_capabilities: vec!["NET_BIND_SERVICE".to_owned()],
        ..Default::default()
    });
    let strict = node.run(&sandbox, strict).await;
    let (_, status) = node.exec(&strict, &["/bin/cat", "/proc/1/status"]).await;
    assert_eq!(line(&status, "CapBnd:"), "0000000000000400");
    assert_eq!(line(&status, "CapEff:"), "0000000000000000");
    assert_eq!(line(&status, "NoNewPrivs:"), "1");
    assert_eq!(line(&status, "Groups:"), "77 88");
    let (code, _) = node.exec(&strict, &["/bin/touch", "/tmp/x"]).await;
    assert_ne!(code, 0, "the root is writable");
    let user = node.status(&strict).await.user.unwrap().linux.unwrap();
    assert_eq!((user.uid, user.gid), (1000, 77));
    assert_eq!(user.supplemental_groups, [77, 88]);

    let mut privileged = container("privileged", &image, &[]);
    security(&mut privileged).privileged = true;
    security(&mut privileged).run_as_user = Some(v1::Int64Value { value: 0 });
    let privileged = node.run(&sandbox, privileged).await;
    let (_, status) = node
        .exec(&privileged, &["/bin/cat", "/proc/1/status"])
        .await;
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(line(&status, "CapBnd:"), line(&own, "CapBnd:"));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_are_shared_as_the_pod_says() {
    let Some((_registry, mut node, image)) = started("h").await else {
        return;
    };
    let own = |kind: &str| {
        let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        link.to_str().unwrap().to_owned()
    };
    let mut config = pod(&node, "shared");
    namespaces(&mut config).pid = v1::NamespaceMode::Pod as i32;
    let shared = node.run_pod(&config).await;
    let shared_pid = |name: &str| {
        let mut config = container(name, &image, &[]);
        let options = security(&mut config).namespace_options.as_mut().unwrap();
        options.pid = v1::NamespaceMode::Pod as i32;
        config
    };
    let one = node.run(&shared, shared_pid("one")).await;
    let two = node.run(&shared, shared_pid("two")).await;
    let mut seen = Vec::new();
    for id in [&one, &two] {
        for kind in ["pid", "net", "ipc", "uts", "mnt"] {
            let path = format!("/proc/self/ns/{kind}");
            // `ls` of a link fails where `/proc` hides it, so the namespace is compared by what it holds.
            let (code, _) = node.exec(id, &["/bin/exists", &path]).await;
            assert_eq!(code, 0, "{path}");
        }
        let (_, processes) = node.exec(id, &["/bin/ls", "/proc"]).await;
        let numbers = processes
            .split_whitespace()
            .filter(|w| w.bytes().all(|b| b.is_ascii_digit()))
            .count();
        seen.push(numbers);
    }
    // The pod's first process, both containers, and the `ls` itself.
    assert!(seen.iter().all(|n| *n >= 4), "{seen:?}");
    let (code, _) = node.exec(&one, &["/bin/touch", "/dev/shm/from-one"]).await;
    assert_eq!(code, 0);
    let (code, _) = node.exec(&two, &["/bin/exists", "/dev/shm/from-one"]).await;
    assert_eq!(code, 0);

    let mut config = pod(&node, "host");
    let options = namespaces(&mut config);
    options.network = v1::NamespaceMode::Node as i32;
    options.pid = v1::NamespaceMode::Node as i32;
    options.ipc = v1::NamespaceMode::Node as i32;
    config.hostname = String::new();
    let host = node.run_pod(&config).await;
    assert_eq!(node.address(&host).await, "");
    let mut config = container("host", &image, &[]);
    security(&mut config).namespace_options = Some(v1::NamespaceOption {
        network: v1::NamespaceMode::Node as i32,
        pid: v1::NamespaceMode::Node as i32,
        ipc: v1::NamespaceMode::Node as i32,
        ..Default::default()
    });
    let id = node.run(&host, config).await;
    let (_, links) = node.exec(&id, &["/bin/cat", "/proc/net/dev"]).await;
    assert!(links.contains(&node.bridge), "{links}");
    let (_, name) = node.exec(&id, &["/bin/hostname"]).await;
    let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(name, host_name);
    let pid = std::process::id().to_string();
    let path = format!("/proc/{pid}");
    assert_eq!(node.exec(&id, &["/bin/exists", &path]).await.0, 0);
    assert!(own("net").starts_with("net:"));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_images_limits_and_logs() {
    let Some((_registry, mut node, image)) = started("m").await else {
        return;
    };
    let config = pod(&node, "m");
    let sandbox = node.run_pod(&config).await;
    let host = node.directory.path().join("volume");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("given"), "by the host\n").unwrap();
    let mount = |inside: &str, readonly| v1::Mount {
        container_path: inside.to_owned(),
        host_path: host.to_str().unwrap().to_owned(),
        readonly,
        ..Default::default()
    };
    let mut config = container("m", &image, &[]);
    security(&mut config).run_as_user = Some(v1::Int64Value { value: 0 });
    config.mounts = vec![mount("/data", false), mount("/locked", true)];
    config.mounts.push(v1::Mount {
        container_path: "/other".to_owned(),
        readonly: true,
        image: Some(spec(&image)),
        image_sub_path: "etc".to_owned(),
        ..Default::default()
    });
    let id = node.run(&sandbox, config.clone()).await;
    let (_, given) = node.exec(&id, &["/bin/cat", "/locked/given"]).await;
    assert_eq!(given, "by the host\n");
    assert_eq!(node.exec(&id, &["/bin/touch", "/data/made"]).await.0, 0);
    assert!(host.join("made").exists());
    assert_ne!(node.exec(&id, &["/bin/touch", "/locked/x"]).await.0, 0);
    let (_, passwd) = node.exec(&id, &["/bin/cat", "/other/passwd"]).await;
    assert!(passwd.contains("app:x:1000"), "{passwd}");
    assert_ne!(node.exec(&id, &["/bin/touch", "/other/x"]).await.0, 0);
    let mounts = node.status(&id).await.mounts;
    assert!(
        mounts[2]
            .image
            .as_ref()
            .unwrap()
            .image
            .starts_with("sha256:")
    );

    let update = v1::UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(v1::LinuxContainerResources {
            memory_limit_in_bytes: 96 << 20,
            ..Default::default()
        }),
        ..Default::default()
    };
    node.runtime
        .update_container_resources(update)
        .await
        .unwrap();
    let limits = node.status(&id).await.resources.unwrap().linux.unwrap();
    assert_eq!(limits.memory_limit_in_bytes, 96 << 20);

    let log = logs(&node, "m").join("m/0.log");
    let end = Instant::now() + PATIENCE;
    while !log.exists() {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    std::fs::rename(&log, log.with_extension("old")).unwrap();
    let reopen = v1::ReopenContainerLogRequest { container_id: id };
    node.runtime.reopen_container_log(reopen).await.unwrap();
    assert!(log.exists(), "the log was not opened anew");

    // A path that leaves the image is refused, and what was mounted for it goes.
    "../../..".clone_into(&mut config.mounts[2].image_sub_path);
    "n".clone_into(&mut config.metadata.as_mut().unwrap().name);
    let escaped = node.create(&sandbox, config).await;
    if let Ok(id) = escaped {
        node.start_container(&id).await.unwrap();
        let (code, _) = node.exec(&id, &["/bin/exists", "/other/bin/guest"]).await;
        assert_eq!(code, 0, "the climb ends at the image's root");
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn later_mounts_reach_a_container_that_asks_for_them() {
    use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
    let Some((_registry, mut node, image)) = started("l").await else {
        return;
    };
    let config = pod(&node, "l");
    let sandbox = node.run_pod(&config).await;
    let host = node.directory.path().join("volume");
    std::fs::create_dir(&host).unwrap();
    mount_bind(&host, &host).unwrap();
    mount_change(&host, MountPropagationFlags::SHARED).unwrap();
    let mount = |inside: &str, propagation: v1::MountPropagation| v1::Mount {
        container_path: inside.to_owned(),
        host_path: host.to_str().unwrap().to_owned(),
        propagation: propagation as i32,
        ..Default::default()
    };
    let mut ids = Vec::new();
    for (name, propagation) in [
        ("asks", v1::MountPropagation::PropagationHostToContainer),
        ("does-not", v1::MountPropagation::PropagationPrivate),
    ] {
        let mut config = container(name, &image, &[]);
        config.mounts = vec![mount("/data", propagation)];
        ids.push(node.run(&sandbox, config).await);
    }
    let inside = host.join("inside");
    std::fs::create_dir(&inside).unwrap();
    towline_sys::mount::tmpfs(&inside, 1 << 20).unwrap();
    std::fs::write(inside.join("late"), "").unwrap();
    let late = ["/bin/exists", "/data/inside/late"];
    assert_eq!(node.exec(&ids[0], &late).await.0, 0);
    assert_eq!(node.exec(&ids[1], &late).await.0, 1);
    towline_sys::mount::unmount_under(&host).unwrap();
    node.finish().await;
}
