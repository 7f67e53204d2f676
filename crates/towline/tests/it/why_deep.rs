//! `towline why --deep`: bytes that came wrong are proven, and nobody downloads any unless that was asked for.

use serde_json::Value;
use towline_lab::faults::{Fault, Nth, Proxy, Rule};

use crate::support::program::{text, towline};
use crate::support::registry::{OurRegistry, hello, push};

#[test]
fn bytes_are_downloaded_only_where_that_is_asked_for() {
    let registry = OurRegistry::start();
    push(&hello("x"), registry.address, "team/app", "v1", None);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    // The config comes once for the platform, and once more with the bytes; what follows is the layer.
    let spoilt = Rule::on("/v2/*/blobs/*", Fault::Corrupt { at: 5 })
        .method("GET")
        .nth(Nth::From(3));
    for (more, code, cause) in [(&[][..], 0, None), (&["--deep"], 1, Some("DigestMismatch"))] {
        let proxy = Proxy::before(registry.address, vec![spoilt.clone()]);
        let proxy = runtime.block_on(proxy).unwrap();
        let image = format!("{}/team/app:v1", proxy.local_addr());
        let output = towline()
            .args(["why", &image, "-o", "json"])
            .args(more)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        crate::support::schema::check(&answer);
        assert_eq!(answer["cause"].as_str(), cause, "{answer}");
        let seen = proxy.seen();
        let downloads = seen
            .iter()
            .filter(|one| one.method == "GET" && one.path.contains("/blobs/"));
        if cause.is_some() {
            assert_eq!(answer["step"], "verify");
            assert_eq!(answer["confidence"], "proven");
        } else {
            assert_eq!(downloads.count(), 1, "the config alone: {seen:?}");
        }
    }
    let output = towline()
        .args(["why", "--deep", "--message", "x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", text(&output));
}
