//! Pulls that fail, each with its cause, and what they leave behind.

use towline_cause::{Cause, Failure, Step};
use towline_images::{Ceilings, Options};
use towline_lab::faults::{Fault, Rule};
use towline_lab::image::{Builder, Compression, Index, Layer, Platform};
use towline_oci::Digest;

use crate::support::{Node, Registry, noise};

async fn fails(builder: &Builder, change: impl FnOnce(&mut Options)) -> (Failure, Node) {
    let registry = Registry::start().await;
    let reference = registry.push(&builder.build(), "bad").await;
    let node = Node::with(change);
    let failure = node.try_pull(&reference).await.expect_err("the pull fails");
    node.assert_clean();
    assert!(node.images.list().is_empty());
    (failure, node)
}

fn ends_with(failure: &Failure, cause: Cause, step: Step, words: &str) {
    let chain = failure.chain();
    assert_eq!((failure.cause(), failure.step()), (cause, step), "{chain}");
    assert!(chain.contains(words), "{words:?} is not in {chain:?}");
}

#[tokio::test]
async fn a_diff_id_that_is_not_the_layers_is_a_mismatch() {
    let builder = Builder::new()
        .layer(Layer::new().file("a", "b"))
        .diff_ids([Digest::of(b"something else").to_string()]);
    let (failure, _) = fails(&builder, |_| {}).await;
    ends_with(
        &failure,
        Cause::DigestMismatch,
        Step::Verify,
        "the unpacked layer has digest",
    );
}

#[tokio::test]
async fn layers_whose_digests_cross_do_not_wait_for_each_other() {
    let (one, two) = (Layer::new().file("a", "1"), Layer::new().file("b", "2"));
    let of = |layer: &Layer| Digest::of(&layer.archive()).to_string();
    let builder = Builder::new()
        .diff_ids([of(&two), of(&one)])
        .layer(one.compression(Compression::None))
        .layer(two.compression(Compression::None));
    let (failure, _) = fails(&builder, |_| {}).await;
    ends_with(
        &failure,
        Cause::DigestMismatch,
        Step::Verify,
        "the unpacked layer",
    );
}

#[tokio::test]
async fn a_byte_that_changes_on_the_way_is_a_mismatch_however_it_breaks_the_layer() {
    let registry = Registry::start().await;
    let layer = Layer::new().file("a", noise(400_000, 5));
    for (name, layer) in [
        ("gzip", layer.clone()),
        ("zstd", layer.clone().compression(Compression::Zstd)),
        ("plain", layer.clone().compression(Compression::None)),
    ] {
        let built = Builder::new().layer(layer).build();
        let reference = registry.push(&built, name).await;
        let path = format!("*/blobs/{}", built.blobs[0].digest);
        // In a tar header, in the middle, at the end.
        for at in [20, 200_000, built.blobs[0].bytes.len() as u64 - 3] {
            registry.break_by(vec![Rule::on(&path, Fault::Corrupt { at }).method("GET")]);
            let node = Node::new();
            let failure = node.try_pull(&reference).await.expect_err("the pull fails");
            assert_eq!(
                failure.cause(),
                Cause::DigestMismatch,
                "{name} {at}: {}",
                failure.chain()
            );
            assert_eq!(failure.step(), Step::Verify);
            node.assert_clean();
            assert_eq!(
                node.spooled(),
                Vec::<u64>::new(),
                "poisoned bytes are dropped"
            );
            registry.break_by(Vec::new());
            node.pull(&reference).await;
        }
    }
}

#[tokio::test]
async fn a_layer_that_is_broken_as_pushed_is_not_the_networks_fault() {
    for (what, bytes) in [
        ("random bytes", noise(5_000, 9)),
        (
            "half an archive",
            Layer::new().file("a", noise(9_000, 1)).archive()[..6_000].to_vec(),
        ),
    ] {
        let builder = Builder::new().layer(Layer::from_archive(bytes));
        let (failure, _) = fails(&builder, |_| {}).await;
        assert_eq!(
            failure.cause(),
            Cause::LayerExtractFailed,
            "{what}: {}",
            failure.chain()
        );
        assert_eq!(failure.step(), Step::Unpack);
    }
    let whole = Layer::new().file("a", noise(90_000, 2));
    let cut = whole.compressed()[..50_000].to_vec();
    let builder = Builder::new()
        .layer(Layer::from_archive(cut).compression(Compression::None))
        .diff_ids([Digest::of(&whole.archive()).to_string()]);
    let (failure, _) = fails(&builder, |_| {}).await;
    ends_with(
        &failure,
        Cause::LayerExtractFailed,
        Step::Unpack,
        "decompressed",
    );
}

