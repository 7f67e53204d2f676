//! Blobs: written once, verified while they are written.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use towline_oci::{Digest, Verifier};
use towline_sys::fs::{self, At as _};

use crate::StoreError;
use crate::state::Inner;

/// A blob on its way in. Dropped without [`BlobWriter::commit`] it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    store: Arc<Inner>,
    digest: Digest,
    size: u64,
    written: u64,
    verifier: Verifier,
    file: File,
    staged: PathBuf,
}

impl BlobWriter {
    pub(crate) fn new(store: Arc<Inner>, digest: &Digest, size: u64) -> Result<Self, StoreError> {
        let staged = store.layout.fresh("blob");
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&staged)
            .at("create", &staged)?;
        Ok(Self {
            store,
            digest: digest.clone(),
            size,
            written: 0,
            verifier: digest.verifier(),
            file,
            staged,
        })
    }

    /// Takes in more bytes; fails when they are more than were declared.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let written = self.written + bytes.len() as u64;
        if written > self.size {
            return Err(self.wrong_size(written));
        }
        self.file.write_all(bytes).at("write", &self.staged)?;
        self.verifier.update(bytes);
        self.written = written;
        Ok(())
    }

    /// Bytes taken in.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Makes the blob durable and gives it its name, if size and digest are right.
    pub fn commit(self) -> Result<(), StoreError> {
        if self.written != self.size {
            return Err(self.wrong_size(self.written));
        }
        let actual = self.verifier.clone().finish();
        if actual != self.digest {
            return Err(StoreError::Mismatch {
                what: "the content",
                expected: self.digest.clone(),
                actual,
            });
        }
        self.store.name_blob(&self.file, &self.staged, &self.digest)
    }

    fn wrong_size(&self, actual: u64) -> StoreError {
        StoreError::Size {
            digest: self.digest.clone(),
            declared: self.size,
            actual,
        }
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // After a commit there is nothing under this name any more; a leftover is swept at the next open.
        fs::remove_file(&self.staged).ok();
    }
}
