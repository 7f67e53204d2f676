//! What rots on the disk is found, and fetched again.

use std::os::unix::fs::PermissionsExt;

use towline_images::{Damage, PullRequest, Verified};
use towline_keyring::Credential;
use towline_lab::image::{Builder, Layer};
use towline_sys::testing::need_root;

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
    assert_eq!(paths, [(layer, "dir/empty"), (layer, "dir/app")]);

    node.images.hold("container", &image).await.unwrap();
    assert!(!node.images.set_aside(&damage[0]).await.unwrap());
    node.images.release("container").await.unwrap();
    assert!(node.images.set_aside(&damage[0]).await.unwrap());
    assert!(matches!(
        node.images.verify().await.unwrap()[..],
        [Damage::Image { .. }]
    ));
    let before = registry.blobs_asked().len();
    node.pull(&reference).await;
    assert_eq!(registry.blobs_asked().len(), before + 1);
    assert_eq!(node.images.verify().await.unwrap(), []);
    assert_eq!(std::fs::read(&app).unwrap(), noise(300_000, 2));
    assert_eq!(node.images.conclude().await.unwrap(), []);
    let aside = std::fs::read_dir(node.root().join("aside")).unwrap();
    assert_eq!(aside.count(), 0, "it has a successor");
}

#[tokio::test]
async fn a_layer_that_writes_a_path_twice_is_compared_as_it_is() {
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
    let image = node.pull(&reference).await;
    assert_eq!(node.images.compare().await.unwrap(), Verified::default());
    let dir = node.images.lower_dirs(&image)[0].clone();
    std::fs::write(dir.join("twice"), "SECOND").unwrap();
    std::fs::write(dir.join("dir/other"), "Y").unwrap();
    let bytes = "its bytes are not those that were unpacked";
    assert_eq!(
        problems(&node).await,
        [("dir/other", bytes), ("twice", bytes)].map(owned)
    );
}

/// The registry is gone: what is damaged is better than nothing.
#[tokio::test]
async fn what_cannot_be_fetched_again_gets_its_place_back() {
    let registry = Registry::start().await;
    let built = Builder::new()
        .layer(Layer::new().file("base", noise(1000, 1)))
        .layer(Layer::new().file("app", noise(1000, 2)))
        .build();
    let reference = registry.push(&built, "lost").await;
    let node = Node::new();
    let image = node.pull(&reference).await;
    let app = node.images.lower_dirs(&image)[0].join("app");
    std::fs::write(&app, "rotten").unwrap();
    let config = node.root().join("blobs/sha256").join(image.id.hex());
    std::fs::write(&config, "rotten").unwrap();
    let damage = node.images.verify().await.unwrap();
    assert_eq!(damage.len(), 2, "{damage:?}");
    for each in &damage {
        assert!(node.images.set_aside(each).await.unwrap());
    }
    assert!(!app.exists() && !config.exists());
    // A restart in between changes nothing.
    let dir = node.dir;
    drop(node.images);
    let images = crate::support::open(&dir.path().join("store"), |_| {});
    let node = Node { images, dir };
    assert!(!app.exists());
    let back = node.images.conclude().await.unwrap();
    assert_eq!(back.len(), 2, "{back:?}");
    assert_eq!(std::fs::read(&app).unwrap(), b"rotten");
    assert_eq!(std::fs::read(&config).unwrap(), b"rotten");
    assert_eq!(node.images.verify().await.unwrap(), damage);
    assert_eq!(node.images.lower_dirs(&image).len(), 2);

    // What no image uses is not worth a place.
    for each in &damage {
        assert!(node.images.set_aside(each).await.unwrap());
    }
    node.images.remove(&image.id.to_string()).await.unwrap();
    assert_eq!(node.images.conclude().await.unwrap(), []);
    assert_eq!(node.images.verify().await.unwrap(), []);
}

fn owned((path, problem): (&str, &str)) -> (String, String) {
    (path.to_owned(), problem.to_owned())
}

async fn problems(node: &Node) -> Vec<(String, String)> {
    let damage = node.images.verify().await.unwrap().into_iter();
    damage
        .map(|damage| match damage {
            Damage::File { path, problem, .. } => (path, problem.into_owned()),
            other => panic!("{other}"),
        })
        .collect()
}

#[tokio::test]
async fn what_is_beside_the_bytes_of_files_is_compared_too() {
    let registry = Registry::start().await;
    let layer = Layer::new()
        .directory("empty", 0o755)
        .directory("kept", 0o755)
        .file("kept/mode", "x")
        .mode(0o600)
        .file("kept/same", "x")
        .symlink("link", "kept/same")
        .file("owner", "x")
        .file("rotten", "x");
    let built = Builder::new().layer(layer).build();
    let reference = registry.push(&built, "beside").await;
    let node = Node::new();
    let image = node.pull(&reference).await;
    assert_eq!(node.images.compare().await.unwrap(), Verified::default());
    let dir = node.images.lower_dirs(&image)[0].clone();
    std::fs::remove_dir(dir.join("empty")).unwrap();
    std::fs::set_permissions(dir.join("kept/mode"), PermissionsExt::from_mode(0o606)).unwrap();
    std::fs::write(dir.join("kept/new"), "x").unwrap();
    std::fs::remove_file(dir.join("link")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join("link")).unwrap();
    std::fs::write(dir.join("rotten"), "y").unwrap();
    let mut want = vec![
        ("empty", "it is not there"),
        ("kept/mode", "its mode is 606 and was 600"),
        ("kept/new", "it was not unpacked"),
        (
            "link",
            "it leads to \"/etc/passwd\" and led to \"kept/same\"",
        ),
    ];
    if need_root() {
        std::os::unix::fs::chown(dir.join("owner"), Some(7), Some(8)).unwrap();
        want.push(("owner", "its owner is 7:8 and was 0:0"));
    }
    want.push(("rotten", "its bytes are not those that were unpacked"));
    let want: Vec<_> = want.into_iter().map(owned).collect();
    assert_eq!(problems(&node).await, want);
}

#[tokio::test]
async fn a_layer_without_its_lists_is_counted() {
    let registry = Registry::start().await;
    let built = Builder::new().layer(Layer::new().file("a", "x")).build();
    let reference = registry.push(&built, "bare").await;
    let node = Node::new();
    let image = node.pull(&reference).await;
    let dir = node.images.lower_dirs(&image)[0].clone();
    for list in ["files", "inventory"] {
        std::fs::remove_file(dir.parent().unwrap().join(list)).unwrap();
    }
    let compared = node.images.compare().await.unwrap();
    assert_eq!((compared.damage, compared.uncompared), (vec![], 2));
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
