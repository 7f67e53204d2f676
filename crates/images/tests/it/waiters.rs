//! One pull for many waiters.

use towline_cause::Cause;
use towline_images::PullRequest;
use towline_keyring::Credential;
use towline_lab::faults::{Fault, Rule};
use towline_lab::image::{Builder, Layer};
use towline_oci::Reference;

use crate::support::{LONG, Node, Registry, noise};

fn request(reference: &Reference) -> PullRequest {
    PullRequest::new(reference.clone(), Credential::Anonymous)
}

/// A registry whose layer stops coming after 300 kB, until it is mended.
async fn stalled() -> (Registry, Reference) {
    let registry = Registry::start().await;
    let built = Builder::new()
        .layer(Layer::new().file("f", noise(1 << 20, 6)))
        .build();
    let reference = registry.push(&built, "slow").await;
    let path = format!("*/blobs/{}", built.blobs[0].digest);
    registry.break_by(vec![
        Rule::on(&path, Fault::StallBody { after: 300_000 }).method("GET"),
    ]);
    (registry, reference)
}

/// Waits until a layer's bytes have arrived.
async fn arrived(progress: &mut tokio::sync::watch::Receiver<towline_images::Progress>) {
    let some = progress.wait_for(|progress| progress.bytes().0 > 0);
    tokio::time::timeout(LONG, some)
        .await
        .expect("bytes arrive")
        .unwrap();
}

#[tokio::test]
async fn ten_pulls_at_once_fetch_once() {
    let registry = Registry::start().await;
    let built = Builder::new()
        .layer(Layer::new().file("f", noise(500_000, 6)))
        .build();
    let reference = registry.push(&built, "once").await;
    let node = Node::new();
    let pulls = (0..10).map(|_| node.pull(&reference));
    let images = futures::future::join_all(pulls).await;
    assert!(images.iter().all(|image| *image == images[0]));
    // One request for the layer, one for the config.
    assert_eq!(registry.blobs_asked().len(), 2);
    let manifests = registry.proxy.seen();
    let manifests = manifests
        .iter()
        .filter(|seen| seen.path.contains("/manifests/"));
    assert_eq!(manifests.count(), 1);
}

#[tokio::test]
async fn a_failure_reaches_every_waiter_whole() {
    let registry = Registry::start().await;
    let node = Node::new();
    let reference = registry.reference("never/pushed");
    let (one, two) = tokio::join!(node.try_pull(&reference), node.try_pull(&reference));
    let (one, two) = (one.unwrap_err(), two.unwrap_err());
    assert_eq!(one.chain(), two.chain());
    assert_eq!((one.cause(), one.step()), (two.cause(), two.step()));
    assert_eq!(one.endpoint(), two.endpoint());
}

#[tokio::test]
async fn another_credential_is_another_pull() {
    let registry = Registry::start().await;
    let built = Builder::new().layer(Layer::new().file("f", "x")).build();
    let reference = registry.push(&built, "who").await;
    let node = Node::new();
    let mut other = request(&reference);
    other.credential = Credential::basic("bob", "secret".to_owned());
    let (one, two) = tokio::join!(
        node.images.pull(request(&reference)),
        node.images.pull(other)
    );
    one.unwrap();
    two.unwrap();
    let seen = registry.proxy.seen();
    let manifests = seen.iter().filter(|seen| seen.path.contains("/manifests/"));
    assert!(manifests.count() >= 2);
    // The layer came once all the same.
    let digest = &built.blobs[0].digest;
    let asked = registry.blobs_asked();
    assert_eq!(
        asked
            .iter()
            .filter(|(path, _)| path.ends_with(digest.as_str()))
            .count(),
        1
    );
}

#[tokio::test]
async fn a_waiter_that_leaves_does_not_take_the_others_along() {
    let (registry, reference) = stalled().await;
    let node = Node::new();
    let (sender, mut progress) = tokio::sync::watch::channel(towline_images::Progress::default());
    let mut leaving = request(&reference);
    leaving.progress = Some(sender);
    let cancel = leaving.cancel.clone();
    let staying = node.images.pull(request(&reference));
    let leaving = node.images.pull(leaving);
    let leave = async {
        arrived(&mut progress).await;
        cancel.cancel();
    };
    let mend = async {
        let (left, ()) = tokio::join!(leaving, leave);
        let failure = left.expect_err("it was cancelled");
        assert_eq!(failure.cause(), Cause::DeadlineExceeded);
        assert!(failure.detail().contains("are kept"), "{failure}");
        registry.break_by(Vec::new());
    };
    let both = async { tokio::join!(staying, mend) };
    // The stalled body ends when the client's idle time does; the client then resumes by itself.
    let (stayed, ()) = tokio::time::timeout(LONG, both)
        .await
        .expect("the pull goes on");
    stayed.unwrap();
}

#[tokio::test]
async fn with_the_last_waiter_the_download_stops_and_the_spool_stays() {
    let (registry, reference) = stalled().await;
    let node = Node::new();
    let (sender, mut progress) = tokio::sync::watch::channel(towline_images::Progress::default());
    let mut one = request(&reference);
    one.progress = Some(sender);
    {
        // Dropped, not cancelled: what happens to a call whose client goes away.
        let pull = node.images.pull(one);
        tokio::select! {
            biased;
            _ = pull => panic!("it stalls"),
            () = arrived(&mut progress) => {}
        }
    }
    tokio::time::timeout(LONG, node.images.stop())
        .await
        .expect("its threads end");
    node.assert_clean();
    let kept: u64 = node.spooled().iter().sum();
    assert!(kept >= 256 << 10, "{kept}");
    registry.break_by(Vec::new());
    node.pull(&reference).await;
    let ranges: Vec<_> = registry
        .blobs_asked()
        .into_iter()
        .filter_map(|(_, range)| range)
        .collect();
    assert_eq!(ranges.len(), 1, "{ranges:?}");
    assert!(
        ranges[0].starts_with(&format!("bytes={kept}-")),
        "{ranges:?}"
    );
    assert_eq!(node.spooled(), Vec::<u64>::new());
}
