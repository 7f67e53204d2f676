//! Blobs as files: `blobs/<algorithm>/<first two hex digits>/<hex>`.

use std::path::{Path, PathBuf};

use std::time::SystemTime;

use towline_oci::{Digest, Verifier};
use towline_sys::fs::{self, FsError};

use super::{
    ALGORITHMS, BlobStore, Content, StorageError, at_once, make_dirs, modified, optional_names,
    stamped,
};

/// Blobs in a directory.
#[derive(Debug)]
pub(crate) struct FileBlobs {
    root: PathBuf,
}

impl FileBlobs {
    /// Blobs below an existing directory.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn place(&self, digest: &Digest) -> (PathBuf, PathBuf) {
        let hex = digest.hex();
        let shelf = Path::new("blobs")
            .join(digest.algorithm().name())
            .join(&hex[..2]);
        let file = self.root.join(&shelf).join(hex);
        (shelf, file)
    }
}

impl BlobStore for FileBlobs {
    fn size(&self, digest: &Digest) -> Result<Option<u64>, StorageError> {
        let (_, path) = self.place(digest);
        match std::fs::metadata(&path) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FsError::new("look at", &path, error).into()),
        }
    }

    fn open(&self, digest: &Digest) -> Result<Option<(Content, u64)>, StorageError> {
        let (_, path) = self.place(digest);
        match fs::open(&path) {
            Ok(file) => {
                let length = file
                    .metadata()
                    .map_err(|error| FsError::new("look at", &path, error))?
                    .len();
                Ok(Some((Content::File(file), length)))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn open_at_once(&self, digest: &Digest) -> Option<(Content, u64)> {
        let file = at_once::open(&self.place(digest).1)?;
        // The kernel has what it says of a file that is open.
        let length = file.metadata().ok()?.len();
        Some((Content::File(file), length))
    }

    fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StorageError> {
        let mut verifier = Verifier::new(digest.algorithm());
        verifier.update(bytes);
        let actual = verifier.finish();
        if actual != *digest {
            return Err(StorageError::DigestMismatch {
                expected: digest.clone(),
                actual,
            });
        }
        let (shelf, path) = self.place(digest);
        if !path.is_file() {
            make_dirs(&self.root, &shelf)?;
            fs::write_atomic(&path, bytes)?;
        }
        Ok(())
    }

    fn each(&self, tell: &mut dyn FnMut(Digest, u64, SystemTime)) -> Result<(), StorageError> {
        for algorithm in ALGORITHMS {
            let top = self.root.join("blobs").join(algorithm.name());
            for shelf in optional_names(&top)? {
                for (name, found) in stamped(&top.join(shelf))? {
                    if let Ok(digest) = Digest::parse(&format!("{}:{name}", algorithm.name())) {
                        tell(digest, found.len(), modified(&found));
                    }
                }
            }
        }
        Ok(())
    }

    fn remove(&self, digest: &Digest) -> Result<bool, StorageError> {
        Ok(super::remove(&self.place(digest).1)?)
    }

    fn adopt(&self, staged: &Path, digest: &Digest) -> Result<(), StorageError> {
        let (shelf, path) = self.place(digest);
        let folder = make_dirs(&self.root, &shelf)?;
        // The bytes are the same if it is already there, so that replacing it changes nothing for a reader.
        fs::rename(staged, &path)?;
        fs::sync_dir(folder)?;
        Ok(())
    }
}
