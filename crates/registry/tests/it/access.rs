//! Who may do what, over the wire.

use std::time::Duration;

use towline_lab::image;
use towline_registry::access::{Access, Rule, Users, Who};
use towline_registry::{Error, Options, Service};

use crate::client::{Registry, basic};

fn mixed() -> Access {
    let mut users = Users::default();
    users.insert("ann", &"secret".into()).unwrap();
    users.insert("bob", &"hidden".into()).unwrap();
    let ann = || Who::Users(vec!["ann".to_owned()]);
    Access {
        rules: vec![
            Rule::new("public/*", Who::Anyone, ann()),
            Rule::new("*", Who::AnyUser, ann()),
        ],
        users,
    }
}

#[tokio::test]
async fn logins_are_asked_for_checked_and_enough() {
    let registry = Registry::with(|options| options.access = mixed()).await;
    let image = image::guest().build();
    assert!(
        image
            .push(registry.address(), "public/a", "v1", None)
            .await
            .is_err()
    );
    for name in ["public/a", "private/a"] {
        image
            .push(registry.address(), name, "v1", Some(("ann", "secret")))
            .await
            .unwrap();
    }
    let get = async |path: &str, login: Option<(&str, &str)>| {
        let login = login.map(|(user, password)| basic(user, password));
        let headers: Vec<_> = login
            .iter()
            .map(|login| ("authorization", login.as_str()))
            .collect();
        registry.send("GET", path, &headers, "").await
    };
    assert_eq!(get("/v2/public/a/manifests/v1", None).await.status, 200);
    let refused = get("/v2/private/a/manifests/v1", None).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (401, "UNAUTHORIZED")
    );
    assert!(
        refused
            .header("www-authenticate")
            .starts_with("Basic realm=")
    );
    assert_eq!(
        get("/v2/private/a/manifests/v1", Some(("bob", "hidden")))
            .await
            .status,
        200
    );
    assert_eq!(
        get("/v2/private/a/manifests/v1", Some(("bob", "wrong")))
            .await
            .status,
        401
    );
    assert_eq!(
        get("/v2/public/a/manifests/v1", Some(("bob", "wrong")))
            .await
            .status,
        401
    );
    assert_eq!(get("/v2/private/none/manifests/v1", None).await.status, 401);
    assert_eq!(get("/v2/", None).await.status, 401);
    assert_eq!(get("/v2/", Some(("bob", "hidden"))).await.status, 200);
    let bob = basic("bob", "hidden");
    let denied = registry
        .send(
            "POST",
            "/v2/private/a/blobs/uploads/",
            &[("authorization", &bob)],
            "",
        )
        .await;
    assert_eq!(
        (denied.status.as_u16(), denied.code().as_str()),
        (403, "DENIED")
    );
    let catalog = get("/v2/_catalog", Some(("ann", "secret"))).await;
    assert_eq!(
        catalog.json()["repositories"],
        serde_json::json!(["private/a", "public/a"])
    );
}

#[tokio::test]
async fn a_blob_of_a_private_repository_is_not_mounted_by_a_stranger() {
    let registry = Registry::with(|options| {
        options.access = mixed();
        options
            .access
            .rules
            .insert(0, Rule::new("open/*", Who::Anyone, Who::Anyone));
    })
    .await;
    let image = image::guest().build();
    image
        .push(
            registry.address(),
            "private/a",
            "v1",
            Some(("ann", "secret")),
        )
        .await
        .unwrap();
    let digest = &image.blobs[0].digest;
    for from in ["&from=private/a", ""] {
        let path = format!("/v2/open/b/blobs/uploads/?mount={digest}{from}");
        assert_eq!(
            registry.send("POST", &path, &[], "").await.status,
            202,
            "{from:?}"
        );
    }
}

