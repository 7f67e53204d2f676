//! What answers to a manifest request mean.

use towline_cause::{Cause, Step};
use towline_distribution::{Options, Retries};
use towline_keyring::Credential;
use towline_oci::{Digest, media_type};

use crate::stub::{Reply, Stub, bob, client, manifest, manifest_reply, options, repository, words};

#[tokio::test]
async fn a_manifest_is_fetched_by_tag_and_by_digest() {
    let bytes = manifest(b"x");
    let served = bytes.clone();
    let stub =
        Stub::plain(move |_| manifest_reply(&served).header("ratelimit-remaining", "99;w=21600"))
            .await;
    let repository = stub.repository(Credential::Anonymous);
    let resolved = repository.resolve().await.unwrap();
    assert_eq!(resolved.digest, Digest::of(&bytes));
    assert_eq!(resolved.media_type, media_type::OCI_MANIFEST);
    assert_eq!(resolved.bytes, bytes);
    assert!(
        resolved
            .headers
            .contains(&("ratelimit-remaining".to_owned(), "99;w=21600".to_owned()))
    );
    repository.manifest(&resolved.digest).await.unwrap();
    assert_eq!(
        stub.asked(),
        [
            "GET /v2/team/app/manifests/1.0".to_owned(),
            format!("GET /v2/team/app/manifests/{}", resolved.digest)
        ]
    );
    let accept = stub.seen()[0].header("accept").unwrap().to_owned();
    assert!(
        media_type::MANIFEST_ACCEPT
            .iter()
            .all(|kind| accept.contains(kind)),
        "{accept}"
    );
}

