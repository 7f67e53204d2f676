//! Logging in: what is offered to whom, and what a refusal means.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use towline_cause::{Cause, Step};
use towline_distribution::Options;
use towline_keyring::Credential;

use crate::stub::{Reply, Stub, bob, client, manifest, manifest_reply, options, repository, words};

fn bearer(realm: &str) -> Reply {
    Reply::new(401).header(
        "WWW-Authenticate",
        &format!(r#"Bearer realm="{realm}",service="lab",scope="repository:team/app:pull""#),
    )
}

fn refused(realm: &str, error: &str) -> Reply {
    Reply::error(401, "UNAUTHORIZED", "authentication required").header(
        "WWW-Authenticate",
        &format!(r#"Bearer realm="{realm}",service="lab",scope="repository:team/app:pull",error="{error}""#),
    )
}

/// A registry that wants `Bearer <token>` and sends to a token service for it.
async fn registry(realm: String, token: &'static str) -> Stub {
    let bytes = manifest(b"x");
    Stub::plain(move |seen| match seen.header("authorization") {
        Some(given) if given == format!("Bearer {token}") => manifest_reply(&bytes),
        Some(_) => refused(&realm, "insufficient_scope"),
        None => bearer(&realm),
    })
    .await
}

async fn token_service(
    reply: impl Fn(&crate::stub::Seen) -> Reply + Send + Sync + 'static,
) -> (Stub, String) {
    let stub = Stub::plain(reply).await;
    let realm = format!("http://{}/token?tenant=7", stub.address());
    (stub, realm)
}

#[tokio::test]
async fn an_anonymous_token() {
    let (service, realm) =
        token_service(|_| Reply::new(200).json(r#"{"token":"t1","expires_in":300}"#)).await;
    let stub = registry(realm, "t1").await;
    let repository = stub.repository(Credential::Anonymous);
    repository.resolve().await.unwrap();
    repository.resolve().await.unwrap();
    let asked = service.seen();
    assert_eq!(asked.len(), 1, "the token is kept");
    assert_eq!(
        asked[0].target,
        "/token?tenant=7&service=lab&scope=repository:team/app:pull"
    );
    assert_eq!(asked[0].header("authorization"), None);
    assert_eq!(stub.seen().len(), 3);
}

#[tokio::test]
async fn a_token_for_a_login() {
    let (service, realm) =
        token_service(|_| Reply::new(200).json(r#"{"access_token":"t1"}"#)).await;
    let stub = registry(realm, "t1").await;
    stub.repository(bob()).resolve().await.unwrap();
    let asked = service.seen();
    assert_eq!(
        asked[0].header("authorization"),
        Some("Basic Ym9iOmNhbmFyeS1wYXNzd29yZA==")
    );
    assert!(
        asked[0].target.ends_with("&account=bob"),
        "{}",
        asked[0].target
    );
    assert!(
        !stub.everything().contains("Basic"),
        "the registry itself never sees the login"
    );
}

#[tokio::test]
async fn identity_tokens_are_posted() {
    let (service, realm) = token_service(|seen| {
        if seen.method == "POST" {
            Reply::new(200).json(r#"{"access_token":"t1"}"#)
        } else {
            Reply::new(405)
        }
    })
    .await;
    let stub = registry(realm, "t1").await;
    stub.repository(Credential::IdentityToken("refresh me".into()))
        .resolve()
        .await
        .unwrap();
    let asked = service.seen();
    assert_eq!(asked.len(), 1);
    let form = "grant_type=refresh_token&client_id=towline&scope=repository:team/app:pull&refresh_token=refresh%20me&service=lab";
    assert_eq!(asked[0].body, form);
}

#[tokio::test]
async fn a_refresh_token_as_a_password_falls_back_to_get() {
    // The last one answers with a page that holds no token.
    for status in [400, 401, 403, 404, 405, 422, 500, 200] {
        let (service, realm) = token_service(move |seen| {
            if seen.method == "POST" {
                Reply::new(status)
            } else {
                Reply::new(200).json(r#"{"token":"t1"}"#)
            }
        })
        .await;
        let stub = registry(realm, "t1").await;
        let user = Credential::basic("00000000-0000-0000-0000-000000000000", "r");
        stub.repository(user).resolve().await.unwrap();
        let mut methods: Vec<_> = service
            .seen()
            .iter()
            .map(|seen| seen.method.clone())
            .collect();
        // What may pass is tried again first.
        methods.dedup();
        assert_eq!(methods, ["POST", "GET"], "{status}");
    }
    // Who is asked too often is not asked more.
    let (service, realm) = token_service(|_| Reply::new(429)).await;
    let stub = registry(realm, "t1").await;
    let user = Credential::basic("00000000-0000-0000-0000-000000000000", "r");
    stub.repository(user).resolve().await.unwrap_err();
    assert!(service.seen().iter().all(|seen| seen.method == "POST"));
}

/// The next token is asked for with what the service handed out, and the password stays here; where that is refused the login counts.
#[tokio::test]
async fn a_refresh_token_that_was_handed_out_takes_the_place_of_the_login() {
    let asked = AtomicUsize::new(0);
    let (service, realm) = token_service(move |_| match asked.fetch_add(1, Ordering::SeqCst) + 1 {
        3 => Reply::error(401, "UNAUTHORIZED", "the refresh token is revoked"),
        // No refusal, and no token either.
        6 => Reply::new(200).json("{}"),
        number => Reply::new(200).json(&format!(
            r#"{{"token":"t{number}","expires_in":300,"refresh_token":"refresh{number}"}}"#
        )),
    })
    .await;
    let bytes = manifest(b"x");
    let valid = Arc::new(AtomicUsize::new(0));
    let accepted = valid.clone();
    let stub = Stub::plain(move |seen| match seen.header("authorization") {
        Some(given) if given == format!("Bearer t{}", accepted.load(Ordering::SeqCst)) => {
            manifest_reply(&bytes)
        }
        Some(_) => refused(&realm, "invalid_token"),
        None => bearer(&realm),
    })
    .await;
    let repository = stub.repository(bob());
    for number in [1, 2, 4] {
        valid.store(number, Ordering::SeqCst);
        repository.resolve().await.unwrap();
    }
    let seen = service.seen();
    let methods: Vec<_> = seen.iter().map(|seen| seen.method.as_str()).collect();
    assert_eq!(methods, ["GET", "POST", "POST", "GET"]);
    for (at, token) in [(1, "refresh1"), (2, "refresh2")] {
        let sent = &seen[at];
        assert_eq!(sent.header("authorization"), None);
        assert!(
            sent.body.starts_with("grant_type=refresh_token&")
                && sent.body.contains(&format!("&refresh_token={token}&")),
            "{}",
            sent.body
        );
    }
    // Whoever logs in as somebody else is asked for a login of their own.
    valid.store(5, Ordering::SeqCst);
    let other = stub.repository(Credential::basic("eve", "canary-other"));
    other.resolve().await.unwrap();
    assert_eq!(service.seen()[4].method, "GET");
    valid.store(7, Ordering::SeqCst);
    other.resolve().await.unwrap();
    let last: Vec<_> = service.seen()[5..]
        .iter()
        .map(|seen| seen.method.clone())
        .collect();
    assert_eq!(last, ["POST", "GET"], "the login counts");
}

#[tokio::test]
async fn a_token_that_ran_out_is_replaced_once_for_all() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let (service, realm) = token_service(move |_| {
        let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
        Reply::new(200).json(&format!(r#"{{"token":"t{number}","expires_in":300}}"#))
    })
    .await;
    let bytes = manifest(b"x");
    let revoked = Arc::new(AtomicUsize::new(0));
    let valid = revoked.clone();
    let stub = Stub::plain(move |seen| match seen.header("authorization") {
        Some(given) if given == format!("Bearer t{}", valid.load(Ordering::SeqCst) + 1) => {
            manifest_reply(&bytes)
        }
        Some(_) => refused(&realm, "invalid_token"),
        None => bearer(&realm),
    })
    .await;
    let repository = stub.repository(bob());
    repository.resolve().await.unwrap();
    revoked.store(1, Ordering::SeqCst);
    let all = futures::future::join_all((0..8).map(|_| repository.resolve())).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(service.seen().len(), 2);
}

#[tokio::test]
async fn basic_where_it_is_asked_for() {
    let bytes = manifest(b"x");
    let stub = Stub::plain(move |seen| match seen.header("authorization") {
        Some("Basic Ym9iOmNhbmFyeS1wYXNzd29yZA==") => manifest_reply(&bytes),
        Some(_) => Reply::error(401, "UNAUTHORIZED", "incorrect password")
            .header("WWW-Authenticate", "Basic realm=r"),
        None => Reply::new(401).header("WWW-Authenticate", "Basic realm=r"),
    })
    .await;
    stub.repository(bob()).resolve().await.unwrap();
    let failure = stub
        .repository(Credential::basic("eve", "canary"))
        .resolve()
        .await
        .unwrap_err();
    assert_eq!(
        (failure.cause(), failure.step()),
        (Cause::WrongCredentials, Step::Authenticate)
    );
    assert!(
        failure.to_string().contains("user eve")
            && failure.to_string().contains("incorrect password"),
        "{failure}"
    );
    assert!(!words(&failure).contains("canary"));
    let failure = stub
        .repository(Credential::Anonymous)
        .resolve()
        .await
        .unwrap_err();
    assert_eq!(
        (failure.cause(), failure.step()),
        (Cause::NoCredentials, Step::Authenticate)
    );
}

#[tokio::test]
async fn a_login_that_may_not() {
    let (_service, realm) = token_service(|_| Reply::new(200).json(r#"{"token":"other"}"#)).await;
    let stub = registry(realm, "t1").await;
    for (credential, cause) in [
        (Credential::Anonymous, Cause::NoCredentials),
        (bob(), Cause::InsufficientPermission),
        (
            Credential::RegistryToken("canary".into()),
            Cause::WrongCredentials,
        ),
    ] {
        let failure = stub.repository(credential).resolve().await.unwrap_err();
        assert_eq!(
            (failure.cause(), failure.step()),
            (cause, Step::Authenticate),
            "{failure}"
        );
        if cause != Cause::WrongCredentials {
            assert!(
                failure.alternatives().contains(&Cause::RepositoryNotFound),
                "{failure:?}"
            );
        }
    }
}

#[tokio::test]
async fn answers_of_token_services() {
    for (reply, anonymous, with_login) in [
        (
            Reply::new(401).json(r#"{"details":"incorrect username or password"}"#),
            Cause::NoCredentials,
            Cause::WrongCredentials,
        ),
        (
            Reply::error(403, "DENIED", "access forbidden"),
            Cause::NoCredentials,
            Cause::InsufficientPermission,
        ),
        (
            Reply::error(401, "UNAUTHORIZED", "Your token has expired"),
            Cause::NoCredentials,
            Cause::ExpiredCredentials,
        ),
        (
            Reply::new(429).header("Retry-After", "99"),
            Cause::RateLimited,
            Cause::RateLimited,
        ),
        (Reply::new(500), Cause::RegistryError, Cause::RegistryError),
        (
            Reply::new(404),
            Cause::RegistryMisconfigured,
            Cause::RegistryMisconfigured,
        ),
        (
            Reply::new(200).body("<html><title>Login</title>"),
            Cause::RegistryMisconfigured,
            Cause::RegistryMisconfigured,
        ),
        (
            Reply::new(200).json("{}"),
            Cause::RegistryMisconfigured,
            Cause::RegistryMisconfigured,
        ),
        (
            Reply::new(200).body(vec![b'['; 2 << 20]),
            Cause::RegistryMisconfigured,
            Cause::RegistryMisconfigured,
        ),
    ] {
        let said = format!("{reply:?}").chars().take(200).collect::<String>();
        let (_service, realm) = token_service(move |_| reply.clone()).await;
        let stub = registry(realm, "t1").await;
        for (credential, cause) in [(Credential::Anonymous, anonymous), (bob(), with_login)] {
            let failure = stub.repository(credential).resolve().await.unwrap_err();
            assert_eq!(
                (failure.cause(), failure.step()),
                (cause, Step::Authenticate),
                "{said}: {failure}"
            );
            assert!(!words(&failure).contains("canary"), "{failure}");
        }
    }
}

#[tokio::test]
async fn a_token_service_that_is_not_there() {
    let dead = towline_lab::blackhole::refused().await.unwrap();
    let stub = registry(format!("http://{dead}/token?x=canary"), "t1").await;
    let failure = stub.repository(bob()).resolve().await.unwrap_err();
    assert_eq!(
        (failure.cause(), failure.step()),
        (Cause::TokenServiceUnreachable, Step::Authenticate)
    );
    assert_eq!(failure.endpoint(), Some(format!("http://{dead}").as_str()));
    assert_eq!(failure.others()[0].step(), Step::Connect);
    assert!(
        failure.chain().contains("connection refused"),
        "{}",
        failure.chain()
    );
    assert!(!words(&failure).contains("canary"), "{}", words(&failure));
}

#[tokio::test]
async fn a_token_service_that_failed_once() {
    let (service, realm) = token_service(|seen| {
        if seen.number == 1 {
            Reply::new(500)
        } else {
            Reply::new(200).json(r#"{"token":"t1"}"#)
        }
    })
    .await;
    let stub = registry(realm, "t1").await;
    stub.repository(bob()).resolve().await.unwrap();
    assert_eq!(service.seen().len(), 2);
}

#[tokio::test]
async fn a_401_without_a_challenge_is_asked_about() {
    let (_service, realm) = token_service(|_| Reply::new(200).json(r#"{"token":"t1"}"#)).await;
    let bytes = manifest(b"x");
    let stub = Stub::plain(
        move |seen| match (seen.path(), seen.header("authorization")) {
            ("/v2/", _) => Reply::new(401).header(
                "WWW-Authenticate",
                &format!(
                    r#"Bearer realm="{realm}",service="lab",scope="repository:user/image:pull""#
                ),
            ),
            (_, Some("Bearer t1")) => manifest_reply(&bytes),
            _ => Reply::new(401),
        },
    )
    .await;
    stub.repository(Credential::Anonymous)
        .resolve()
        .await
        .unwrap();
    assert_eq!(
        stub.asked(),
        [
            "GET /v2/team/app/manifests/1.0",
            "GET /v2/",
            "GET /v2/team/app/manifests/1.0"
        ]
    );

    let silent = Stub::plain(|_| Reply::new(401)).await;
    let failure = silent
        .repository(Credential::Anonymous)
        .resolve()
        .await
        .unwrap_err();
    assert_eq!(failure.cause(), Cause::NoCredentials);
    assert!(
        failure.to_string().contains("names no way to log in"),
        "{failure}"
    );
}

#[tokio::test]
async fn harbor_changes_its_mind_about_the_challenge() {
    let (_service, realm) = token_service(|_| Reply::new(200).json(r#"{"token":"t1"}"#)).await;
    let stub = Stub::plain(move |seen| match seen.header("authorization") {
        None => bearer(&realm),
        Some(_) => Reply::error(
            401,
            "UNAUTHORIZED",
            "unauthorized to access repository: team/app, action: pull",
        )
        .header("WWW-Authenticate", r#"Basic realm="harbor""#),
    })
    .await;
    let failure = stub
        .repository(Credential::Anonymous)
        .resolve()
        .await
        .unwrap_err();
    assert_eq!(failure.cause(), Cause::NoCredentials, "{failure}");
}

#[tokio::test]
async fn other_peoples_realms_get_no_login() {
    let (service, _) = token_service(|_| Reply::new(200).json(r#"{"token":"t1"}"#)).await;
    let (server, mut told) = crate::network::names(
        towline_lab::dns::Table::new()
            .with(
                "registry.corp.test",
                towline_lab::dns::Answer::Addresses(vec!["127.0.0.1".parse().unwrap()]),
            )
            .with(
                "evil.test",
                towline_lab::dns::Answer::Addresses(vec!["127.0.0.1".parse().unwrap()]),
            ),
    )
    .await;
    told.plain_http = towline_distribution::PlainHttp::All;
    let realm = format!("http://evil.test:{}/token", service.port());
    let stub = registry(realm, "t1").await;
    let image = format!("registry.corp.test:{}/team/app:1", stub.port());
    let client = client(told);
    let failure = repository(&client, &image, bob())
        .resolve()
        .await
        .unwrap_err();
    assert_eq!(
        (failure.cause(), failure.step()),
        (Cause::RegistryMisconfigured, Step::Authenticate),
        "{failure}"
    );
    assert!(failure.to_string().contains("it was not sent"), "{failure}");
    assert!(service.seen().is_empty());
    // Without a login there is nothing to lose.
    repository(&client, &image, Credential::Anonymous)
        .resolve()
        .await
        .unwrap();
    drop(server);
}

#[tokio::test]
async fn a_trusted_realm_gets_it() {
    let (service, realm) = token_service(|_| Reply::new(200).json(r#"{"token":"t1"}"#)).await;
    let stub = registry(realm, "t1").await;
    let told = Options {
        trusted_realms: vec!["127.0.0.1".to_owned()],
        ..options()
    };
    repository(&client(told), &stub.image(), bob())
        .resolve()
        .await
        .unwrap();
    assert_eq!(service.seen().len(), 1);
}

#[tokio::test]
async fn realms_that_are_no_place_to_go() {
    for (realm, word) in [
        ("ftp://x/", "neither http nor https"),
        ("http://good@127.0.0.1:1/", "user name"),
        ("token", "neither http nor https"),
    ] {
        let stub = Stub::plain(move |_| bearer(realm)).await;
        let failure = stub.repository(bob()).resolve().await.unwrap_err();
        assert_eq!(
            (failure.cause(), failure.step()),
            (Cause::RegistryMisconfigured, Step::Authenticate)
        );
        assert!(failure.to_string().contains(word), "{failure}");
    }
}

/// Docker Hub as it answers for a repository that is missing or private: a token that allows nothing, and then no.
#[test]
fn docker_hub_hides_what_is_missing() {
    crate::stub::elsewhere(|| async {
        let stub = Stub::plain_on_port_80(|seen| match (seen.path(), seen.header("authorization")) {
            ("/token", _) => Reply::new(200).json(r#"{"token":"t1","access_token":"t1","expires_in":300}"#),
            (_, None) => Reply::new(401).header(
                "WWW-Authenticate",
                r#"Bearer realm="http://auth.docker.io/token",service="registry.docker.io",scope="repository:library/shop:pull""#,
            ),
            (_, Some(_)) => Reply::error(401, "UNAUTHORIZED", "authentication required").header(
                "WWW-Authenticate",
                r#"Bearer realm="http://auth.docker.io/token",service="registry.docker.io",scope="repository:library/shop:pull",error="insufficient_scope""#,
            ),
        })
        .await;
        let here = || towline_lab::dns::Answer::Addresses(vec!["127.0.0.1".parse().unwrap()]);
        let table = towline_lab::dns::Table::new()
            .with("registry-1.docker.io", here())
            .with("auth.docker.io", here());
        let (_server, told) = crate::network::names(table).await;
        let client = client(Options {
            plain_http: towline_distribution::PlainHttp::All,
            ..told
        });
        for (image, credential, cause, prefix) in [
            ("shop:1", Credential::Anonymous, Cause::NoCredentials, true),
            (
                "docker.io/library/shop:1",
                Credential::Anonymous,
                Cause::NoCredentials,
                false,
            ),
            ("shop:1", bob(), Cause::InsufficientPermission, true),
        ] {
            let failure = repository(&client, image, credential)
                .resolve()
                .await
                .unwrap_err();
            assert_eq!(
                (failure.cause(), failure.step()),
                (cause, Step::Authenticate),
                "{failure}"
            );
            assert_eq!(failure.endpoint(), Some("http://registry-1.docker.io"));
            let open = failure.alternatives();
            assert!(open.contains(&Cause::RepositoryNotFound), "{open:?}");
            assert_eq!(
                open.contains(&Cause::RegistryPrefixMissing),
                prefix,
                "{image} {open:?}"
            );
        }
        assert!(
            stub.asked()
                .contains(&"GET /v2/library/shop/manifests/1".to_owned())
        );
    });
}
