//! Pulls replayed against a real registry, with faults in front of it.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod blobs;
mod channel;
mod deep;
mod silence;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use towline_cause::{Cause, Step};
use towline_distribution::{Client, Options, Retries, Timeouts};
use towline_keyring::{Candidate, Credential, Origin, Secret};
use towline_lab::faults::{self, Fault, Proxy, Rule};
use towline_lab::image::{Builder, Image, Index, Layer, Platform};
use towline_lab::token;
use towline_oci::media_type;
use towline_probe::{Outcome, Report, Request, run};
use towline_registry::access::{Access, Rule as AccessRule, Users, Who};
use towline_registry::{Handle, Service};

struct Registry {
    handle: Handle,
    _folder: tempfile::TempDir,
}

impl Registry {
    /// A registry where bob (password `canary-password`) may do everything, eve may log in, and everyone pulls from `public/`.
    async fn start() -> Self {
        let mut users = Users::default();
        users
            .insert("bob", &Secret::new("canary-password"))
            .unwrap();
        users.insert("eve", &Secret::new("canary-eve")).unwrap();
        let bob = || Who::Users(vec!["bob".to_owned()]);
        let folder = tempfile::tempdir().unwrap();
        let options = towline_registry::Options {
            access: Access {
                rules: vec![
                    AccessRule::new("public/*", Who::Anyone, bob()),
                    AccessRule::new("*", bob(), bob()),
                ],
                users,
            },
            ..towline_registry::Options::new(folder.path())
        };
        Self {
            handle: Service::start(options).await.unwrap(),
            _folder: folder,
        }
    }

    fn address(&self) -> SocketAddr {
        self.handle.local_addr()
    }

    async fn push(&self, repository: &str, tag: &str, image: &Image) {
        image
            .push(
                self.address(),
                repository,
                tag,
                Some(("bob", "canary-password")),
            )
            .await
            .unwrap();
    }
}

fn image(content: &str) -> Image {
    Builder::new()
        .layer(Layer::new().file("a", content))
        .build()
}

fn secret(name: &str, user: &str, password: &str) -> Candidate {
    Candidate {
        credential: Credential::basic(user, password),
        origin: Origin::PodSecret {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            key: "registry".to_owned(),
        },
    }
}

fn options() -> Options {
    towline_distribution::tls::install_provider();
    let short = Duration::from_secs(2);
    Options {
        system_roots: false,
        timeouts: Timeouts {
            dns: short,
            connect: short,
            tls: short,
            headers: short,
            idle: short,
        },
        retries: Retries {
            attempts: 2,
            base: Duration::from_millis(5),
            longest: Duration::from_millis(50),
            patience: Duration::ZERO,
        },
        ..Options::default()
    }
}

fn client() -> Client {
    Client::new(options()).unwrap()
}

async fn probe(image: String, candidates: Vec<Candidate>) -> Report {
    let request = Request {
        candidates,
        ..Request::new(image)
    };
    let report = run(&client(), request).await;
    check(&report);
    report
}

/// What holds for every report.
fn check(report: &Report) {
    let text = serde_json::to_string(report).unwrap();
    assert!(!text.contains("canary"), "{text}");
    assert!(!text.contains("Y2FuYXJ5"), "{text}");
    let again: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(again, *report);
    let steps: Vec<Step> = report.steps.iter().map(|one| one.step).collect();
    let mut sorted = steps.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(steps, sorted, "every step once and in order");
    let failed = report
        .steps
        .iter()
        .filter(|one| one.outcome == Outcome::Failed)
        .count();
    assert_eq!(failed, usize::from(report.failure.is_some()), "{text}");
}

fn outcome(report: &Report, step: Step) -> Outcome {
    report
        .steps
        .iter()
        .find(|one| one.step == step)
        .unwrap()
        .outcome
}

fn text(report: &Report, step: Step) -> &str {
    &report
        .steps
        .iter()
        .find(|one| one.step == step)
        .unwrap()
        .text
}

fn cause(report: &Report) -> Option<(Cause, Step)> {
    report
        .failure
        .as_ref()
        .map(|failure| (failure.cause(), failure.step))
}

