//! "There is no such thing": believed for a while, and only where the upstream itself says so.

use std::time::Duration;

use towline_lab::faults::{Fault, Rule};

use super::{Line, image, layer};
use crate::client::{Answer, try_send};

fn told(answer: &Answer) -> (u16, String) {
    let cause = answer.json()["errors"][0]["detail"]["cause"].clone();
    (
        answer.status.as_u16(),
        cause.as_str().unwrap_or_default().to_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absence_counts_shortly_and_costs_one_request_meanwhile() {
    let line = Line::new(|options| options.cache.absent_ttl = Duration::from_secs(4)).await;
    let (first, second) = (image(20), image(21));
    line.push(&first, "v1").await;
    for _ in 0..5 {
        assert_eq!(
            told(&line.get("manifests/v2").await),
            (404, "TagNotFound".to_owned())
        );
    }
    assert_eq!(line.seen("GET", "/manifests/v2"), 1);
    let (digest, bytes) = layer(&second);
    for _ in 0..5 {
        let blob = line.get(&format!("blobs/{digest}")).await;
        assert_eq!(told(&blob), (404, "BlobMissing".to_owned()));
    }
    // A HEAD has no body that says why: the first one is followed by a GET.
    let asked = line.seen("HEAD", &digest) + line.seen("GET", &digest);
    assert!(asked <= 2, "{asked} requests for five questions");
    // Something else of the same repository is there all the while.
    assert_eq!(line.get("manifests/v1").await.status, 200);
    // It comes to be, and is found as soon as the absence no longer counts.
    line.push(&second, "v2").await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let blob = format!("blobs/{digest}");
    for what in ["manifests/v2", &blob] {
        while line.get(what).await.status != 200 {
            let now = tokio::time::Instant::now();
            assert!(now < deadline, "{what} is found at last");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let same = line.get(&blob).await.body == bytes;
    assert!(same, "{digest} is what was pushed");
}

/// What an upstream that fails has, or has not, is not known: no kind of failure becomes "not found", neither at once nor from memory.
#[tokio::test(flavor = "multi_thread")]
async fn no_failure_becomes_a_404() {
    let line = Line::new(|options| options.cache.failure_ttl = Duration::from_secs(600)).await;
    let image = image(22);
    line.push(&image, "v1").await;
    line.get("manifests/v1").await;
    let (digest, _) = layer(&image);
    let answer = |status: u16, body: &str| Fault::Answer {
        status,
        headers: [("content-type".to_owned(), "text/html".to_owned())].into(),
        body: body.to_owned(),
    };
    let error = |status: u16, code: &str| Fault::Error {
        status,
        code: code.to_owned(),
        message: "no".to_owned(),
    };
    let faults = [
        error(401, "UNAUTHORIZED"),
        error(403, "DENIED"),
        error(500, "UNKNOWN"),
        error(503, "UNAVAILABLE"),
        answer(200, "<html>log in to the network</html>"),
        // A proxy's page, not the registry's word.
        answer(404, "<html>404 Not Found</html>"),
        Fault::Close,
        Fault::Reset,
    ];
    for (at, fault) in faults.into_iter().enumerate() {
        line.network.set_rules(vec![Rule::on("*", fault.clone())]);
        // A name of its own each time, twice: the second answer comes from memory.
        for path in [format!("manifests/x{at}"), format!("blobs/sha256:{at:064}")] {
            for from in ["asked", "remembered"] {
                let path = format!("/v2/up/team/app/{path}");
                // None: a body began that was not what its digest says, and was cut.
                let answer = try_send(line.cache.address(), "GET", &path, &[], "").await;
                let status = answer.map_or(0, |answer| answer.status.as_u16());
                assert_ne!(status, 404, "{fault:?} {path} {from}");
            }
        }
        let held = line.get("manifests/v1").await;
        assert_eq!(held.status, 200, "{fault:?}");
        let known = line.get(&format!("blobs/{digest}")).await.status;
        assert!(known.is_server_error(), "{fault:?}: {known}");
    }
}
