//! Waiters with a deadline of their own.

use std::time::Duration;

use towline_cause::{Cause, Step};
use towline_images::{Progress, PullRequest};
use towline_keyring::Credential;
use towline_lab::faults::{Fault, Rule};
use towline_lab::image::{Builder, Layer};

use crate::support::{LONG, Node, Registry, noise};

/// A42: its own time is over, and nobody else's: the other waiter gets the image, and the bytes came once.
#[tokio::test]
async fn a_waiter_whose_time_is_over_ends_alone() {
    let registry = Registry::start().await;
    let built = Builder::new()
        .layer(Layer::new().file("f", noise(1 << 20, 6)))
        .build();
    let reference = registry.push(&built, "slow").await;
    let path = format!("*/blobs/{}", built.blobs[0].digest);
    registry.break_by(vec![
        Rule::on(&path, Fault::StallBody { after: 300_000 }).method("GET"),
    ]);
    let node = Node::new();
    let (sender, mut progress) = tokio::sync::watch::channel(Progress::default());
    let mut hasty = PullRequest::new(reference.clone(), Credential::Anonymous);
    hasty.progress = Some(sender);
    let cancel = hasty.cancel.clone();
    let deadline = async {
        // The deadline begins once bytes came, so that a busy machine changes nothing.
        progress
            .wait_for(|progress| progress.bytes().0 > 0)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        cancel.cancel();
    };
    let patient = node
        .images
        .pull(PullRequest::new(reference, Credential::Anonymous));
    let hasty = async {
        let (ended, ()) = tokio::join!(node.images.pull(hasty), deadline);
        let failure = ended.expect_err("its time is over");
        assert_eq!(
            (failure.cause(), failure.step()),
            (Cause::DeadlineExceeded, Step::Fetch),
            "{}",
            failure.chain()
        );
        let words = failure.detail().to_owned();
        assert!(words.contains("are kept for the next attempt"), "{words}");
        registry.break_by(Vec::new());
    };
    let both = async { tokio::join!(patient, hasty) };
    let (image, ()) = tokio::time::timeout(LONG, both).await.expect("it goes on");
    let image = image.map_err(|failure| failure.chain()).unwrap();
    let file = node.images.lower_dirs(&image)[0].join("f");
    assert_eq!(std::fs::read(file).unwrap(), noise(1 << 20, 6));
    // What the hasty one had waited for was not fetched again.
    let asked = registry.blobs_asked();
    let whole = asked
        .iter()
        .filter(|(path, range)| path.ends_with(built.blobs[0].digest.as_str()) && range.is_none());
    assert_eq!(whole.count(), 1, "{asked:?}");
}