#[tokio::test]
async fn a_pull_that_works() {
    let registry = Registry::start().await;
    registry.push("public/app", "1.0", &image("x")).await;
    let report = probe(format!("{}/public/app:1.0", registry.address()), vec![]).await;
    assert_eq!(cause(&report), None, "{:?}", report.failure);
    assert!(report.would_pull());
    assert_eq!(report.anonymous, Some(true));
    assert_eq!(report.kind, "ProbeReport");
    assert!(report.digest.is_some() && report.size.is_some_and(|size| size > 0));
    assert_eq!(outcome(&report, Step::Tls), Outcome::Skipped);
    for step in [
        Step::Reference,
        Step::Dns,
        Step::Connect,
        Step::Authenticate,
        Step::Resolve,
        Step::Platform,
        Step::Fetch,
    ] {
        assert_eq!(outcome(&report, step), Outcome::Ok, "{step}");
    }
    assert!(
        text(&report, Step::Fetch).starts_with("all 2 blobs are there"),
        "{}",
        text(&report, Step::Fetch)
    );
}

#[tokio::test]
async fn credentials_are_tried_in_order_and_named() {
    let registry = Registry::start().await;
    registry.push("team/app", "1.0", &image("x")).await;
    let image = format!("{}/team/app:1.0", registry.address());
    let stale = || secret("stale", "bob", "canary-old");
    let good = || secret("regcred", "bob", "canary-password");

    let report = probe(image.clone(), vec![stale(), good()]).await;
    assert_eq!(cause(&report), None, "{:?}", report.failure);
    assert_eq!(report.anonymous, Some(false));
    assert_eq!(
        text(&report, Step::Authenticate),
        "user bob from secret shop/stale, entry \"registry\": refused (WrongCredentials); \
         user bob from secret shop/regcred, entry \"registry\": accepted; anonymous: refused (NoCredentials)"
    );

    let report = probe(image.clone(), vec![stale()]).await;
    assert_eq!(
        cause(&report),
        Some((Cause::WrongCredentials, Step::Authenticate))
    );
    let report = probe(image.clone(), vec![]).await;
    assert_eq!(
        cause(&report),
        Some((Cause::NoCredentials, Step::Authenticate))
    );
    let report = probe(image, vec![secret("eve", "eve", "canary-eve")]).await;
    assert_eq!(
        cause(&report),
        Some((Cause::InsufficientPermission, Step::Authenticate))
    );
}

#[tokio::test]
async fn a_stale_login_does_no_harm_where_none_is_asked_for() {
    let registry = Registry::start().await;
    registry.push("public/app", "1.0", &image("x")).await;
    let image = format!("{}/public/app:1.0", registry.address());
    let report = probe(image, vec![secret("stale", "bob", "canary-old")]).await;
    // The registry asks no login of anyone here, so none is sent.
    assert_eq!(cause(&report), None);
    assert_eq!(report.anonymous, Some(true));
}

#[tokio::test]
async fn a_missing_tag_and_those_like_it() {
    let registry = Registry::start().await;
    for tag in ["1.1", "1.0", "2.0", "latest"] {
        registry.push("team/app", tag, &image("x")).await;
    }
    let good = secret("regcred", "bob", "canary-password");
    let report = probe(format!("{}/team/app:1.O", registry.address()), vec![good]).await;
    assert_eq!(cause(&report), Some((Cause::TagNotFound, Step::Resolve)));
    assert_eq!(
        report.tags_near.first().map(String::as_str),
        Some("1.0"),
        "{:?}",
        report.tags_near
    );
    assert_eq!(outcome(&report, Step::Authenticate), Outcome::Ok);
    assert_eq!(outcome(&report, Step::Platform), Outcome::Skipped);
}

#[tokio::test]
async fn a_missing_repository_and_those_like_it() {
    let registry = Registry::start().await;
    registry.push("team/app", "1.0", &image("x")).await;
    registry.push("other/thing", "1.0", &image("x")).await;
    let wanted = format!("{}/team/aap:1.0", registry.address());
    let login = secret("good", "bob", "canary-password");
    let report = probe(wanted, vec![login]).await;
    let absent = Some((Cause::RepositoryNotFound, Step::Resolve));
    assert_eq!(cause(&report), absent, "{:?}", report.failure);
    assert_eq!(report.repositories_near, ["team/app"]);
}