/// The answer to the manifest, the answer to the list of tags, and what they mean for an anonymous client and for one with a login.
type Row = (&'static str, Reply, Reply, Cause, Cause, Step);

#[expect(clippy::too_many_lines, reason = "one table")]
fn table() -> Vec<Row> {
    let tags = || Reply::new(200).json(r#"{"name":"team/app","tags":["1.1","2.0"]}"#);
    let no_name = || Reply::error(404, "NAME_UNKNOWN", "repository name not known to registry");
    let unknown = || Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
    let page = |status| {
        Reply::new(status)
            .header("Content-Type", "text/html; charset=utf-8")
            .body("<html><title>Welcome</title></html>")
    };
    let same = |name, reply, tags, cause, step| (name, reply, tags, cause, cause, step);
    vec![
        same("tag", unknown(), tags(), Cause::TagNotFound, Step::Resolve),
        same(
            "tag, bare 404, tags listed",
            Reply::new(404),
            tags(),
            Cause::TagNotFound,
            Step::Resolve,
        ),
        same(
            "tag, bare 404 twice",
            Reply::new(404),
            Reply::new(404),
            Cause::TagNotFound,
            Step::Resolve,
        ),
        same(
            "repository",
            unknown(),
            no_name(),
            Cause::RepositoryNotFound,
            Step::Resolve,
        ),
        same(
            "repository at once",
            no_name(),
            no_name(),
            Cause::RepositoryNotFound,
            Step::Resolve,
        ),
        same(
            "harbor",
            Reply::error(404, "NOT_FOUND", "artifact x not found"),
            tags(),
            Cause::TagNotFound,
            Step::Resolve,
        ),
        same(
            "harbor repository",
            Reply::error(404, "NOT_FOUND", "x"),
            Reply::error(404, "NOT_FOUND", "x"),
            Cause::RepositoryNotFound,
            Step::Resolve,
        ),
        same(
            "404 page",
            page(404),
            page(404),
            Cause::NotARegistry,
            Step::Resolve,
        ),
        same(
            "200 page",
            page(200),
            page(200),
            Cause::NotARegistry,
            Step::Resolve,
        ),
        (
            "403",
            Reply::error(403, "DENIED", "requested access to the resource is denied"),
            tags(),
            Cause::NoCredentials,
            Cause::InsufficientPermission,
            Step::Authenticate,
        ),
        same(
            "403 by address",
            Reply::error(
                403,
                "DENIED",
                "client with IP '1.2.3.4' is not allowed access",
            ),
            tags(),
            Cause::AccessRestricted,
            Step::Resolve,
        ),
        same(
            "402",
            Reply::new(402),
            tags(),
            Cause::QuotaExceeded,
            Step::Resolve,
        ),
        same(
            "412",
            Reply::error(412, "PROJECTPOLICYVIOLATION", "x"),
            tags(),
            Cause::RegistryPolicyBlocked,
            Step::Resolve,
        ),
        same(
            "429",
            Reply::error(
                429,
                "TOOMANYREQUESTS",
                "You have reached your pull rate limit",
            )
            .header("Retry-After", "60"),
            tags(),
            Cause::RateLimited,
            Step::Resolve,
        ),
        same(
            "500",
            Reply::new(500),
            tags(),
            Cause::RegistryError,
            Step::Resolve,
        ),
        same(
            "503",
            Reply::new(503),
            tags(),
            Cause::RegistryError,
            Step::Resolve,
        ),
        same(
            "418",
            Reply::new(418),
            tags(),
            Cause::RegistryMisconfigured,
            Step::Resolve,
        ),
        same(
            "schema 1",
            Reply::new(200)
                .header("Content-Type", media_type::DOCKER_SCHEMA1_SIGNED)
                .body(r#"{"schemaVersion":1,"fsLayers":[]}"#),
            tags(),
            Cause::ManifestUnsupported,
            Step::Resolve,
        ),
        same(
            "confused document",
            Reply::new(200)
                .header("Content-Type", media_type::OCI_INDEX)
                .body(r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#),
            tags(),
            Cause::NotAnImage,
            Step::Resolve,
        ),
        same(
            "not JSON",
            Reply::new(200)
                .header("Content-Type", media_type::OCI_MANIFEST)
                .body("{"),
            tags(),
            Cause::RegistryMisconfigured,
            Step::Resolve,
        ),
        same(
            "something else",
            Reply::new(200)
                .header("Content-Type", "application/x-tar")
                .body("x"),
            tags(),
            Cause::NotAnImage,
            Step::Resolve,
        ),
        same(
            "too large",
            Reply::new(200)
                .header("Content-Type", media_type::OCI_MANIFEST)
                .cut(5 << 20),
            tags(),
            Cause::ImageTooLarge,
            Step::Resolve,
        ),
        same(
            "cut each time",
            Reply::new(200)
                .header("Content-Type", media_type::OCI_MANIFEST)
                .body("{")
                .cut(100),
            tags(),
            Cause::ConnectionReset,
            Step::Resolve,
        ),
    ]
}

#[tokio::test]
async fn the_table_of_answers() {
    for (name, reply, tags, anonymous, with_login, step) in table() {
        let stub = Stub::plain(move |seen| {
            if seen.path().ends_with("/tags/list") {
                tags.clone()
            } else {
                reply.clone()
            }
        })
        .await;
        for (credential, cause) in [(Credential::Anonymous, anonymous), (bob(), with_login)] {
            let failure = stub.repository(credential).resolve().await.unwrap_err();
            assert_eq!(
                (failure.cause(), failure.step()),
                (cause, step),
                "{name}: {}",
                words(&failure)
            );
            assert!(!words(&failure).contains("canary"), "{}", words(&failure));
            assert_eq!(
                failure.endpoint(),
                Some(format!("http://{}", stub.address()).as_str()),
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn words_say_what_was_asked_and_what_came_back() {
    let stub = Stub::plain(|seen| {
        if seen.path().ends_with("/tags/list") {
            Reply::new(200).json(r#"{"tags":["1.1"]}"#)
        } else {
            Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        }
    })
    .await;
    let failure = stub
        .repository(Credential::Anonymous)
        .resolve()
        .await
        .unwrap_err();
    assert_eq!(
        failure.to_string(),
        format!(
            "resolve: repository team/app has no tag 1.0: GET manifest 1.0 of team/app without credentials at http://{} was answered \
             404 Not Found, MANIFEST_UNKNOWN: \"manifest unknown\"",
            stub.address()
        )
    );
    assert!(
        failure.alternatives().is_empty(),
        "the list of tags leaves nothing open"
    );
}

#[tokio::test]
async fn an_ambiguous_404_names_what_it_leaves_open() {
    let stub = Stub::plain(|_| Reply::new(404)).await;
    let failure = stub
        .repository(Credential::Anonymous)
        .resolve()
        .await
        .unwrap_err();
    assert_eq!(
        failure.alternatives(),
        [Cause::RepositoryNotFound, Cause::NotARegistry]
    );
}

#[tokio::test]
async fn digests_are_verified_with_their_own_algorithm() {
    let bytes = manifest(b"x");
    let other = manifest(b"y");
    let served = bytes.clone();
    let stub = Stub::plain(move |_| manifest_reply(&served)).await;
    let repository = stub.repository(Credential::Anonymous);
    let failure = repository.manifest(&Digest::of(&other)).await.unwrap_err();
    assert_eq!(
        (failure.cause(), failure.step()),
        (Cause::DigestMismatch, Step::Verify)
    );
    let sha512 = Digest::parse(&format!("sha512:{}", "0".repeat(128))).unwrap();
    let failure = repository.manifest(&sha512).await.unwrap_err();
    assert_eq!(failure.cause(), Cause::DigestMismatch);
    assert!(
        failure.to_string().contains("their digest is sha512:"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_missing_digest() {
    let stub = Stub::plain(|seen| {
        if seen.path().ends_with("/tags/list") {
            Reply::new(200).json(r#"{"tags":["1.1"]}"#)
        } else {
            Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        }
    })
    .await;
    let image = format!("{}/team/app@{}", stub.address(), Digest::of(b"gone"));
    let failure = repository(&client(options()), &image, Credential::Anonymous)
        .resolve()
        .await
        .unwrap_err();
    assert_eq!(
        (failure.cause(), failure.step()),
        (Cause::DigestNotFound, Step::Resolve)
    );
}

#[tokio::test]
async fn what_may_pass_is_asked_again_and_the_rest_is_not() {
    for (status, asked) in [
        (404, 1),
        (400, 1),
        (403, 1),
        (500, 3),
        (502, 3),
        (503, 3),
        (429, 3),
        (501, 1),
    ] {
        let stub = Stub::plain(move |_| Reply::new(status)).await;
        let client = client(Options {
            retries: Retries {
                attempts: 3,
                ..options().retries
            },
            ..options()
        });
        repository(&client, &stub.image(), Credential::Anonymous)
            .resolve()
            .await
            .unwrap_err();
        let manifests = stub
            .asked()
            .iter()
            .filter(|path| path.contains("manifests"))
            .count();
        assert_eq!(manifests, asked, "{status}");
        let once = repository(&client, &stub.image(), Credential::Anonymous).once();
        once.resolve().await.unwrap_err();
        let manifests = stub
            .asked()
            .iter()
            .filter(|path| path.contains("manifests"))
            .count();
        assert_eq!(manifests, asked + 1, "{status}");
    }
}

#[tokio::test]
async fn it_passes_in_the_end() {
    let bytes = manifest(b"x");
    let stub = Stub::plain(move |seen| match seen.number {
        1 => Reply::new(503).header("Retry-After", "0"),
        2 => Reply::raw(b""),
        _ => manifest_reply(&bytes),
    })
    .await;
    stub.repository(Credential::Anonymous)
        .resolve()
        .await
        .unwrap();
    assert_eq!(stub.seen().len(), 3);
}

#[tokio::test]
async fn a_rate_limit_keeps_the_wish_of_the_server() {
    let stub = Stub::plain(|_| {
        Reply::error(429, "TOOMANYREQUESTS", "slow down").header("Retry-After", "120")
    })
    .await;
    let failure = stub
        .repository(Credential::Anonymous)
        .resolve()
        .await
        .unwrap_err();
    assert_eq!(failure.wait(), Some(std::time::Duration::from_secs(120)));
    assert_eq!(
        stub.seen().len(),
        1,
        "a wait longer than allowed is not waited for"
    );
}

#[tokio::test]
async fn a_refused_head_is_asked_again_for_its_words() {
    let stub = Stub::plain(|_| Reply::error(403, "DENIED", "your licence has run out")).await;
    let failure = stub
        .repository(bob())
        .head_manifest("1.0")
        .await
        .unwrap_err();
    assert!(
        failure.to_string().contains("your licence has run out"),
        "{failure}"
    );
    assert_eq!(stub.asked()[0], "HEAD /v2/team/app/manifests/1.0");
    assert_eq!(stub.asked()[1], "GET /v2/team/app/manifests/1.0");
}

#[tokio::test]
async fn a_server_without_head() {
    let bytes = manifest(b"x");
    let digest = Digest::of(&bytes);
    let stub = Stub::plain(move |seen| {
        if seen.method == "HEAD" {
            Reply::new(405)
        } else {
            manifest_reply(&bytes)
        }
    })
    .await;
    let head = stub
        .repository(Credential::Anonymous)
        .head_manifest("1.0")
        .await
        .unwrap();
    assert_eq!(head.digest, Some(digest));
}

#[tokio::test]
async fn a_registry_that_is_only_a_sign_to_another() {
    let bytes = manifest(b"x");
    let service = Stub::plain(|_| Reply::new(200).json(r#"{"token":"for-anyone"}"#)).await;
    let realm = format!(
        r#"Bearer realm="http://{}/token",service=s"#,
        service.address()
    );
    let behind = Stub::plain(move |seen| match seen.header("authorization") {
        None => Reply::new(401).header("WWW-Authenticate", &realm),
        Some(_) => manifest_reply(&bytes),
    })
    .await;
    let location = format!("http://{}/v2/real/app/manifests/1.0", behind.address());
    let sign = Stub::plain(move |seen| match seen.header("authorization") {
        None => Reply::new(401).header("WWW-Authenticate", "Basic realm=r"),
        Some(_) => Reply::new(307).header("Location", &location),
    })
    .await;
    let resolved = sign.repository(bob()).resolve().await.unwrap();
    assert_eq!(resolved.endpoint, format!("http://{}", behind.address()));
    assert_eq!(
        behind.seen()[1].header("authorization"),
        Some("Bearer for-anyone")
    );
    assert!(
        !service
            .everything()
            .to_lowercase()
            .contains("authorization")
    );
}

#[tokio::test]
async fn tags_come_in_pages_and_never_in_circles() {
    let stub = Stub::plain(|seen| {
        let reply = |tags: &str, next: &str| {
            Reply::new(200)
                .json(&format!(r#"{{"name":"team/app","tags":[{tags}]}}"#))
                .header("Link", &format!("<{next}>; rel=\"next\""))
        };
        if seen.target.contains("last=b") {
            reply(r#""c","d""#, "/v2/team/app/tags/list?last=d")
        } else if seen.target.contains("last=d") {
            // A circle.
            reply(r#""e""#, "/v2/team/app/tags/list?last=b")
        } else {
            reply(r#""a","b""#, "list?last=b")
        }
    })
    .await;
    let repository = stub.repository(Credential::Anonymous);
    assert_eq!(repository.tags(3).await.unwrap(), ["a", "b", "c"]);
    assert_eq!(
        repository.tags(100).await.unwrap(),
        ["a", "b", "c", "d", "e"]
    );
}

#[tokio::test]
async fn a_page_never_leads_to_another_origin() {
    let elsewhere = Stub::plain(|_| Reply::new(200).json(r#"{"tags":["stolen"]}"#)).await;
    let next = format!(
        "<http://{}/v2/team/app/tags/list>; rel=next",
        elsewhere.address()
    );
    let stub = Stub::plain(move |_| {
        Reply::new(200)
            .json(r#"{"tags":["a"]}"#)
            .header("Link", &next)
    })
    .await;
    assert_eq!(stub.repository(bob()).tags(100).await.unwrap(), ["a"]);
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn referrers_by_the_api_and_by_the_fallback_tag() {
    let index = |kind: &str| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{{"mediaType":"{}","digest":"{}","size":1,"artifactType":"{kind}"}}]}}"#,
            media_type::OCI_INDEX,
            media_type::OCI_MANIFEST,
            Digest::of(kind.as_bytes())
        )
    };
    let subject = Digest::of(b"subject");
    let (api, tag) = (index("a/sbom"), index("a/signature"));
    let with_api = Stub::plain(move |_| {
        Reply::new(200)
            .header("Content-Type", media_type::OCI_INDEX)
            .body(&api)
    })
    .await;
    let found = with_api
        .repository(Credential::Anonymous)
        .referrers(&subject, None)
        .await
        .unwrap();
    assert_eq!(found.manifests[0].artifact_type.as_deref(), Some("a/sbom"));
    let found = with_api
        .repository(Credential::Anonymous)
        .referrers(&subject, Some("x/y"))
        .await
        .unwrap();
    assert!(found.manifests.is_empty());

    let fallback = format!("/v2/team/app/manifests/sha256-{}", subject.hex());
    let without = Stub::plain(move |seen| {
        if seen.path() == fallback {
            Reply::new(200)
                .header("Content-Type", media_type::OCI_INDEX)
                .body(&tag)
        } else {
            Reply::new(404)
        }
    })
    .await;
    let found = without
        .repository(Credential::Anonymous)
        .referrers(&subject, None)
        .await
        .unwrap();
    assert_eq!(
        found.manifests[0].artifact_type.as_deref(),
        Some("a/signature")
    );
}
