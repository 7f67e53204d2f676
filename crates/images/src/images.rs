//! The images of a node.

use std::path::PathBuf;

use towline_cause::{Cause, Failure, Step};
use towline_oci::{Digest, Reference};
use towline_store::{Collected, Usage};

use crate::{Image, Options, PullRequest};

/// The images of a node. Clones are the same thing.
#[derive(Debug, Clone)]
pub struct Images;

impl Images {
    /// Opens the store and its images. Blocks. Fails with step commit where the store is in use, of another version, or damaged.
    pub fn open(options: Options) -> Result<Self, Failure> {
        drop(options);
        Err(unfinished())
    }

    /// Pulls an image, or joins a pull of the same image with the same credential and platform that already runs.
    ///
    /// The image is unpacked and recorded when this returns. Dropping the future leaves the pull, as cancelling does.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn pull(&self, request: PullRequest) -> Result<Image, Failure> {
        drop(request);
        Err(unfinished())
    }

    /// Every image, by id. From memory.
    pub fn list(&self) -> Vec<Image> {
        Vec::new()
    }

    /// The image with this id (`sha256:` optional), or with this name (expanded as a reference; without tag it means `latest`). From memory.
    pub fn get(&self, name_or_id: &str) -> Option<Image> {
        let _ = name_or_id;
        None
    }

    /// Removes the image with this id or name, with all its names, and the layers that nothing else uses. That there is none is no error;
    /// the answer says whether there was one.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn remove(&self, name_or_id: &str) -> Result<bool, Failure> {
        let _ = name_or_id;
        Err(unfinished())
    }

    /// Gives an image one more name; the name leaves the image that had it.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn tag(&self, name_or_id: &str, name: &Reference) -> Result<Image, Failure> {
        let _ = (name_or_id, name);
        Err(unfinished())
    }

    /// Keeps an image from the kubelet's garbage collection, or no more.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn pin(&self, name_or_id: &str, pinned: bool) -> Result<Image, Failure> {
        let _ = (name_or_id, pinned);
        Err(unfinished())
    }

    /// The directories of an overlay mount, top first. Each stays while the image is recorded or held.
    pub fn lower_dirs(&self, image: &Image) -> Vec<PathBuf> {
        let _ = image;
        Vec::new()
    }

    /// Keeps the layers of an image for `owner` (a container's id) until [`Images::release`], also over a restart and when the image is removed.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn hold(&self, owner: &str, image: &Image) -> Result<(), Failure> {
        let _ = (owner, image);
        Err(unfinished())
    }

    /// Ends what [`Images::hold`] began. That there is no hold is no error.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn release(&self, owner: &str) -> Result<(), Failure> {
        let _ = owner;
        Err(unfinished())
    }

    /// Every hold: owner and image id.
    pub fn holds(&self) -> Vec<(String, Digest)> {
        Vec::new()
    }

    /// What the store takes. From memory, except the spool.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn usage(&self) -> Result<Usage, Failure> {
        Err(unfinished())
    }

    /// Removes what no image and no hold uses and that is not fresh, and old leftovers of cut pulls.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn gc(&self) -> Result<Collected, Failure> {
        Err(unfinished())
    }
}

fn unfinished() -> Failure {
    Failure::new(Cause::Unknown, Step::Commit, "not written yet")
}