#[tokio::test]
async fn platforms() {
    let registry = Registry::start().await;
    let built = |architecture| {
        Builder::new()
            .platform(Platform::linux(architecture))
            .layer(Layer::new().file("a", architecture))
            .build()
    };
    registry.push("public/one", "1", &built("s390x")).await;
    registry
        .push(
            "public/many",
            "1",
            &Index::new()
                .image(built("s390x"))
                .image(built("riscv64"))
                .build(),
        )
        .await;
    for repository in ["one", "many"] {
        let report = probe(
            format!("{}/public/{repository}:1", registry.address()),
            vec![],
        )
        .await;
        assert_eq!(
            cause(&report),
            Some((Cause::PlatformMismatch, Step::Platform)),
            "{:?}",
            report.failure
        );
        assert!(!report.platforms.is_empty());
        assert!(
            text(&report, Step::Platform).contains("linux/s390x"),
            "{}",
            text(&report, Step::Platform)
        );
    }
    let request = Request {
        platform: towline_oci::Platform::new("linux", "riscv64"),
        ..Request::new(format!("{}/public/many:1", registry.address()))
    };
    let report = run(&client(), request).await;
    check(&report);
    assert_eq!(cause(&report), None, "{:?}", report.failure);
}

#[tokio::test]
async fn a_stale_login_breaks_what_is_public_where_a_token_is_asked_for() {
    let registry = Registry::start().await;
    registry.push("public/app", "1.0", &image("x")).await;
    let tokens = token::Server::start(token::Options {
        users: BTreeMap::from([("bob".to_owned(), "canary-password".to_owned())]),
        public: vec!["public/*".to_owned()],
        service: "lab".to_owned(),
        ..token::Options::default()
    })
    .await
    .unwrap();
    let proxy = Proxy::start(faults::Options {
        upstream: Some(registry.address()),
        bearer: Some(tokens.issuer()),
        ..faults::Options::default()
    })
    .await
    .unwrap();
    let image = format!("{}/public/app:1.0", proxy.local_addr());
    let report = probe(image.clone(), vec![secret("stale", "bob", "canary-old")]).await;
    assert_eq!(
        cause(&report),
        Some((Cause::WrongCredentials, Step::Authenticate)),
        "{:?}",
        report.failure
    );
    assert_eq!(report.anonymous, Some(true));
    let step = report
        .steps
        .iter()
        .find(|one| one.step == Step::Authenticate)
        .unwrap();
    assert_eq!(step.facts["anonymous"], "works");
    assert_eq!(step.facts["realm"], tokens.issuer().realm());
    let report = probe(image, vec![secret("good", "bob", "canary-password")]).await;
    assert_eq!(cause(&report), None, "{:?}", report.failure);

    tokens.set(token::Behaviour::Status { status: 500 });
    let report = probe(format!("{}/public/app:1.0", proxy.local_addr()), vec![]).await;
    assert_eq!(
        cause(&report),
        Some((Cause::RegistryError, Step::Authenticate)),
        "{:?}",
        report.failure
    );
    drop(tokens);
    let report = probe(format!("{}/public/app:1.0", proxy.local_addr()), vec![]).await;
    assert_eq!(
        cause(&report),
        Some((Cause::TokenServiceUnreachable, Step::Authenticate)),
        "{:?}",
        report.failure
    );
    assert_eq!(report.anonymous, None, "nobody said no");
}

/// A replay with faults between client and registry.
async fn with_faults(rules: Vec<Rule>) -> Report {
    let registry = Registry::start().await;
    registry.push("public/app", "1.0", &image("x")).await;
    let proxy = Proxy::before(registry.address(), rules).await.unwrap();
    probe(format!("{}/public/app:1.0", proxy.local_addr()), vec![]).await
}

#[tokio::test]
async fn faults_in_front_of_the_registry() {
    let manifests = |fault| vec![Rule::on("/v2/*/manifests/*", fault)];
    let blobs = |fault| vec![Rule::on("/v2/*/blobs/*", fault)];
    let error = |status, code: &str| Fault::Error {
        status,
        code: code.to_owned(),
        message: "said so".to_owned(),
    };
    let dead = towline_lab::blackhole::refused().await.unwrap();
    for (name, rules, want) in [
        ("nothing", vec![], None),
        (
            "429",
            manifests(Fault::RateLimit {
                retry_after: Some("90".to_owned()),
            }),
            Some((Cause::RateLimited, Step::Resolve)),
        ),
        (
            "500",
            manifests(error(500, "UNKNOWN")),
            Some((Cause::RegistryError, Step::Resolve)),
        ),
        (
            "portal",
            vec![Rule::on("*", Fault::HtmlPage)],
            Some((Cause::NotARegistry, Step::Resolve)),
        ),
        (
            "schema 1",
            manifests(Fault::Schema1),
            Some((Cause::ManifestUnsupported, Step::Resolve)),
        ),
        (
            "reset",
            manifests(Fault::Reset),
            Some((Cause::ConnectionReset, Step::Resolve)),
        ),
        (
            "blob gone",
            blobs(error(404, "BLOB_UNKNOWN")),
            Some((Cause::BlobMissing, Step::Fetch)),
        ),
        (
            "storage gone",
            blobs(Fault::Redirect {
                status: 307,
                location: format!("http://{dead}{{path}}"),
            }),
            Some((Cause::BlobHostUnreachable, Step::Fetch)),
        ),
    ] {
        // An image for one platform has its config read in the platform's step: what blobs do shows there already.
        let report = with_faults(rules).await;
        assert_eq!(cause(&report), want, "{name}: {:?}", report.failure);
    }
}

