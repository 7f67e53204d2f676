//! A blob whose digest is known only at its end, as a registry receives it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use towline_oci::{Algorithm, Digest, Verifier};
use towline_sys::fs::{self, At as _};

use crate::StoreError;
use crate::state::Inner;

/// Bytes on their way in, named at the end. Dropped without [`Upload::commit`] it leaves nothing.
#[derive(Debug)]
pub struct Upload {
    store: Arc<Inner>,
    limit: u64,
    written: u64,
    verifier: Verifier,
    file: File,
    staged: PathBuf,
}

impl Upload {
    pub(crate) fn new(store: Arc<Inner>, limit: u64) -> Result<Self, StoreError> {
        let staged = store.layout.fresh("upload");
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&staged)
            .at("create", &staged)?;
        Ok(Self {
            store,
            limit,
            written: 0,
            verifier: Verifier::new(Algorithm::Sha256),
            file,
            staged,
        })
    }

    /// Takes in more bytes; fails when they are more than the limit.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let written = self.written + bytes.len() as u64;
        if written > self.limit {
            return Err(StoreError::TooLarge {
                limit: self.limit,
                actual: written,
            });
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

    /// Makes the blob durable under this digest, if that is its digest. Gives its size.
    pub fn commit(self, digest: &Digest) -> Result<u64, StoreError> {
        let actual = match digest.algorithm() {
            Algorithm::Sha256 => self.verifier.clone().finish(),
            Algorithm::Sha512 => self.hash_again(digest.verifier())?,
        };
        if actual != *digest {
            return Err(StoreError::Mismatch {
                what: "the content",
                expected: digest.clone(),
                actual,
            });
        }
        self.store.name_blob(&self.file, &self.staged, digest)?;
        Ok(self.written)
    }

    fn hash_again(&self, mut verifier: Verifier) -> Result<Digest, StoreError> {
        let mut file = fs::open(&self.staged)?;
        let mut buffer = vec![0; 1 << 17];
        loop {
            match file.read(&mut buffer).at("read", &self.staged)? {
                0 => return Ok(verifier.finish()),
                read => verifier.update(&buffer[..read]),
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // After a commit there is nothing under this name any more; a leftover is swept at the next open.
        fs::remove_file(&self.staged).ok();
    }
}
