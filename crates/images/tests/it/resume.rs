//! What an earlier attempt left is used, and never trusted.

use towline_lab::faults::{Fault, Nth, Rule};
use towline_lab::image::{Builder, Image, Layer};

use crate::support::{Node, Registry, noise};

async fn pushed(registry: &Registry) -> (Image, towline_oci::Reference) {
    let built = Builder::new()
        .layer(Layer::new().file("f", noise(1 << 20, 11)))
        .build();
    let reference = registry.push(&built, "resumed").await;
    (built, reference)
}

/// Puts bytes into the spool as an earlier attempt would.
fn spool(node: &Node, image: &Image, bytes: &[u8]) {
    let name = image.blobs[0].digest.replace(':', "-");
    std::fs::write(node.root().join("spool").join(name), bytes).unwrap();
}

fn layers_asked(registry: &Registry, image: &Image) -> Vec<Option<String>> {
    let asked = registry.blobs_asked().into_iter();
    asked
        .filter(|(path, _)| path.ends_with(image.blobs[0].digest.as_str()))
        .map(|(_, range)| range)
        .collect()
}

#[tokio::test]
async fn a_cut_connection_is_taken_up_within_the_pull() {
    let registry = Registry::start().await;
    let (built, reference) = pushed(&registry).await;
    let path = format!("*/blobs/{}", built.blobs[0].digest);
    let cut = Rule::on(&path, Fault::ResetBody { after: 400_000 })
        .method("GET")
        .nth(Nth::First(2));
    registry.break_by(vec![cut]);
    let node = Node::new();
    node.pull(&reference).await;
    let asked = layers_asked(&registry, &built);
    assert_eq!(asked.len(), 3);
    assert!(asked[1..].iter().all(Option::is_some), "{asked:?}");
}

#[tokio::test]
async fn a_good_prefix_is_not_fetched_again() {
    let registry = Registry::start().await;
    let (built, reference) = pushed(&registry).await;
    let node = Node::new();
    spool(&node, &built, &built.blobs[0].bytes[..700_000]);
    let pulled = node.pull(&reference).await;
    let asked = layers_asked(&registry, &built);
    assert_eq!(asked.len(), 1);
    assert!(
        asked[0].as_ref().unwrap().starts_with("bytes=700000-"),
        "{asked:?}"
    );
    let file = node.images.lower_dirs(&pulled)[0].join("f");
    assert_eq!(std::fs::read(file).unwrap(), noise(1 << 20, 11));
}

#[tokio::test]
async fn a_whole_spool_needs_no_request() {
    let registry = Registry::start().await;
    let (built, reference) = pushed(&registry).await;
    let node = Node::new();
    spool(&node, &built, &built.blobs[0].bytes);
    node.pull(&reference).await;
    assert!(layers_asked(&registry, &built).is_empty());
}

#[tokio::test]
async fn a_rotten_prefix_is_dropped_and_the_registry_not_blamed() {
    let registry = Registry::start().await;
    let (built, reference) = pushed(&registry).await;
    for (what, bytes) in [
        ("zeros, as after a power cut", vec![0; 700_000]),
        ("longer than the layer", vec![1; 3 << 20]),
        ("as long as the layer", vec![2; built.blobs[0].bytes.len()]),
    ] {
        let node = Node::new();
        spool(&node, &built, &bytes);
        node.pull(&reference).await;
        node.assert_clean();
        assert_eq!(node.spooled(), Vec::<u64>::new(), "{what}");
    }
}
