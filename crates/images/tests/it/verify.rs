//! What rots on the disk is found, and fetched again.

use towline_images::{Damage, PullRequest};
use towline_keyring::Credential;
use towline_lab::image::{Builder, Layer};

use crate::support::{Node, Registry, noise};

#[tokio::test]
async fn a_file_that_rotted_is_found_and_its_layer_alone_fetched_again() {
    let registry = Registry::start().await;
    let built = Builder::new()
        .layer(Layer::new().file("base", noise(100_000, 1)))
        .layer(
            Layer::new()
                .file("dir/app", noise(300_000, 2))
                .file("dir/empty", "")
                .symlink("dir/link", "app"),
        )
        .build();
    let reference = registry.push(&built, "rotten").await;
    let node = Node::new();
    let image = node.pull(&reference).await;
    assert_eq!(node.images.verify().await.unwrap(), []);

    let dirs = node.images.lower_dirs(&image);
    let app = dirs[0].join("dir/app");
    let mut bytes = std::fs::read(&app).unwrap();
    bytes[200_000] ^= 1;
    std::fs::write(&app, &bytes).unwrap();
    std::fs::remove_file(dirs[0].join("dir/empty")).unwrap();
    let damage = node.images.verify().await.unwrap();
    let paths: Vec<_> = damage
        .iter()
        .map(|damage| match damage {
            Damage::File { layer, path, .. } => (layer, path.as_str()),
            other => panic!("{other}"),
        })
        .collect();
    let layer = &image.diff_ids[1];
    assert_eq!(paths, [(layer, "dir/app"), (layer, "dir/empty")]);

    node.images.hold("container", &image).await.unwrap();
    assert!(!node.images.discard(&damage[0]).await.unwrap());
    node.images.release("container").await.unwrap();
    assert!(node.images.discard(&damage[0]).await.unwrap());
    assert!(matches!(
        node.images.verify().await.unwrap()[..],
        [Damage::Image { .. }]
    ));
    let before = registry.blobs_asked().len();
    node.pull(&reference).await;
    assert_eq!(registry.blobs_asked().len(), before + 1);
    assert_eq!(node.images.verify().await.unwrap(), []);
    assert_eq!(std::fs::read(&app).unwrap(), noise(300_000, 2));
}

#[tokio::test]
async fn a_layer_that_writes_a_path_twice_has_no_list_and_no_false_damage() {
    let registry = Registry::start().await;
    let built = Builder::new()
        .layer(
            Layer::new()
                .file("twice", "first")
                .file("dir/file", "x")
                .symlink("alias", "dir")
                .file("twice", "second")
                .file("alias/other", "y"),
        )
        .build();
    let reference = registry.push(&built, "twice").await;
    let node = Node::new();
    node.pull(&reference).await;
    assert_eq!(node.images.verify().await.unwrap(), []);
}

#[tokio::test]
async fn a_plan_tells_what_is_here_and_asks_for_no_layer() {
    let registry = Registry::start().await;
    let shared = || Layer::new().file("shared", noise(50_000, 3));
    let first = Builder::new().layer(shared()).build();
    let second = Builder::new()
        .layer(shared())
        .layer(Layer::new().file("own", noise(70_000, 4)))
        .build();
    let first = registry.push(&first, "first").await;
    let second = registry.push(&second, "second").await;
    let node = Node::new();
    node.pull(&first).await;
    let asked = registry.blobs_asked().len();
    let request = PullRequest::new(second, Credential::Anonymous);
    let plan = node.images.plan(request).await.unwrap();
    let present: Vec<_> = plan.layers.iter().map(|layer| layer.present).collect();
    assert_eq!(present, [true, false]);
    assert_eq!(plan.to_fetch(), plan.layers[1].size);
    // The config, and nothing else.
    assert_eq!(registry.blobs_asked().len(), asked + 1);
    assert_eq!(node.images.list().len(), 1);
}
