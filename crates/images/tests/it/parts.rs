//! A large layer over several connections.

use std::ops::Range;

use towline_images::PullRequest;
use towline_keyring::Credential;
use towline_lab::faults::{Fault, Match, Nth, Rule};
use towline_lab::image::{Builder, Compression, Image, Layer};
use towline_oci::Reference;

use crate::support::{LONG, Node, Registry, noise, spooled};

const LARGE: usize = 40 << 20;

async fn large(registry: &Registry) -> (Image, Reference) {
    let layer = Layer::new()
        .file("large", noise(LARGE, 3))
        .compression(Compression::None);
    let built = Builder::new().layer(layer).build();
    let reference = registry.push(&built, "large").await;
    (built, reference)
}

/// A registry that gives each connection little.
fn limited() -> Rule {
    let slow = Fault::Trickle {
        bytes: 64 << 10,
        every_millis: 10,
    };
    Rule::on("*/blobs/*", slow).method("GET")
}

/// The ranges of the layer that were asked for; `None` where the whole was.
fn ranges(registry: &Registry, image: &Image) -> Vec<Option<Range<u64>>> {
    let asked = registry.blobs_asked().into_iter();
    asked
        .filter(|(path, _)| path.ends_with(image.blobs[0].digest.as_str()))
        .map(|(_, range)| {
            let range = range?;
            let (start, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            Some(start.parse().unwrap()..last.parse::<u64>().unwrap() + 1)
        })
        .collect()
}

fn assert_whole(node: &Node, pulled: &towline_images::Image) {
    let file = node.images.lower_dirs(pulled)[0].join("large");
    assert!(std::fs::read(file).unwrap() == noise(LARGE, 3));
    assert_eq!(node.spooled(), Vec::<u64>::new());
    node.assert_clean();
}

/// Whether bytes are in the spool before their turn.
fn is_ahead(node: &Node) -> bool {
    let entries = std::fs::read_dir(node.root().join("spool")).unwrap();
    entries
        .flatten()
        .any(|entry| entry.path().extension().is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_come_side_by_side_and_those_that_are_here_are_not_asked_for_again() {
    let registry = Registry::start().await;
    let (built, reference) = large(&registry).await;
    let size = built.blobs[0].bytes.len() as u64;
    registry.break_by(vec![limited()]);
    let node = Node::new();
    let request = PullRequest::new(reference.clone(), Credential::Anonymous);
    let cancel = request.cancel.clone();
    let (pulled, ()) = tokio::join!(
        tokio::time::timeout(LONG, node.images.pull(request)),
        async {
            while !is_ahead(&node) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            cancel.cancel();
        }
    );
    pulled.unwrap().unwrap_err();
    // Whoever waited is told at once; what was on its way in then is written too.
    node.images.stop().await;
    let here: u64 = spooled(&node.root()).iter().sum();
    assert!(here > 0 && here < size);
    let before = ranges(&registry, &built).len();
    registry.break_by(Vec::new());
    let pulled = node.pull(&reference).await;
    assert_whole(&node, &pulled);
    let again: u64 = ranges(&registry, &built)[before..]
        .iter()
        .map(|range| range.as_ref().map_or(size, |range| range.end - range.start))
        .sum();
    assert_eq!(again, size - here, "exactly what was missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_are_closed_ranges_each_taken_up_by_itself() {
    let registry = Registry::start().await;
    let (built, reference) = large(&registry).await;
    let size = built.blobs[0].bytes.len() as u64;
    let node = Node::new();
    let pulled = node.pull(&reference).await;
    assert_whole(&node, &pulled);
    let mut asked: Vec<_> = ranges(&registry, &built).into_iter().flatten().collect();
    asked.sort_by_key(|range| range.start);
    assert!(asked.len() > 1, "{asked:?}");
    let mut at = 0;
    for range in &asked {
        assert_eq!(range.start, at, "no byte twice: {asked:?}");
        at = range.end;
    }
    assert_eq!(at, size);
    // Cut over and over, a part is asked for again from where it was cut.
    let cut = Rule::on("*/blobs/*", Fault::ResetBody { after: 2 << 20 }).method("GET");
    registry.break_by(vec![cut]);
    let node = Node::new();
    let pulled = node.pull(&reference).await;
    assert_whole(&node, &pulled);
    let all = ranges(&registry, &built);
    let sent: u64 = all[asked.len()..]
        .iter()
        .flatten()
        .map(|range| (range.end - range.start).min(2 << 20))
        .sum();
    assert!(sent * 100 <= size * 105, "{sent} of {size}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answers_otherwise_is_asked_for_the_whole() {
    let registry = Registry::start().await;
    let (built, reference) = large(&registry).await;
    let ranged = |then| Rule {
        when: Match {
            path: Some("*/blobs/*".to_owned()),
            ranged: Some(true),
            ..Match::default()
        },
        then,
    };
    let refused = |status| Fault::Answer {
        status,
        headers: std::collections::BTreeMap::new(),
        body: String::new(),
    };
    for (what, rule, requests) in [
        ("knows no ranges", ranged(Fault::IgnoreRange), 1),
        ("416", ranged(refused(416)), 2),
        ("501", ranged(refused(501)), 2),
    ] {
        registry.break_by(vec![rule]);
        let before = ranges(&registry, &built).len();
        let node = Node::new();
        let pulled = node.pull(&reference).await;
        assert_whole(&node, &pulled);
        let asked = ranges(&registry, &built).len() - before;
        assert_eq!(asked, requests, "{what}");
    }
    // One that stops to know ranges in the middle.
    let later = Rule::on("*/blobs/*", Fault::IgnoreRange)
        .method("GET")
        .nth(Nth::From(2));
    let node = Node::new();
    registry.break_by(vec![later]);
    let pulled = node.pull(&reference).await;
    assert_whole(&node, &pulled);
}