#[tokio::test]
async fn another_platform_alone_is_named_with_what_there_is() {
    let registry = Registry::start().await;
    let of = |architecture| {
        Builder::new()
            .layer(Layer::new().file("a", architecture))
            .platform(Platform::linux(architecture))
            .build()
    };
    let index = Index::new().image(of("s390x")).image(of("riscv64")).build();
    let node = Node::new();
    for (image, name, words) in [
        (&index, "index", "linux/s390x, linux/riscv64"),
        (&of("s390x"), "single", "linux/s390x"),
    ] {
        let reference = registry.push(image, name).await;
        let failure = node.try_pull(&reference).await.expect_err("the pull fails");
        ends_with(&failure, Cause::PlatformMismatch, Step::Platform, words);
    }
    assert!(registry.blobs_asked().len() <= 1, "no layer is asked for");
}

#[tokio::test]
async fn a_config_that_does_not_describe_the_layers_is_no_image() {
    let builder = Builder::new()
        .layer(Layer::new().file("a", "a"))
        .diff_ids(Vec::<String>::new());
    let (failure, _) = fails(&builder, |_| {}).await;
    ends_with(&failure, Cause::NotAnImage, Step::Resolve, "describes 0");
    let builder = Builder::new()
        .layer(Layer::new().file("a", "a"))
        .raw_config(&b"{\"not\": \"a config\"}"[..]);
    let (failure, _) = fails(&builder, |_| {}).await;
    ends_with(&failure, Cause::NotAnImage, Step::Resolve, "config");
}

