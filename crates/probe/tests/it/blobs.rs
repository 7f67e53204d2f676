//! Several blobs that are not as the manifest says, each in another way: what stops a pull first is what is told.

use std::collections::BTreeMap;

use towline_cause::{Cause, Step};
use towline_lab::faults::{Fault, Proxy, Rule};
use towline_lab::image::{Builder, Layer};

use crate::{Registry, cause, outcome, probe, text};
use towline_probe::Outcome;

#[tokio::test]
async fn a_blob_that_is_missing_goes_before_one_of_another_size() {
    let image = Builder::new()
        .layer(Layer::new().file("a", "x"))
        .layer(Layer::new().file("b", "y"))
        .layer(Layer::new().file("c", "z"))
        .build();
    let layers: Vec<String> = image.layers().map(|blob| blob.digest.clone()).collect();
    let on = |layer: &str, fault| Rule::on(&format!("/v2/*/blobs/{layer}"), fault);
    let other = || Fault::Answer {
        status: 200,
        headers: BTreeMap::new(),
        body: "xx".to_owned(),
    };
    let gone = Fault::Error {
        status: 404,
        code: "BLOB_UNKNOWN".to_owned(),
        message: "gone".to_owned(),
    };
    let size = vec![on(&layers[0], other()), on(&layers[1], other())];
    let both = [size.clone(), vec![on(&layers[2], gone)]].concat();
    let registry = Registry::start().await;
    registry.push("public/app", "1.0", &image).await;
    for (rules, want, step, words) in [
        (
            both,
            (Cause::BlobMissing, Step::Fetch),
            Outcome::Failed,
            "1 of 4 blobs cannot be had; the first: ",
        ),
        (
            size,
            (Cause::DigestMismatch, Step::Verify),
            Outcome::Ok,
            "2 of 4 blobs have another size; the first: ",
        ),
    ] {
        let proxy = Proxy::before(registry.address(), rules).await.unwrap();
        let report = probe(format!("{}/public/app:1.0", proxy.local_addr()), vec![]).await;
        assert_eq!(cause(&report), Some(want), "{:?}", report.failure);
        assert_eq!(outcome(&report, Step::Fetch), step);
        let told = text(&report, Step::Fetch);
        assert!(told.starts_with(words), "{told}");
    }
}
