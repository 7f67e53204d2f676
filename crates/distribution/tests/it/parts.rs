//! Parts of a blob, connections that trickle, and cuts that come again and again.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use towline_cause::{Cause, Failure, Step};
use towline_distribution::{Client, Options, Pace, PlainHttp, Repository, Retries, Trace};
use towline_keyring::Credential;
use towline_lab::faults::{Fault, Nth, Proxy, Rule};
use towline_oci::{Descriptor, Reference, media_type};

use crate::stub::{Reply, Stub};

fn content(length: usize) -> Arc<[u8]> {
    (0..u32::try_from(length / 4).unwrap())
        .flat_map(u32::to_le_bytes)
        .collect()
}

/// The range that was asked for, the last byte included.
fn asked(range: Option<&str>, length: usize) -> (usize, usize) {
    let Some(range) = range else {
        return (0, length - 1);
    };
    let (start, end) = range
        .strip_prefix("bytes=")
        .unwrap()
        .split_once('-')
        .unwrap();
    (start.parse().unwrap(), end.parse().unwrap())
}

fn partial(content: &[u8], range: Option<&str>) -> Reply {
    let (start, end) = asked(range, content.len());
    Reply::new(206)
        .header(
            "Content-Range",
            &format!("bytes {start}-{end}/{}", content.len()),
        )
        .body(&content[start..=end])
}

async fn part(
    repository: &Repository,
    content: &[u8],
    range: std::ops::Range<u64>,
) -> Result<(std::ops::Range<u64>, Vec<u8>), Failure> {
    let descriptor = Descriptor::of(media_type::OCI_LAYER, content);
    let mut stream = repository.blob_part(&descriptor, range).await?;
    let coming = stream.range().clone();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok((coming, bytes))
}

#[tokio::test]
async fn a_part_is_asked_for_as_a_closed_range() {
    let content = content(40_000);
    let served = content.clone();
    let stub = Stub::plain(move |seen| partial(&served, seen.header("range"))).await;
    let repository = stub.repository(Credential::Anonymous);
    for (start, end) in [(0, 1000), (1000, 39_000), (39_000, 40_000)] {
        let (coming, bytes) = part(&repository, &content, start as u64..end as u64)
            .await
            .unwrap();
        assert_eq!(coming, start as u64..end as u64);
        assert!(bytes == content[start..end]);
    }
    let ranges: Vec<_> = stub
        .seen()
        .iter()
        .map(|seen| seen.header("range").unwrap().to_owned())
        .collect();
    assert_eq!(
        ranges,
        ["bytes=0-999", "bytes=1000-38999", "bytes=39000-39999"]
    );
}

#[tokio::test]
async fn a_server_without_ranges_says_what_comes_instead_of_a_part() {
    let content = content(40_000);
    let served = content.clone();
    let stub = Stub::plain(move |_| Reply::new(200).body(&served)).await;
    let repository = stub.repository(Credential::Anonymous);
    for start in [0, 8000] {
        let (coming, bytes) = part(&repository, &content, start as u64..20_000)
            .await
            .unwrap();
        assert_eq!(coming, start as u64..40_000);
        assert!(bytes == content[start..]);
    }
}

#[tokio::test]
async fn a_cut_part_goes_on_to_its_own_end() {
    let content = content(40_000);
    let served = content.clone();
    let stub = Stub::plain(move |seen| {
        let reply = partial(&served, seen.header("range"));
        if seen.number == 1 {
            let (start, end) = asked(seen.header("range"), served.len());
            return reply
                .body(&served[start..start + 5000])
                .cut(end - start + 1);
        }
        reply
    })
    .await;
    let repository = stub.repository(Credential::Anonymous);
    let (_, bytes) = part(&repository, &content, 8000..20_000).await.unwrap();
    assert!(bytes == content[8000..20_000]);
    assert_eq!(stub.seen()[1].header("range"), Some("bytes=13000-19999"));
}

/// A registry that is nothing but this blob, behind lab's faults.
struct Faulty {
    proxy: Proxy,
    _stub: Stub,
    repository: Repository,
}

