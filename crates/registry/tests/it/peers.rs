//! Clients that others wrote push and pull.

use std::path::Path;

use tokio::process::Command;
use towline_lab::image;
use towline_sys::testing::need_program;

use crate::client::{Registry, basic};
use crate::containerd::Containerd;
use crate::tokens;

pub(crate) async fn run(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{arguments:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_in_and_out() {
    let Some(skopeo) = need_program("skopeo") else {
        return;
    };
    let registry = Registry::open().await;
    let folder = tempfile::tempdir().unwrap();
    let image = image::guest().build();
    let layout = folder.path().join("in");
    image.write_oci_layout(&layout, "v1").unwrap();
    let remote = format!("docker://{}/team/guest", registry.address());
    let source = format!("oci:{}:v1", layout.display());
    let target = format!("{remote}:v1");
    run(
        &skopeo,
        &[
            "copy",
            "-q",
            "--insecure-policy",
            "--dest-tls-verify=false",
            &source,
            &target,
        ],
    )
    .await;
    let docker = format!("{remote}:docker");
    run(
        &skopeo,
        &[
            "copy",
            "-q",
            "--insecure-policy",
            "--dest-tls-verify=false",
            "--format=v2s2",
            &source,
            &docker,
        ],
    )
    .await;
    let back = format!("dir:{}", folder.path().join("out").display());
    run(
        &skopeo,
        &[
            "copy",
            "-q",
            "--insecure-policy",
            "--src-tls-verify=false",
            &target,
            &back,
        ],
    )
    .await;
    let manifest = std::fs::read(folder.path().join("out/manifest.json")).unwrap();
    assert_eq!(manifest, image.manifest.bytes);
    let listed = run(&skopeo, &["list-tags", "--tls-verify=false", &remote]).await;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["Tags"], serde_json::json!(["docker", "v1"]));
    run(&skopeo, &["delete", "--tls-verify=false", &docker]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crane_copies_in_and_out() {
    let Some(crane) = need_program("crane") else {
        return;
    };
    let registry = Registry::open().await;
    let folder = tempfile::tempdir().unwrap();
    let image = image::guest().build();
    image
        .push(registry.address(), "team/guest", "v1", None)
        .await
        .unwrap();
    let name = format!("{}/team/guest", registry.address());
    let digest = run(&crane, &["digest", &format!("{name}:v1")]).await;
    assert_eq!(digest.trim(), image.digest());
    let file = folder.path().join("guest.tar");
    run(
        &crane,
        &["pull", &format!("{name}:v1"), file.to_str().unwrap()],
    )
    .await;
    run(
        &crane,
        &[
            "push",
            file.to_str().unwrap(),
            &format!("{}/other/guest:v2", registry.address()),
        ],
    )
    .await;
    run(
        &crane,
        &[
            "copy",
            &format!("{name}:v1"),
            &format!("{}/third/guest:v3", registry.address()),
        ],
    )
    .await;
    assert_eq!(run(&crane, &["ls", &name]).await.trim(), "v1");
    let layers = run(
        &crane,
        &[
            "manifest",
            &format!("{}/other/guest:v2", registry.address()),
        ],
    )
    .await;
    assert!(layers.contains(&image.blobs[0].digest), "{layers}");
}

/// skopeo asks for a token with a login, and without one where anyone may pull.
#[tokio::test(flavor = "multi_thread")]
async fn skopeo_uses_tokens() {
    let Some(skopeo) = need_program("skopeo") else {
        return;
    };
    let registry = tokens::registry().await;
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("in");
    image::guest()
        .build()
        .write_oci_layout(&layout, "v1")
        .unwrap();
    let source = format!("oci:{}:v1", layout.display());
    let name = |name: &str| format!("docker://{}/{name}:v1", registry.address());
    let push = ["copy", "-q", "--insecure-policy", "--dest-tls-verify=false"];
    let pull = ["copy", "-q", "--insecure-policy", "--src-tls-verify=false"];
    let out = |name: &str| format!("dir:{}", folder.path().join(name).display());
    for repository in ["public/app", "team/app"] {
        let login = ["--dest-creds=ann:secret", &source, &name(repository)];
        run(&skopeo, &[&push[..], &login].concat()).await;
    }
    let anonymous = ["--src-no-creds", &name("public/app"), &out("a")];
    run(&skopeo, &[&pull[..], &anonymous].concat()).await;
    let bob = ["--src-creds=bob:hidden", &name("team/app"), &out("b")];
    run(&skopeo, &[&pull[..], &bob].concat()).await;
    for refused in [
        [&pull[..], &["--src-no-creds", &name("team/app"), &out("c")]].concat(),
        [
            &pull[..],
            &["--src-creds=bob:wrong", &name("public/app"), &out("c")],
        ]
        .concat(),
        [
            &push[..],
            &["--dest-creds=bob:hidden", &source, &name("public/app")],
        ]
        .concat(),
    ] {
        refuse(&skopeo, &refused).await;
    }
}

async fn refuse(program: &Path, arguments: &[&str]) {
    let mut command = Command::new(program);
    let output = command.args(arguments).kill_on_drop(true).output().await;
    assert!(!output.unwrap().status.success(), "{arguments:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn crane_uses_tokens() {
    let Some(crane) = need_program("crane") else {
        return;
    };
    let registry = tokens::registry().await;
    let image = image::guest().build();
    for repository in ["public/app", "team/app"] {
        let login = Some(("ann", "secret"));
        image
            .push(registry.address(), repository, "v1", login)
            .await
            .unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let name = |name: &str| format!("{}/{name}:v1", registry.address());
    let file = folder.path().join("a.tar").display().to_string();
    run(&crane, &["pull", &name("public/app"), &file]).await;
    refuse(&crane, &["pull", &name("team/app"), &file]).await;
    let auth = basic("ann", "secret").replace("Basic ", "");
    let config = format!(
        "{{\"auths\":{{\"{}\":{{\"auth\":\"{auth}\"}}}}}}",
        registry.address()
    );
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    for arguments in [
        vec!["pull", &name("team/app"), &file],
        vec!["push", &file, &name("public/again")],
        vec!["copy", &name("team/app"), &name("public/copied")],
        vec!["catalog", &registry.address().to_string()],
        vec!["ls", &format!("{}/team/app", registry.address())],
        vec!["delete", &name("team/app")],
    ] {
        let mut command = Command::new(&crane);
        let command = command.args(&arguments).env("DOCKER_CONFIG", folder.path());
        let output = command.kill_on_drop(true).output().await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {error}");
        if arguments[0] == "catalog" {
            let list = String::from_utf8(output.stdout).unwrap();
            assert_eq!(list, "public/again\npublic/app\npublic/copied\nteam/app\n");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_uses_tokens() {
    use towline_distribution::{Client, Options, Trace};
    use towline_keyring::Credential;
    let registry = tokens::registry().await;
    let client = Client::new(Options::default()).unwrap();
    let repository = |name: &str, login: Option<(&str, &str)>| {
        let reference = format!("{}/{name}:v1", registry.address());
        let credential = login.map_or(Credential::Anonymous, |(name, password)| {
            Credential::Basic {
                username: name.to_owned(),
                password: password.into(),
            }
        });
        let reference = towline_oci::Reference::parse(&reference).unwrap();
        client.repository(&reference, credential, Trace::default())
    };
    let image = image::guest().build();
    for name in ["public/app", "team/app"] {
        let ann = repository(name, Some(("ann", "secret")));
        for blob in &image.blobs {
            let descriptor = towline_oci::Descriptor::of(&blob.media_type, &blob.bytes);
            ann.push_blob(&descriptor, blob.bytes.clone())
                .await
                .unwrap();
        }
        let manifest = &image.manifest;
        ann.push_manifest("v1", &manifest.media_type, manifest.bytes.clone())
            .await
            .unwrap();
    }
    // Each sees in the list what it may pull: a login is given for it although nobody is refused.
    for (login, expected) in [
        (None, &["public/app"][..]),
        (Some(("bob", "hidden")), &["public/app", "team/app"]),
    ] {
        let listed = repository("any", login).catalog(10).await.unwrap();
        assert_eq!(listed, expected, "{login:?}");
    }
    let wrong = repository("any", Some(("bob", "wrong"))).catalog(10).await;
    assert_eq!(
        wrong.unwrap_err().cause(),
        towline_cause::Cause::WrongCredentials
    );
    for (name, login) in [("public/app", None), ("team/app", Some(("bob", "hidden")))] {
        let resolved = repository(name, login).resolve().await.unwrap();
        assert_eq!(resolved.digest.to_string(), image.digest());
    }
    for (name, login, cause) in [
        ("team/app", None, towline_cause::Cause::NoCredentials),
        (
            "team/app",
            Some(("bob", "wrong")),
            towline_cause::Cause::WrongCredentials,
        ),
        (
            "closed/app",
            Some(("bob", "hidden")),
            towline_cause::Cause::InsufficientPermission,
        ),
    ] {
        let failure = repository(name, login).resolve().await.unwrap_err();
        assert_eq!(failure.cause(), cause, "{name} {login:?}: {failure}");
    }
}

/// containerd fetches with a login and without one; nothing is unpacked, so that no snapshotter is needed.
#[tokio::test(flavor = "multi_thread")]
async fn containerd_uses_tokens() {
    let Some(containerd) = Containerd::start().await else {
        return;
    };
    let registry = tokens::registry().await;
    let image = image::guest().build();
    for repository in ["public/app", "team/app"] {
        let login = Some(("ann", "secret"));
        image
            .push(registry.address(), repository, "v1", login)
            .await
            .unwrap();
    }
    let name = |name: &str| format!("{}/{name}:v1", registry.address());
    let fetch = async |login: &[&str], repository: &str| {
        let fetch = ["content", "fetch", "--plain-http"];
        let name = name(repository);
        let arguments = [&fetch[..], login, &[&name]].concat();
        containerd.ask(&arguments).await
    };
    for (login, repository, expected) in [
        (&[][..], "public/app", true),
        (&["--user", "bob:hidden"], "team/app", true),
        (&["--user", "bob:wrong"], "team/app", false),
        (&[], "team/app", false),
    ] {
        let (ended_well, said) = fetch(login, repository).await;
        assert_eq!(ended_well, expected, "{login:?} {repository}: {said}");
    }
    let listed = containerd.run(&["images", "ls", "-q"]).await;
    assert_eq!(
        listed,
        format!("{}\n{}\n", name("public/app"), name("team/app"))
    );
    containerd.stop();
}
