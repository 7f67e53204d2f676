//! Compressed layers that are kept on purpose.

use towline_images::{Damage, Options};
use towline_lab::faults::{Fault, Rule};
use towline_lab::image::{Builder, Compression, Image, Layer};
use towline_oci::Reference;

use crate::support::{Node, Registry, noise};

fn keeping(options: &mut Options) {
    options.keep_blobs = true;
}

/// Two layers, the second of several pieces.
fn two() -> Image {
    let layer = |name: &str, length, seed| {
        let layer = Layer::new().file(name, noise(length, seed));
        layer.compression(Compression::Gzip)
    };
    let image = Builder::new().layer(layer("base", 10_000, 1));
    image.layer(layer("app", 2_000_000, 2)).build()
}

async fn pushed() -> (Registry, Reference, Image) {
    let (registry, image) = (Registry::start().await, two());
    let reference = registry.push(&image, "kept").await;
    (registry, reference, image)
}

/// The files of the layers' compressed bytes, where they are.
fn blobs(node: &Node, image: &Image) -> Vec<Option<Vec<u8>>> {
    let folder = node.root().join("blobs/sha256");
    let layers = image.blobs.iter().take(2);
    let files = layers.map(|blob| folder.join(blob.digest.trim_start_matches("sha256:")));
    files.map(|file| std::fs::read(file).ok()).collect()
}

fn whole(image: &Image) -> Vec<Option<Vec<u8>>> {
    let layers = image.blobs.iter().take(2);
    layers.map(|blob| Some(blob.bytes.to_vec())).collect()
}

#[tokio::test]
async fn what_is_damaged_is_unpacked_again_and_nobody_is_asked() {
    let (registry, reference, image) = pushed().await;
    let node = Node::with(keeping);
    let pulled = node.pull(&reference).await;
    assert_eq!(blobs(&node, &image), whole(&image));
    assert_eq!(pulled.kept.0.len(), 2);
    assert_eq!(node.spooled(), [0; 0]);
    let usage = node.images.usage().await.unwrap();
    assert_eq!((usage.kept_count, usage.kept), (2, pulled.kept.1));

    registry.break_by(vec![Rule::on("*", Fault::Close)]);
    let asked = registry.proxy.seen().len();
    let dirs = node.images.lower_dirs(&pulled);
    std::fs::write(dirs[0].join("app"), "rotten").unwrap();
    std::fs::remove_file(dirs[1].join("base")).unwrap();
    let config = node.root().join("blobs/sha256").join(pulled.id.hex());
    std::fs::write(&config, "rotten").unwrap();
    let damage = node.images.verify().await.unwrap();
    assert_eq!(damage.len(), 3, "{damage:?}");
    for each in &damage {
        assert!(node.images.set_aside(each).await.unwrap());
    }
    assert!(node.images.restore(&pulled.id.to_string()).await.unwrap());
    assert_eq!(node.images.conclude().await.unwrap(), []);
    assert_eq!(node.images.verify().await.unwrap(), []);
    assert_eq!(
        std::fs::read(dirs[0].join("app")).unwrap(),
        noise(2_000_000, 2)
    );
    assert_eq!(registry.proxy.seen().len(), asked, "nobody was asked");
    assert_eq!(blobs(&node, &image), whole(&image), "they are still kept");
    node.assert_clean();
}

/// What is kept and rots itself is no help, is told, and comes again with the image, which still is one that is kept.
#[tokio::test]
async fn a_kept_layer_that_rotted_comes_again_from_the_registry() {
    let (registry, reference, image) = pushed().await;
    let node = Node::with(keeping);
    let pulled = node.pull(&reference).await;
    // The options of another process, that keeps nothing new.
    let dir = node.dir;
    drop(node.images);
    let images = crate::support::open(&dir.path().join("store"), |_| {});
    let node = Node { images, dir };
    let blob = image.blobs[1].digest.trim_start_matches("sha256:");
    let blob = node.root().join("blobs/sha256").join(blob);
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let damage = node.images.verify().await.unwrap();
    assert!(matches!(&damage[..], [Damage::Blob { .. }]), "{damage:?}");
    assert!(node.images.set_aside(&damage[0]).await.unwrap());
    // Every layer is here, and one of their compressed forms is not.
    let id = pulled.id.to_string();
    assert!(!node.images.restore(&id).await.unwrap());
    let before = registry.blobs_asked().len();
    node.pull(&reference).await;
    assert_eq!(registry.blobs_asked().len(), before + 1);
    assert_eq!(node.images.conclude().await.unwrap(), []);
    assert_eq!(node.images.verify().await.unwrap(), []);
    assert_eq!(blobs(&node, &image), whole(&image));
    node.assert_clean();

    // Not found by anybody, it is when the layer is to be unpacked from it: the registry's bytes take its place.
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let layer = Damage::Layer(pulled.diff_ids[1].clone());
    assert!(node.images.set_aside(&layer).await.unwrap());
    assert!(!node.images.restore(&id).await.unwrap());
    let before = registry.blobs_asked().len();
    node.pull(&reference).await;
    assert_eq!(registry.blobs_asked().len(), before + 1);
    node.images.conclude().await.unwrap();
    assert_eq!(node.images.verify().await.unwrap(), []);
    assert_eq!(blobs(&node, &image), whole(&image));
}

/// Who begins to keep later gets the compressed bytes of what is unpacked already, and a cut of that costs what a cut costs.
#[tokio::test]
async fn compressed_bytes_come_for_layers_that_are_here() {
    let (registry, reference, image) = pushed().await;
    let node = Node::new();
    node.pull(&reference).await;
    assert_eq!(blobs(&node, &image), [None, None]);
    let dir = node.dir;
    drop(node.images);
    let images = crate::support::open(&dir.path().join("store"), keeping);
    let node = Node { images, dir };
    let request = || {
        towline_images::PullRequest::new(reference.clone(), towline_keyring::Credential::Anonymous)
    };
    let plan = node.images.plan(request()).await.unwrap();
    assert_eq!(plan.to_fetch(), plan.total(), "{plan:?}");
    let large = &image.blobs[1].digest;
    let cut = Fault::Truncate { after: 1_000_000 };
    registry.break_by(vec![
        Rule::on(&format!("*/blobs/{large}"), cut).nth(towline_lab::faults::Nth::Only(1)),
    ]);
    let pulled = node.pull(&reference).await;
    assert_eq!(blobs(&node, &image), whole(&image));
    assert_eq!(pulled.kept.0.len(), 2);
    assert_eq!(node.spooled(), [0; 0]);
    assert_eq!(node.images.verify().await.unwrap(), []);
    let plan = node.images.plan(request()).await.unwrap();
    assert_eq!(plan.to_fetch(), 0, "{plan:?}");

    // They go alone, or with the image.
    assert_eq!(node.images.forget_kept().await.unwrap().blobs, 2);
    assert_eq!(blobs(&node, &image), [None, None]);
    assert_eq!(node.images.verify().await.unwrap(), []);
    node.pull(&reference).await;
    assert_eq!(blobs(&node, &image), whole(&image));
    node.images.remove(&pulled.id.to_string()).await.unwrap();
    assert_eq!(blobs(&node, &image), [None, None]);
    assert_eq!(node.images.usage().await.unwrap().kept, 0);
}