impl Faulty {
    async fn new(content: &Arc<[u8]>, rules: Vec<Rule>, change: impl FnOnce(&mut Options)) -> Self {
        let served = Arc::clone(content);
        let stub = Stub::plain(move |seen| match seen.header("range") {
            None => Reply::new(200).body(&served),
            range => partial(&served, range),
        })
        .await;
        let proxy = Proxy::before(stub.address(), rules).await.unwrap();
        let mut options = Options {
            plain_http: PlainHttp::All,
            retries: Retries {
                attempts: 3,
                base: Duration::from_millis(1),
                longest: Duration::from_millis(5),
                patience: Duration::ZERO,
            },
            ..Options::default()
        };
        change(&mut options);
        let image = Reference::parse(&format!("{}/lib/app:1", proxy.local_addr())).unwrap();
        let client = Client::new(options).unwrap();
        let repository = client.repository(&image, Credential::Anonymous, Trace::default());
        Self {
            proxy,
            _stub: stub,
            repository,
        }
    }

    /// Bytes that the proxy was asked for, and sent, where each answer is cut after so many.
    fn sent(&self, length: usize, cut: usize) -> usize {
        let seen = self.proxy.seen();
        seen.iter()
            .map(|seen| {
                let (start, end) = asked(seen.headers.get("range").map(String::as_str), length);
                (end - start + 1).min(cut)
            })
            .sum()
    }
}

#[tokio::test]
async fn cuts_that_come_again_and_again_use_up_no_attempt_and_no_byte_is_sent_twice() {
    let length = 40 << 20;
    let content = content(length);
    for (what, cut, nth, requests) in [
        ("once", 10 << 20, Nth::Only(1), 2),
        ("every connection at 10 MiB", 10 << 20, Nth::Every, 4),
        ("every connection at 2 MiB", 2 << 20, Nth::Every, 20),
    ] {
        let rule = Rule::on("*/blobs/*", Fault::ResetBody { after: cut as u64 }).nth(nth);
        let faulty = Faulty::new(&content, vec![rule], |_| {}).await;
        let whole = 0..length as u64;
        let (_, bytes) = part(&faulty.repository, &content, whole).await.unwrap();
        assert!(bytes == content[..], "{what}");
        let sent = match nth {
            Nth::Only(_) => length,
            _ => faulty.sent(length, cut),
        };
        assert!(sent * 100 <= length * 105, "{what}: {sent} bytes were sent");
        let seen = faulty.proxy.seen();
        assert_eq!(seen.len(), requests, "{what}");
        assert!(
            seen[1..]
                .iter()
                .all(|seen| seen.headers.contains_key("range")),
            "{what}"
        );
    }
}

fn trickle() -> Fault {
    Fault::Trickle {
        bytes: 100,
        every_millis: 20,
    }
}

fn impatient(options: &mut Options) {
    options.pace = Pace {
        least: 50_000,
        over: Duration::from_millis(300),
    };
}

#[tokio::test]
async fn a_trickle_is_left_for_another_connection() {
    let content = content(200_000);
    let rule = Rule::on("*/blobs/*", trickle()).nth(Nth::First(2));
    let faulty = Faulty::new(&content, vec![rule], impatient).await;
    let (_, bytes) = part(&faulty.repository, &content, 0..200_000)
        .await
        .unwrap();
    assert!(bytes == content[..]);
    let seen = faulty.proxy.seen();
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(
        seen[1..]
            .iter()
            .all(|seen| seen.headers.contains_key("range")),
        "what came is kept: {seen:?}"
    );
}

#[tokio::test]
async fn a_trickle_that_never_ends_is_named() {
    let content = content(4 << 20);
    let rule = Rule::on("*/blobs/*", trickle());
    let faulty = Faulty::new(&content, vec![rule], impatient).await;
    let failure = part(&faulty.repository, &content, 0..4 << 20)
        .await
        .unwrap_err();
    assert_eq!(failure.cause(), Cause::PullStalled);
    assert_eq!(failure.step(), Step::Fetch);
    assert!(
        failure.detail().contains("bytes a second came")
            && failure.detail().contains("less than the 50000"),
        "{}",
        failure.detail()
    );
    assert_eq!(faulty.proxy.seen().len(), 3, "as many as attempts");
}

#[tokio::test]
async fn a_slow_reader_is_not_the_connections_fault() {
    let content = content(4 << 20);
    let faulty = Faulty::new(&content, Vec::new(), impatient).await;
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &content);
    let mut stream = faulty.repository.blob(&descriptor, 0).await.unwrap();
    let mut length = 0;
    let mut pieces = 0;
    while let Some(piece) = stream.next().await {
        length += piece.unwrap().len();
        pieces += 1;
        if pieces < 8 {
            // The pace of the reader is what is tested here.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert_eq!(length, 4 << 20);
    assert_eq!(faulty.proxy.seen().len(), 1);
}
