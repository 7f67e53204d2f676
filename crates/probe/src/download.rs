//! The bytes of an image, downloaded and verified, blob after blob. Nothing is kept.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use tokio::time::Instant;
use towline_cause::{Cause, Failure, Step};
use towline_distribution::Repository;
use towline_oci::{Descriptor, Manifest};

use crate::content;
use crate::report::Outcome;
use crate::request::Deep;
use crate::run::Probe;

/// How far the downloads of a deep replay are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The image as it was asked for.
    pub image: String,
    /// The blob that comes, from 1.
    pub blob: usize,
    /// How many there are.
    pub blobs: usize,
    /// Bytes that came, of all blobs.
    pub bytes: u64,
    /// Bytes of all blobs, by the manifest.
    pub size: u64,
}

/// Downloads every blob within the bounds and compares its digest; `watch` is told with each piece.
pub(crate) async fn verify(
    probe: &mut Probe<'_>,
    repository: &Repository,
    manifest: &Manifest,
    (deep, watch): (Deep, &(dyn Fn(&Progress) + Send + Sync)),
) {
    let blobs = content::blobs(manifest, probe.request.most_blobs);
    let sizes = blobs.iter().map(|blob| blob.size);
    let mut progress = Progress {
        image: probe.request.image.clone(),
        blob: 0,
        blobs: blobs.len(),
        bytes: 0,
        size: sizes.fold(0, u64::saturating_add),
    };
    let until = Instant::now() + deep.most_time;
    let mut verified: usize = 0;
    let mut bound = None;
    for blob in &blobs {
        let before = progress.bytes;
        if before.saturating_add(blob.size) > deep.most_bytes {
            bound = Some(format!("{} bytes", deep.most_bytes));
            break;
        }
        progress.blob += 1;
        let came = |bytes| {
            progress.bytes = before + bytes;
            watch(&progress);
        };
        match tokio::time::timeout_at(until, whole(repository, blob, came)).await {
            Ok(Ok(())) => verified += 1,
            Ok(Err(failure)) => return probe.fail(&failure),
            Err(_) => {
                bound = Some(format!("{} s", deep.most_time.as_secs_f32()));
                break;
            }
        }
    }
    let facts = BTreeMap::from([
        ("verified".to_owned(), verified.to_string()),
        ("blobs".to_owned(), blobs.len().to_string()),
        ("bytes".to_owned(), progress.bytes.to_string()),
    ]);
    let text = match &bound {
        None => format!(
            "all {verified} blobs came, {} bytes, each with its digest",
            progress.bytes
        ),
        Some(bound) => format!(
            "{verified} of {} blobs came, each with its digest; the rest lies beyond the bound of {bound}",
            blobs.len()
        ),
    };
    probe.step(Step::Verify, Outcome::Ok, text, facts);
}

/// Downloads one blob whole; `came` is told how many bytes of it came.
async fn whole(
    repository: &Repository,
    blob: &Descriptor,
    mut came: impl FnMut(u64) + Send,
) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    loop {
        let mut stream = repository.blob(blob, 0).await?;
        let mut verifier = blob.digest.verifier();
        let mut bytes: u64 = 0;
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            verifier.update(&piece);
            bytes += piece.len() as u64;
            came(bytes);
        }
        let got = verifier.finish();
        if got == blob.digest {
            return Ok(());
        }
        let failure = Failure::new(
            Cause::DigestMismatch,
            Step::Verify,
            format!(
                "blob {} of {} came as {bytes} bytes whose digest is {got}",
                blob.digest,
                repository.reference().repository()
            ),
        )
        .at(stream.endpoint().to_owned());
        // A mirror may have sent them, and another place have the right ones.
        if !repository.distrust(&blob.digest) {
            return Err(failure.and_others(wrong));
        }
        wrong.push(failure);
    }
}
