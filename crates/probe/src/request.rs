//! What is to be replayed.

use std::time::Duration;

use towline_distribution::Trace;
use towline_keyring::Candidate;
use towline_oci::Platform;

/// One pull to replay.
#[derive(Debug, Clone)]
pub struct Request {
    /// The image as written in the pod.
    pub image: String,
    /// The platform of the node.
    pub platform: Platform,
    /// Credentials in the order in which the kubelet tries them. The anonymous attempt is made in any case.
    pub candidates: Vec<Candidate>,
    /// Whether the bytes of every blob are downloaded and verified, and how many at most; otherwise each blob is only asked for where it
    /// lies, through its redirect.
    pub deep: Option<Deep>,
    /// The longest that all steps together may take, downloads aside.
    pub budget: Duration,
    /// How long a server may be silent once its connection is open, before an answer or within one: a pull waits longer, and learns no more.
    pub silence: Duration,
    /// The most blobs that are asked for.
    pub most_blobs: usize,
    /// Sent with every request.
    pub trace: Trace,
}

/// How much of one image is downloaded, layer after layer, to see its bytes. Nothing of it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deep {
    /// The most bytes: a blob that would lead beyond is not downloaded.
    pub most_bytes: u64,
    /// The most time.
    pub most_time: Duration,
}

impl Default for Deep {
    fn default() -> Self {
        Self {
            most_bytes: 16_000_000_000,
            most_time: Duration::from_secs(900),
        }
    }
}

impl Request {
    /// A replay of this image for this machine's platform: anonymous, without downloads, 60 s (10 s of silence), 200 blobs.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            platform: Platform::host(),
            candidates: Vec::new(),
            deep: None,
            budget: Duration::from_secs(60),
            silence: Duration::from_secs(10),
            most_blobs: 200,
            trace: Trace::default(),
        }
    }
}
