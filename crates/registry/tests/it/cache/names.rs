//! Which upstream a name means, whose bytes are shared, and whose login is used.

use serde_json::json;
use towline_registry::Upstream;

use super::{Line, image, layer};
use crate::client::Registry;

#[tokio::test(flavor = "multi_thread")]
async fn names_mirrors_and_pushes() {
    let line = Line::new(|_| {}).await;
    let image = image(7);
    line.push(&image, "v1").await;
    let host = line.network.local_addr().to_string();
    // As containerd asks a mirror.
    let mirrored = line
        .cache
        .get(&format!("/v2/team/app/manifests/v1?ns={host}"))
        .await;
    assert_eq!(mirrored.status, 200);
    assert_eq!(
        line.get("manifests/v1")
            .await
            .header("docker-content-digest"),
        image.digest()
    );
    let other = line
        .cache
        .get("/v2/team/app/manifests/v1?ns=elsewhere.example")
        .await;
    assert_eq!(
        (other.status.as_u16(), other.code().as_str()),
        (404, "NAME_UNKNOWN")
    );
    // Lists come from the upstream; what is here is a repository like any other.
    assert_eq!(
        line.get("tags/list").await.json(),
        json!({"name": "up/team/app", "tags": ["v1"]})
    );
    assert_eq!(
        line.cache.get("/v2/_catalog").await.json(),
        json!({"repositories": ["up/team/app"]})
    );
    let referrers = line.get(&format!("referrers/{}", image.digest())).await;
    assert_eq!(referrers.json()["manifests"], json!([]));
    // Pushes go to the upstream itself, and to repositories of this registry's own.
    let refused = line
        .cache
        .send("POST", "/v2/up/team/app/blobs/uploads/", &[], "")
        .await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (405, "UNSUPPORTED")
    );
    line.cache.blob("own/app", b"x").await;
    // What is deleted here is fetched again.
    let path = format!("/v2/up/team/app/manifests/{}", image.digest());
    assert_eq!(line.cache.send("DELETE", &path, &[], "").await.status, 202);
    assert_eq!(
        line.cache.get(&path).await.header("x-towline-cache"),
        "miss"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_shared_but_only_with_the_upstreams_consent() {
    let line = Line::new(|_| {}).await;
    let image = image(8);
    line.push(&image, "v1").await;
    let (digest, bytes) = layer(&image);
    line.get("manifests/v1").await;
    line.get(&format!("blobs/{digest}")).await;
    let other = format!("/v2/up/other/app/blobs/{digest}");
    assert_eq!(line.cache.get(&other).await.status, 404);
    image
        .push(line.origin.address(), "other/app", "v1", None)
        .await
        .unwrap();
    let before = line.seen("GET", "/blobs/");
    assert_eq!(line.cache.get(&other).await.body, bytes);
    assert_eq!(
        line.seen("GET", "/blobs/"),
        before,
        "the bytes were here already"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_of_the_upstream_is_used_and_passed_to_nobody() {
    use towline_keyring::Credential;
    use towline_registry::access::{Access, Users};
    let mut users = Users::default();
    users.insert("cache", &"secret".into()).unwrap();
    let origin = Registry::with(|options| options.access = Access::private(users)).await;
    let image = image(9);
    image
        .push(
            origin.address(),
            "team/app",
            "v1",
            Some(("cache", "secret")),
        )
        .await
        .unwrap();
    let with = async |credential: Credential| {
        let mut upstream = Upstream::parse(&format!("up=http://{}", origin.address())).unwrap();
        upstream.credential = credential;
        Registry::with(|options| options.cache.upstreams = vec![upstream]).await
    };
    let path = "/v2/up/team/app/manifests/v1";
    let good = with(Credential::basic("cache", "secret")).await;
    assert_eq!(good.get(path).await.status, 200);
    let bad = with(Credential::basic("cache", "canary-password"))
        .await
        .get(path)
        .await;
    assert_eq!(bad.status, 502);
    assert_eq!(
        bad.json()["errors"][0]["detail"]["cause"],
        "WrongCredentials"
    );
    assert!(!String::from_utf8_lossy(&bad.body).contains("canary"));
    assert!(bad.headers.get("www-authenticate").is_none());
    let none = with(Credential::Anonymous).await.get(path).await;
    assert_eq!(none.json()["errors"][0]["detail"]["cause"], "NoCredentials");
}