#[tokio::test]
async fn a_missing_layer_and_a_missing_tag_keep_the_clients_cause() {
    let registry = Registry::start().await;
    let built = Builder::new().layer(Layer::new().file("a", "a")).build();
    let reference = registry.push(&built, "gone").await;
    let node = Node::new();
    let failure = node.try_pull(&reference.with_tag("nope").unwrap()).await;
    assert_eq!(
        failure.expect_err("no such tag").cause(),
        Cause::TagNotFound
    );
    let fault = Fault::Error {
        status: 404,
        code: "BLOB_UNKNOWN".to_owned(),
        message: "blob unknown to registry".to_owned(),
    };
    let path = format!("*/blobs/{}", built.blobs[0].digest);
    registry.break_by(vec![Rule::on(&path, fault)]);
    let failure = node
        .try_pull(&reference)
        .await
        .expect_err("the layer is gone");
    assert_eq!(failure.cause(), Cause::BlobMissing, "{}", failure.chain());
    node.assert_clean();
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one table")]
async fn each_ceiling_has_its_error() {
    let small = Ceilings {
        image_bytes: 10_000,
        layers: 2,
        entries: 20,
        layer_bytes: 100_000,
        ratio: 20,
        ratio_floor: 30_000,
        path_bytes: 60,
        name_bytes: 40,
        path_depth: 10,
        header_bytes: 2_000,
        xattrs: 3,
        xattr_bytes: 900,
        zstd_window_log: 20,
    };
    let many = (0..30).fold(Layer::new(), |layer, n| layer.file(&format!("f{n}"), ""));
    let attributes = (0..4).fold(Layer::new().file("f", ""), |layer, n| {
        layer.xattr(&format!("user.x{n}"), b"")
    });
    let large = Layer::new().file("f", "").xattr("user.large", &[b'x'; 901]);
    let headers = Layer::from_archive(global_headers(41));
    let records = Layer::from_archive(records(80));
    let long = Layer::new().file("f", "").xattr("user.x", &noise(3_000, 4));
    for (what, layers, words) in [
        (
            "image",
            vec![Layer::new().file("f", noise(20_000, 1))],
            "ceiling of 10000; --ceiling image-bytes=NUMBER raises it",
        ),
        ("layers", vec![Layer::new(); 3], "the node can stack 2"),
        (
            "entries",
            vec![many],
            "ceiling of 20; --ceiling entries=NUMBER raises it",
        ),
        (
            "bytes",
            vec![Layer::new().file("f", noise(6_500, 3).repeat(17))],
            "after decompression than the ceiling of 100000; --ceiling layer-bytes=NUMBER raises it",
        ),
        (
            "ratio",
            vec![Layer::new().file("f", vec![0; 60_000])],
            "for each compressed byte than the ceiling of 20; --ceiling ratio=NUMBER raises it",
        ),
        (
            "path",
            vec![Layer::new().file(&format!("{}f", "abcdefg/".repeat(8)), "")],
            "the ceiling of 60; it cannot be raised",
        ),
        (
            "name",
            vec![Layer::new().file(&"n".repeat(41), "")],
            "the ceiling of 40; it cannot be raised",
        ),
        (
            "depth",
            vec![Layer::new().file("a/b/c/d/e/f/g/h/i/j/k", "")],
            "is deeper than the ceiling of 10; --ceiling path-depth=NUMBER raises it",
        ),
        (
            "xattrs",
            vec![attributes],
            "extended attributes than the ceiling of 3; --ceiling xattrs=NUMBER raises it",
        ),
        (
            "xattr",
            vec![large],
            "attribute \"user.large\" has more bytes than the ceiling of 900; it cannot be raised",
        ),
        (
            "headers",
            vec![headers],
            "tar headers than the ceiling of 40; --ceiling entries=NUMBER raises it",
        ),
        (
            "records",
            vec![records],
            "more records than the ceiling of 67; --ceiling xattrs=NUMBER raises it",
        ),
        (
            "header",
            vec![long],
            "extended header has more bytes than the ceiling of 2000; --ceiling header-bytes=NUMBER raises it",
        ),
    ] {
        let builder = layers.into_iter().fold(Builder::new(), Builder::layer);
        let (failure, _) = fails(&builder, |options| options.ceilings = small).await;
        let chain = failure.chain();
        assert!(chain.contains(words), "{what}: {chain}");
        let cause = match what {
            "layers" => Cause::TooManyLayers,
            _ => Cause::ImageTooLarge,
        };
        assert_eq!(failure.cause(), cause, "{what}: {chain}");
    }
}

/// Headers for the whole archive that say nothing, and no entry. They do not compress well.
fn global_headers(count: u64) -> Vec<u8> {
    let digit = |byte: u8| b"0123456789abcdef"[usize::from(byte & 15)];
    let comment = |n: u64| {
        let noise: Vec<u8> = noise(240, n + 1).into_iter().map(digit).collect();
        [b"253 comment=", noise.as_slice(), b"\n"].concat()
    };
    (0..count).flat_map(|n| header(b'g', &comment(n))).collect()
}

/// An extended header of many records, and its entry.
fn records(count: usize) -> Vec<u8> {
    let records: Vec<u8> = (0..count)
        .flat_map(|n| format!("10 k{n:03}=v\n").into_bytes())
        .collect();
    let mut archive = header(b'x', &records);
    archive.extend(header(b'0', b""));
    archive
}

fn header(flag: u8, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::new(flag));
    header.set_path("name").unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[tokio::test]
async fn bombs_end_early() {
    // 64 MiB of zeros in 64 KiB, of which no more than a little over the floor is written.
    let bomb = Layer::new().file("zeros", vec![0; 64 << 20]);
    for layer in [bomb.clone(), bomb.compression(Compression::Zstd)] {
        let builder = Builder::new().layer(layer);
        let (failure, node) = fails(&builder, |options| {
            options.ceilings.ratio_floor = 4 << 20;
        })
        .await;
        ends_with(
            &failure,
            Cause::ImageTooLarge,
            Step::Unpack,
            "for each compressed byte",
        );
        assert_eq!(node.images.usage().await.unwrap().layers, 0);
    }
}

#[tokio::test]
async fn a_zstd_window_over_the_ceiling_is_refused() {
    let archive = Layer::new().file("f", noise(3 << 20, 8)).archive();
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(24).unwrap();
    std::io::Write::write_all(&mut encoder, &archive).unwrap();
    let bytes = encoder.finish().unwrap();
    let builder = Builder::new()
        .layer(Layer::from_archive(bytes).compression(Compression::None))
        .diff_ids([Digest::of(&archive).to_string()]);
    let (failure, _) = fails(&builder, |options| options.ceilings.zstd_window_log = 20).await;
    ends_with(
        &failure,
        Cause::UnsupportedLayer,
        Step::Unpack,
        "zstd window has more bytes than the ceiling of 1048576; --ceiling zstd-window=NUMBER raises it",
    );
}

#[tokio::test]
async fn a_store_in_use_names_its_holder() {
    let node = Node::new();
    let client = towline_distribution::Client::new(towline_distribution::Options::default());
    let platform = towline_oci::Platform::host();
    let here = towline_images::Unpacking::InProcess;
    let options = Options::new(node.root(), client.unwrap(), platform, here);
    let failure = towline_images::Images::open(options).expect_err("it is in use");
    let chain = failure.chain();
    assert!(chain.contains(&std::process::id().to_string()), "{chain}");
    assert!(chain.contains(node.root().to_str().unwrap()), "{chain}");
}