#[tokio::test]
async fn it_is_not_open_to_the_network_by_accident_and_owns_its_folder() {
    let registry = Registry::open().await;
    let mut options = Options::new(registry.folder.path());
    options.listen = vec!["0.0.0.0:0".parse().unwrap()];
    // Nor where anyone may only read: a registry in the network has a login, or says that it has none.
    for (read_only, may) in [(false, "push or delete"), (true, "pull everything")] {
        options.read_only = read_only;
        let refused = Service::bind(options.clone()).await.unwrap_err();
        assert!(matches!(refused, Error::OpenToTheNetwork { .. }));
        let words = refused.to_string();
        for word in [
            may,
            "--open-beyond-loopback",
            "openBeyondLoopback",
            "--htpasswd",
        ] {
            assert!(words.contains(word), "{words}");
        }
    }
    options.open_beyond_loopback = true;
    assert!(matches!(
        Service::bind(options).await,
        Err(Error::InUse { .. })
    ));
    assert!(registry.handle.shutdown(Duration::from_secs(5)).await);
    let mut options = Options::new(registry.folder.path());
    options.read_only = true;
    let again = Service::start(options).await.unwrap();
    let answer =
        crate::client::send(again.local_addr(), "POST", "/v2/a/blobs/uploads/", &[], "").await;
    assert_eq!(answer.status, 405);
}

#[tokio::test]
async fn hostile_names_are_refused() {
    let registry = Registry::open().await;
    for path in [
        "/v2/../../etc/blobs/uploads/",
        "/v2/a/%2e%2e/b/blobs/uploads/",
        "/v2/_tags/blobs/uploads/",
        "/v2/A/blobs/uploads/",
    ] {
        let answer = registry.send("POST", path, &[], "").await;
        assert_eq!(answer.code(), "NAME_INVALID", "{path}");
    }
    assert_eq!(
        std::fs::read_dir(registry.folder.path().join("uploads"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn the_configuration_is_read_again_when_told_and_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.yaml");
    let hash = bcrypt::hash("secret", 4).unwrap();
    let users = format!("ann:{hash}\nbob:{hash}\n");
    std::fs::write(folder.path().join("users"), users).unwrap();
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("users: users\n");
    let config = file.clone();
    let registry = Registry::with(|options| options.config = Some(config)).await;
    let status = async |user: Option<&str>| {
        let login = user.map(|user| basic(user, "secret"));
        let header = login
            .as_ref()
            .map(|login| ("authorization", login.as_str()));
        let path = "/v2/a/blobs/uploads/";
        let answer = registry.send("POST", path, header.as_slice(), "").await;
        answer.status.as_u16()
    };
    assert_eq!((status(None).await, status(Some("bob")).await), (401, 202));

    write("users: users\nrules:\n  - {repositories: '*', pull: anyone, push: [ann]}\n");
    registry.handle.reload().await.unwrap();
    assert_eq!(
        (status(Some("ann")).await, status(Some("bob")).await),
        (202, 403)
    );

    write("users: users\nrules:\n  - {repositories: '*', push: [zoe]}\n");
    let error = registry.handle.reload().await.unwrap_err();
    let error = towline_sys::task::chain(&error);
    assert!(
        error.contains("line 3, column 32: there is no user \"zoe\""),
        "{error}"
    );
    assert_eq!(
        (status(Some("ann")).await, status(Some("bob")).await),
        (202, 403)
    );

    write("users: users\nrules:\n  - {repositories: '*', push: [bob]}\n");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while status(Some("bob")).await != 202 {
        assert!(
            std::time::Instant::now() < deadline,
            "the change was not seen"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(status(Some("ann")).await, 403);
}

#[tokio::test]
async fn a_change_that_would_open_it_to_the_network_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.yaml");
    let hash = bcrypt::hash("secret", 4).unwrap();
    std::fs::write(folder.path().join("users"), format!("ann:{hash}\n")).unwrap();
    std::fs::write(&file, "users: users\n").unwrap();
    let config = file.clone();
    let registry = Registry::with(|options| {
        options.config = Some(config);
        options.listen = vec!["0.0.0.0:0".parse().unwrap()];
    })
    .await;
    let open = "rules:\n  - {repositories: '*', pull: anyone, push: anyone}\n";
    std::fs::write(&file, open).unwrap();
    let error = registry.handle.reload().await.unwrap_err();
    assert!(matches!(error, Error::OpenToTheNetwork { .. }), "{error}");
    std::fs::write(&file, format!("openBeyondLoopback: true\n{open}")).unwrap();
    registry.handle.reload().await.unwrap();
}
