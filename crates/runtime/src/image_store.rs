//! The node's images as containers and calls need them.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use towline_cause::Failure;
use towline_distribution::Trace;
use towline_images::{Image, Images, PullRequest};
use towline_keyring::Credential;
use towline_oci::{ProcessConfig, Reference};

/// How often it is looked whether the disk is nearly full.
const LOOK: Duration = Duration::from_secs(60);
/// Longer than a kubelet waits between two attempts.
const IDLE: Duration = Duration::from_secs(600);

/// An image that is on the node.
#[derive(Debug, Clone)]
pub(crate) struct StoredImage {
    /// The config's digest.
    pub(crate) id: String,
    pub(crate) repo_tags: Vec<String>,
    pub(crate) repo_digests: Vec<String>,
    pub(crate) size: u64,
    pub(crate) pinned: bool,
    pub(crate) config: ProcessConfig,
    image: Image,
}

impl From<Image> for StoredImage {
    fn from(image: Image) -> Self {
        Self {
            id: image.id.to_string(),
            repo_tags: image.repo_tags.clone(),
            repo_digests: image.repo_digests.clone(),
            size: image.size,
            pinned: image.pinned,
            config: image.config.config.clone(),
            image,
        }
    }
}

/// The images.
#[derive(Debug, Clone)]
pub(crate) struct ImageStore(Images);

fn failed(what: &str, failure: &Failure) -> Status {
    Status::unknown(format!("{what}: {}", failure.chain()))
}

impl ImageStore {
    pub(crate) fn new(images: Images) -> Self {
        Self(images)
    }

    /// Pulls an image. Dropping the future, or `cancel`, leaves the pull to its other waiters.
    pub(crate) async fn pull(
        &self,
        reference: &Reference,
        credential: Credential,
        trace: Trace,
        cancel: CancellationToken,
    ) -> Result<StoredImage, Failure> {
        let mut request = PullRequest::new(reference.clone(), credential);
        request.trace = trace;
        request.cancel = cancel;
        Ok(self.0.pull(request).await?.into())
    }

    /// The image with this id or name.
    pub(crate) fn get(&self, name: &str) -> Option<StoredImage> {
        self.0.get(name).map(Into::into)
    }

    pub(crate) fn list(&self) -> Vec<StoredImage> {
        self.0.list().into_iter().map(Into::into).collect()
    }

    /// Removes an image with all its names; that there is none is no error.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), Status> {
        let removed = self.0.remove(name).await;
        removed
            .map(drop)
            .map_err(|f| failed(&format!("remove image {name:?}"), &f))
    }

    /// The layers, top first.
    pub(crate) fn lower_dirs(&self, image: &StoredImage) -> Vec<PathBuf> {
        self.0.lower_dirs(&image.image)
    }

    /// Keeps the layers for `owner` until [`release`](Self::release).
    pub(crate) async fn hold(&self, owner: &str, image: &StoredImage) -> Result<(), Status> {
        let held = self.0.hold(owner, &image.image).await;
        held.map_err(|f| failed(&format!("hold image {}", image.id), &f))
    }

    /// Gives up everything that a container holds: its image and the images that it mounts.
    pub(crate) async fn release(&self, container: &str) -> Result<(), Status> {
        for (owner, _) in self.0.holds() {
            if owner.starts_with(container) {
                let released = self.0.release(&owner).await;
                released.map_err(|f| failed(&format!("release what {owner} holds"), &f))?;
            }
        }
        Ok(())
    }

    /// Who holds something.
    pub(crate) fn owners(&self) -> Vec<String> {
        self.0.holds().into_iter().map(|(owner, _)| owner).collect()
    }

    /// The store itself.
    pub(crate) fn images(&self) -> &Images {
        &self.0
    }

    /// Removes now and then what no image uses and that is not fresh, until told to stop; and while the disk is nearly full, interrupted
    /// downloads that their next attempt did not come for.
    pub(crate) async fn tidy(self, every: Duration, stop: CancellationToken) {
        let mut next = Instant::now() + every;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK.min(every)) => {}
            }
            match self.0.relieve(IDLE).await {
                Ok(0) => {}
                Ok(bytes) => tracing::info!(
                    bytes,
                    "the disk is nearly full: interrupted downloads are removed"
                ),
                Err(failure) => {
                    tracing::warn!(error = %failure.chain(), "interrupted downloads are not removed");
                }
            }
            if Instant::now() < next {
                continue;
            }
            next = Instant::now() + every;
            match self.0.gc().await {
                Ok(collected) if collected.bytes > 0 => {
                    tracing::info!(?collected, "what no image uses is removed");
                }
                Ok(_) => {}
                Err(failure) => {
                    tracing::warn!(error = %failure.chain(), "the image store is not tidied");
                }
            }
        }
    }

    /// Bytes and inodes on disk.
    pub(crate) async fn usage(&self) -> Result<(u64, u64), Status> {
        let usage = self.0.usage().await;
        let usage = usage.map_err(|f| failed("measure the image store", &f))?;
        Ok((usage.bytes(), usage.inodes))
    }
}
