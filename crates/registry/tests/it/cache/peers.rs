//! Clients and an upstream that others wrote.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::process::{Child, Command};
use towline_keyring::Credential;
use towline_lab::faults::{Fault, Rule};
use towline_lab::image::Image;
use towline_registry::Upstream;
use towline_sys::testing::need_program;

use super::{Line, image};
use crate::client::Registry;
use crate::containerd::Containerd;
use crate::peers::run;

/// Starts docker-registry with a login, in a folder.
fn docker_registry(program: &Path, folder: &Path) -> (Child, SocketAddr) {
    let users = folder.join("users");
    let hash = bcrypt::hash("secret", 4).unwrap();
    std::fs::write(&users, format!("cache:{hash}\n")).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let config = folder.join("config.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\nauth: {{htpasswd: {{realm: r, path: {}}}}}\n",
        folder.join("data").display(),
        users.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(program);
    command.arg("serve").arg(&config).kill_on_drop(true);
    command.stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::null());
    (command.spawn().unwrap(), address)
}

async fn push(image: &Image, address: SocketAddr) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let login = Some(("cache", "secret"));
    while let Err(error) = image.push(address, "team/app", "v1", login).await {
        assert!(tokio::time::Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_and_crane_pull_through_it_from_docker_registry_with_a_login() {
    let (Some(skopeo), Some(crane), Some(server)) = (
        need_program("skopeo"),
        need_program("crane"),
        need_program("docker-registry"),
    ) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (mut running, address) = docker_registry(&server, folder.path());
    let image = image(12);
    push(&image, address).await;
    let mut upstream = Upstream::parse(&format!("up=http://{address}")).unwrap();
    upstream.credential = Credential::basic("cache", "secret");
    let cache = Registry::with(|options| {
        options.cache.upstreams = vec![upstream];
        options.cache.tag_ttl = Duration::ZERO;
    })
    .await;
    let name = format!("{}/up/team/app:v1", cache.address());
    let copy = async |to: &str| {
        let target = format!("dir:{}", folder.path().join(to).display());
        let source = format!("docker://{name}");
        let flags = ["copy", "-q", "--insecure-policy", "--src-tls-verify=false"];
        run(&skopeo, &[&flags[..], &[&source, &target]].concat()).await;
        let manifest = std::fs::read(folder.path().join(to).join("manifest.json")).unwrap();
        assert_eq!(manifest, image.manifest.bytes);
    };
    copy("first").await;
    let digest = run(&crane, &["digest", &name]).await;
    assert_eq!(digest.trim(), image.digest());
    // The upstream dies: what is held is pulled all the same, and the rest says why not.
    running.kill().await.unwrap();
    copy("stale").await;
    let tar = folder.path().join("app.tar");
    run(&crane, &["pull", &name, tar.to_str().unwrap()]).await;
    let other = format!("{}/up/team/app:v2", cache.address());
    let mut refused = Command::new(&crane);
    let refused = refused.args(["manifest", &other]).output().await.unwrap();
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && words.contains("cause=ProxyCacheFailed step=connect"),
        "{words}"
    );
}

/// containerd asks a mirror of `hosts.toml` with `?ns=`, and tells its user why the upstream failed.
#[tokio::test(flavor = "multi_thread")]
async fn containerd_pulls_through_it_by_hosts_toml_and_learns_the_upstreams_cause() {
    let Some(containerd) = Containerd::start().await else {
        return;
    };
    let line = Line::new(|_| {}).await;
    let image = image(13);
    line.push(&image, "v1").await;
    // An image's host that only the cache knows how to reach.
    let host = line.network.local_addr().to_string();
    let hosts = containerd.folder().join("hosts");
    std::fs::create_dir_all(hosts.join(&host)).unwrap();
    let text = format!(
        "server = \"http://{cache}\"\n[host.\"http://{cache}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        cache = line.cache.address()
    );
    std::fs::write(hosts.join(&host).join("hosts.toml"), text).unwrap();
    let hosts = hosts.display().to_string();
    let name = |tag: &str| format!("{host}/team/app:{tag}");
    let fetch = ["content", "fetch", "--hosts-dir", &hosts];
    containerd.run(&[&fetch[..], &[&name("v1")]].concat()).await;
    let listed = containerd.run(&["images", "ls"]).await;
    assert!(listed.contains(image.digest()), "{listed}");
    assert_eq!(
        line.cache.get("/v2/_catalog").await.json()["repositories"][0],
        "up/team/app"
    );
    let fault = Fault::Error {
        status: 503,
        code: "UNAVAILABLE".to_owned(),
        message: "back soon".to_owned(),
    };
    line.network.set_rules(vec![Rule::on("*", fault)]);
    let (ended_well, said) = containerd.ask(&[&fetch[..], &[&name("v2")]].concat()).await;
    assert!(!ended_well, "{said}");
    assert!(
        said.contains("RegistryError") && said.contains("cause=ProxyCacheFailed"),
        "{said}"
    );
    containerd.stop();
}
