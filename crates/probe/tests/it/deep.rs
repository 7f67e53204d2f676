//! The bytes of an image, downloaded and verified: only where that was asked for, within bounds, and with what is wrong of them.

use std::sync::Mutex;
use std::time::Duration;

use towline_cause::{Cause, Step};
use towline_distribution::{Client, Options};
use towline_lab::faults::{Fault, Nth, Proxy, Rule};
use towline_lab::image::Image;
use towline_probe::{Deep, Outcome, Progress, Report, Request, run_watched};

use crate::{Registry, cause, check, image, outcome, text};

fn content() -> Image {
    image(&"x".repeat(50_000))
}

/// A replay with faults between client and registry, and how far it was told to be.
async fn deep_within(
    silence: u64,
    rules: Vec<Rule>,
    deep: Option<Deep>,
) -> (Report, Vec<Progress>, Proxy) {
    let registry = Registry::start().await;
    registry.push("public/app", "1.0", &content()).await;
    let proxy = Proxy::before(registry.address(), rules).await.unwrap();
    let request = Request {
        deep,
        silence: Duration::from_secs(silence),
        ..Request::new(format!("{}/public/app:1.0", proxy.local_addr()))
    };
    let told = Mutex::new(Vec::new());
    let watch = |progress: &Progress| told.lock().unwrap().push(progress.clone());
    towline_distribution::tls::install_provider();
    let client = Client::new(Options {
        system_roots: false,
        ..Options::default()
    });
    let report = run_watched(&client.unwrap(), request, &watch).await;
    check(&report);
    (report, told.into_inner().unwrap(), proxy)
}

async fn deep(rules: Vec<Rule>, deep: Option<Deep>) -> (Report, Vec<Progress>, Proxy) {
    deep_within(30, rules, deep).await
}

/// GETs of blobs, those of one byte aside.
fn downloads(proxy: &Proxy) -> usize {
    let seen = proxy.seen();
    let of_blob = seen
        .iter()
        .filter(|one| one.method == "GET" && one.path.contains("/blobs/"));
    of_blob.count()
}

#[tokio::test]
async fn no_layer_comes_unless_that_was_asked_for() {
    let (report, told, proxy) = deep(vec![], None).await;
    assert!(report.would_pull(), "{:?}", report.failure);
    assert!(told.is_empty());
    // The config of an image for one platform tells its platform.
    assert_eq!(downloads(&proxy), 1);
    let (report, told, proxy) = deep(vec![], Some(Deep::default())).await;
    assert!(report.would_pull(), "{:?}", report.failure);
    assert_eq!(downloads(&proxy), 3);
    let size = report.size.unwrap();
    assert_eq!(
        text(&report, Step::Verify),
        format!("all 2 blobs came, {size} bytes, each with its digest")
    );
    let last = told.last().unwrap();
    assert_eq!((last.blob, last.blobs), (2, 2));
    assert_eq!((last.bytes, last.size), (size, size));
    assert!(told.windows(2).all(|pair| pair[0].bytes <= pair[1].bytes));
}

#[tokio::test]
async fn what_is_wrong_of_the_bytes_is_found() {
    // The first GET of a blob is the config's, for the platform; then it comes again, and the layer after it.
    let layer = |fault| {
        vec![
            Rule::on("/v2/*/blobs/*", fault)
                .method("GET")
                .nth(Nth::From(3)),
        ]
    };
    for (name, fault, want) in [
        (
            "another byte",
            Fault::Corrupt { at: 5 },
            (Cause::DigestMismatch, Step::Verify),
        ),
        (
            "reset",
            Fault::ResetBody { after: 0 },
            (Cause::ConnectionReset, Step::Fetch),
        ),
        (
            "silence",
            Fault::StallBody { after: 7 },
            (Cause::PullStalled, Step::Fetch),
        ),
        (
            "no answer",
            Fault::Stall,
            (Cause::ConnectionTimeout, Step::Fetch),
        ),
        (
            "too long",
            Fault::Pad { bytes: 9 },
            (Cause::DigestMismatch, Step::Verify),
        ),
    ] {
        let (report, _, _) = deep(layer(fault.clone()), None).await;
        assert!(report.would_pull(), "{name}: {:?}", report.failure);
        let silent = matches!(fault, Fault::Stall | Fault::StallBody { .. });
        let silence = if silent { 4 } else { 30 };
        let (report, _, _) = deep_within(silence, layer(fault), Some(Deep::default())).await;
        assert_eq!(cause(&report), Some(want), "{name}: {:?}", report.failure);
    }
}

#[tokio::test]
async fn the_bounds_are_kept_and_told() {
    let config = content().blobs.last().unwrap().bytes.len() as u64;
    let bounds = Deep {
        most_bytes: config,
        ..Deep::default()
    };
    let (report, _, proxy) = deep(vec![], Some(bounds)).await;
    assert!(report.would_pull(), "{:?}", report.failure);
    assert_eq!(downloads(&proxy), 2, "the config twice, the layer never");
    assert_eq!(outcome(&report, Step::Verify), Outcome::Ok);
    let told = text(&report, Step::Verify);
    assert!(
        told.starts_with("1 of 2 blobs came")
            && told.ends_with(&format!("the bound of {config} bytes")),
        "{told}"
    );
}
