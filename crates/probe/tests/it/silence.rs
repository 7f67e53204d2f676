//! A registry that takes a request and says nothing costs the silence that is allowed, once, and is named at the step where it is silent.

use std::time::{Duration, Instant};

use towline_cause::{Cause, Step};
use towline_distribution::{Client, Options};
use towline_lab::faults::{Fault, Proxy, Rule};
use towline_probe::{Request, run};

use crate::{Registry, cause, check, image, secret};

#[tokio::test]
async fn silence_is_waited_for_once() {
    towline_distribution::tls::install_provider();
    let registry = Registry::start().await;
    registry.push("public/app", "1.0", &image("x")).await;
    // As a user's client is: it waits 30 s for an answer, and asks again.
    let client = Client::new(Options::default()).unwrap();
    let silence = Duration::from_secs(3);
    for (path, fault, want) in [
        (
            "/v2/",
            Fault::Stall,
            (Cause::ConnectionTimeout, Step::Authenticate),
        ),
        (
            "/v2/*/manifests/*",
            Fault::Stall,
            (Cause::ConnectionTimeout, Step::Resolve),
        ),
        (
            "/v2/*/manifests/*",
            Fault::StallBody { after: 9 },
            (Cause::PullStalled, Step::Resolve),
        ),
    ] {
        let proxy = Proxy::before(registry.address(), vec![Rule::on(path, fault)])
            .await
            .unwrap();
        let request = Request {
            silence,
            candidates: vec![
                secret("a", "bob", "canary-a"),
                secret("b", "eve", "canary-b"),
            ],
            ..Request::new(format!("{}/public/app:1.0", proxy.local_addr()))
        };
        let start = Instant::now();
        let report = run(&client, request).await;
        check(&report);
        assert_eq!(cause(&report), Some(want), "{path}: {:?}", report.failure);
        // Far below what the client by itself would wait, on however slow a machine.
        assert!(
            start.elapsed() < Duration::from_secs(25),
            "{:?}",
            start.elapsed()
        );
        let detail = &report.failure.as_ref().unwrap().detail;
        assert!(detail.contains("3 s"), "{detail}");
        let asked = proxy.seen();
        let silent = asked.iter().filter(|one| one.path.contains("/manifests/"));
        assert!(silent.count() <= 2, "{asked:?}");
    }
}