#[tokio::test]
async fn nothing_there_at_all() {
    let dead = towline_lab::blackhole::refused().await.unwrap();
    let report = probe(
        format!("{dead}/a:1"),
        vec![secret("s", "bob", "canary-password")],
    )
    .await;
    assert_eq!(
        cause(&report),
        Some((Cause::RegistryIsLocalhost, Step::Connect))
    );
    assert!(report.tried.is_empty(), "no credential was sent anywhere");
    assert_eq!(outcome(&report, Step::Dns), Outcome::Ok);
    assert_eq!(outcome(&report, Step::Authenticate), Outcome::Skipped);

    let report = probe("https://registry/app".to_owned(), vec![]).await;
    assert_eq!(
        cause(&report),
        Some((Cause::InvalidReference, Step::Reference))
    );
    assert_eq!(outcome(&report, Step::Dns), Outcome::Skipped);
}

#[tokio::test]
async fn an_artifact_is_no_image() {
    let registry = Registry::start().await;
    let client = client();
    let reference =
        towline_oci::Reference::parse(&format!("{}/public/chart:1", registry.address())).unwrap();
    let bob = Credential::basic("bob", "canary-password");
    let repository = client.repository(&reference, bob, towline_distribution::Trace::default());
    let config = towline_oci::Descriptor::of("application/vnd.cncf.helm.config.v1+json", b"{}");
    repository
        .push_blob(&config, b"{}".as_slice().into())
        .await
        .unwrap();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": {"mediaType": config.media_type, "digest": config.digest, "size": 2}, "layers": [],
    });
    repository
        .push_manifest("1", media_type::OCI_MANIFEST, manifest.to_string().into())
        .await
        .unwrap();
    let report = probe(reference.to_string(), vec![]).await;
    assert_eq!(
        cause(&report),
        Some((Cause::NotAnImage, Step::Resolve)),
        "{:?}",
        report.failure
    );
    assert!(report.failure.unwrap().detail.contains("helm"));
}

#[tokio::test]
async fn the_budget_is_kept() {
    let registry = Registry::start().await;
    registry.push("public/app", "1.0", &image("x")).await;
    let proxy = Proxy::before(
        registry.address(),
        vec![Rule::on("/v2/*/manifests/*", Fault::Stall)],
    )
    .await
    .unwrap();
    let request = Request {
        budget: Duration::from_millis(400),
        ..Request::new(format!("{}/public/app:1.0", proxy.local_addr()))
    };
    let start = Instant::now();
    let report = run(&client(), request).await;
    assert!(start.elapsed() < Duration::from_secs(2));
    check(&report);
    assert_eq!(
        cause(&report),
        Some((Cause::DeadlineExceeded, Step::Authenticate))
    );
    assert!(!report.facts.is_empty());
}

#[tokio::test]
async fn a_registry_that_takes_the_connection_and_says_nothing_is_named_so() {
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = deaf.local_addr().unwrap();
    let client = Client::new(Options::default()).unwrap();
    for (silence, budget, want) in [
        (
            Duration::from_millis(300),
            Duration::from_secs(30),
            [(Cause::ConnectionTimeout, Step::Authenticate)].as_slice(),
        ),
        // Also where the whole time runs out: what went well is not what stopped it. TLS is tried first.
        (
            Duration::from_secs(30),
            Duration::from_millis(300),
            &[
                (Cause::DeadlineExceeded, Step::Tls),
                (Cause::DeadlineExceeded, Step::Authenticate),
            ],
        ),
    ] {
        let request = Request {
            silence,
            budget,
            ..Request::new(format!("{address}/a/b:v1"))
        };
        let report = run(&client, request).await;
        let found = cause(&report).unwrap();
        assert!(want.contains(&found), "{:?}", report.failure);
        let connect = report.steps.iter().find(|one| one.step == Step::Connect);
        assert_eq!(connect.unwrap().outcome, Outcome::Ok, "{:?}", report.steps);
    }
}
