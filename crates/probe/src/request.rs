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
    /// Whether every blob is asked for as well, through its redirect.
    pub deep: bool,
    /// The longest that all steps together may take.
    pub budget: Duration,
    /// How long the registry may be silent once its connection is open: a pull waits longer, and learns no more.
    pub silence: Duration,
    /// The most blobs that are asked for.
    pub most_blobs: usize,
    /// Sent with every request.
    pub trace: Trace,
}

impl Request {
    /// A replay of this image for this machine's platform: anonymous, deep, 60 s (15 s of silence), 200 blobs.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            platform: Platform::host(),
            candidates: Vec::new(),
            deep: true,
            budget: Duration::from_secs(60),
            silence: Duration::from_secs(15),
            most_blobs: 200,
            trace: Trace::default(),
        }
    }
}
