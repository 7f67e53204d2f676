//! Each fault as a client meets it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use base64::Engine as _;
use towline_lab::faults::{Fault, Nth, Options, Proxy, Rule};
use towline_lab::token;

use crate::http::get;

/// A proxy in front of another one that answers everything with ten digits.
async fn pair(rules: Vec<Rule>) -> (Proxy, Proxy) {
    let headers = BTreeMap::from([("docker-content-digest".to_owned(), "sha256:true".to_owned())]);
    let answer = Fault::Answer {
        status: 200,
        headers,
        body: "0123456789".to_owned(),
    };
    let options = Options {
        rules: vec![Rule::on("*", answer)],
        ..Options::default()
    };
    let registry = Proxy::start(options).await.unwrap();
    let proxy = Proxy::before(registry.local_addr(), rules).await.unwrap();
    (registry, proxy)
}

#[tokio::test]
async fn without_a_rule_everything_passes() {
    let (registry, proxy) = pair(Vec::new()).await;
    let answer = get(
        proxy.local_addr(),
        "/v2/a/blobs/x?y=z",
        "Range: bytes=1-\r\n",
    )
    .await;
    assert_eq!((answer.status(), answer.body()), (200, "0123456789"));
    let seen = registry.seen();
    assert_eq!(
        (seen[0].method.as_str(), seen[0].path.as_str()),
        ("GET", "/v2/a/blobs/x?y=z")
    );
    assert_eq!(seen[0].headers["range"], "bytes=1-");
    assert_eq!(proxy.seen()[0].status, Some(200));
}

#[tokio::test]
async fn bodies_are_cut_reset_and_changed() {
    let rules = vec![
        Rule::on("/close", Fault::Close),
        Rule::on("/reset", Fault::Reset),
        Rule::on("/truncate", Fault::Truncate { after: 4 }),
        Rule::on("/reset-body", Fault::ResetBody { after: 4 }),
        Rule::on("/corrupt", Fault::Corrupt { at: 2 }),
        Rule::on(
            "/append",
            Fault::Append {
                text: "more".to_owned(),
            },
        ),
        Rule::on("/digest", Fault::WrongDigest),
        Rule::on("/once", Fault::HtmlPage).nth(Nth::First(1)),
    ];
    let (_registry, proxy) = pair(rules).await;
    let ask = async |path: &str| get(proxy.local_addr(), path, "").await;
    let close = ask("/close").await;
    assert!(close.text.is_empty() && close.end.is_ok(), "{close:?}");
    let reset = ask("/reset").await;
    assert_eq!(reset.end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let truncated = ask("/truncate").await;
    assert!(truncated.end.is_ok());
    assert_eq!(truncated.body(), "0123");
    let reset = ask("/reset-body").await;
    assert_eq!(
        reset.end.as_ref().unwrap_err().kind(),
        ErrorKind::ConnectionReset,
        "{reset:?}"
    );
    assert!(ask("/corrupt").await.body().starts_with("01"));
    assert!(!ask("/corrupt").await.body().contains('2'));
    assert_eq!(ask("/append").await.body(), "0123456789more");
    assert!(ask("/digest").await.text.contains("sha256:0000"));
    assert!(ask("/once").await.text.contains("text/html"));
    assert_eq!(ask("/once").await.body(), "0123456789");
}

#[tokio::test]
async fn answers_wait_or_never_come() {
    let rules = vec![
        Rule::on("/delay", Fault::Delay { millis: 60 }),
        Rule::on("/stall", Fault::Stall),
        Rule::on("/stall-body", Fault::StallBody { after: 3 }),
    ];
    let (_registry, proxy) = pair(rules).await;
    let before = Instant::now();
    assert_eq!(
        get(proxy.local_addr(), "/delay", "").await.body(),
        "0123456789"
    );
    assert!(before.elapsed() >= Duration::from_millis(60));
    for path in ["/stall", "/stall-body"] {
        let waiting = get(proxy.local_addr(), path, "");
        assert!(
            tokio::time::timeout(Duration::from_millis(100), waiting)
                .await
                .is_err(),
            "{path}"
        );
    }
}

#[tokio::test]
async fn tokens_are_asked_for_and_checked() {
    let server = token::Server::start(token::Options {
        users: BTreeMap::from([("ann".to_owned(), "secret".to_owned())]),
        public: vec!["open/*".to_owned()],
        service: "lab".to_owned(),
        ..token::Options::default()
    })
    .await
    .unwrap();
    let (registry, _) = pair(Vec::new()).await;
    let options = Options {
        upstream: Some(registry.local_addr()),
        bearer: Some(server.issuer()),
        ..Options::default()
    };
    let proxy = Proxy::start(options).await.unwrap();
    let refused = get(proxy.local_addr(), "/v2/shut/a/manifests/v1", "").await;
    assert_eq!(refused.status(), 401);
    assert!(
        refused.text.contains("scope=\"repository:shut/a:pull\""),
        "{}",
        refused.text
    );

    let token = async |scope: &str, login: Option<&str>| {
        let header = login.map_or_else(String::new, |login| {
            format!(
                "Authorization: Basic {}\r\n",
                base64::engine::general_purpose::STANDARD.encode(login)
            )
        });
        let answer = get(
            server.local_addr(),
            &format!("/token?service=lab&scope={scope}"),
            &header,
        )
        .await;
        let body: serde_json::Value = serde_json::from_str(answer.body()).unwrap_or_default();
        (
            answer.status(),
            body["token"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let status = async |path: &str, token: &str| {
        get(
            proxy.local_addr(),
            path,
            &format!("Authorization: Bearer {token}\r\n"),
        )
        .await
        .status()
    };
    let (_, open) = token("repository:open/a:pull", None).await;
    assert_eq!(status("/v2/open/a/manifests/v1", &open).await, 200);
    let (_, anonymous) = token("repository:shut/a:pull", None).await;
    assert_eq!(status("/v2/shut/a/manifests/v1", &anonymous).await, 401);
    let (_, ann) = token("repository:shut/a:pull", Some("ann:secret")).await;
    assert_eq!(status("/v2/shut/a/manifests/v1", &ann).await, 200);
    assert_eq!(
        token("repository:shut/a:pull", Some("ann:wrong")).await.0,
        401
    );
    server.set(token::Behaviour::Status { status: 503 });
    assert_eq!(token("repository:open/a:pull", None).await.0, 503);
    server.issuer().revoke_all();
    assert_eq!(status("/v2/open/a/manifests/v1", &open).await, 401);
}
