//! Whether everything is as it was pushed: bytes are hashed again, links followed.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use towline_oci::{Digest, Document, Verifier};
use towline_sys::fs::FsError;

use crate::cache::partial::Cached;
use crate::collect::document;
use crate::error::Error;
use crate::handlers::is_elsewhere;
use crate::names::{Repository, Tag};
use crate::server::open_shared;
use crate::storage::s3::{Role, S3Blobs, S3Metadata, S3Options};
use crate::storage::{BlobStore, FileBlobs, FileMetadata, MetadataStore, StorageError};

/// Entries of one directory that are read.
const ENTRIES: usize = 10_000_000;
/// Problems that are told; more are only counted.
const TOLD: usize = 1000;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// Repositories.
    pub repositories: u64,
    /// Manifests.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Blobs, each hashed again.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many things are wrong.
    pub wrong: u64,
    /// What is wrong; at most a thousand.
    pub problems: Vec<Problem>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The repository; none where a blob itself is damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The digest or tag.
    pub name: String,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Looks at a registry's directory. Reads all of it and changes nothing, also while it is in use; what a push changes
/// meanwhile is looked at twice before it is called wrong. Images whose layers are missing are well in repositories that cache others',
/// and with `sparse` everywhere.
pub fn check(root: &Path, sparse: bool) -> Result<Checked, StorageError> {
    let check = Check {
        blobs: Box::new(FileBlobs::new(root.to_owned())),
        metadata: Box::new(FileMetadata::new(root.to_owned(), ENTRIES)),
        sparse,
        cached: Cached::of(root)?,
    };
    check.run()
}

/// As [`check`], for what lies on object storage. Blocks, inside of a runtime's thread for that.
pub fn check_shared(options: &S3Options, sparse: bool) -> Result<Checked, Error> {
    let reader = S3Options {
        role: Role::Reader,
        ..options.clone()
    };
    let journal = open_shared(&reader, "", "")?;
    let check = Check {
        blobs: Box::new(S3Blobs::new(Arc::clone(&journal))),
        metadata: Box::new(S3Metadata::new(journal)),
        sparse,
        cached: Cached::default(),
    };
    check.run().map_err(|source| Error::SharedStorage {
        place: options.place(),
        source,
    })
}

impl Check {
    fn run(&self) -> Result<Checked, StorageError> {
        let check = self;
        let mut found = Checked::default();
        check.hash_all(&mut found)?;
        for repository in check.metadata.repositories()? {
            found.repositories += 1;
            check.repository(&repository, &mut found)?;
        }
        Ok(found)
    }
}

struct Check {
    blobs: Box<dyn BlobStore>,
    metadata: Box<dyn MetadataStore>,
    sparse: bool,
    cached: Cached,
}

impl Checked {
    fn wrong(&mut self, repository: Option<&Repository>, name: &dyn ToString, what: &'static str) {
        self.wrong += 1;
        if self.problems.len() < TOLD {
            self.problems.push(Problem {
                repository: repository.map(ToString::to_string),
                name: name.to_string(),
                what,
            });
        }
    }
}

impl Check {
    fn hash_all(&self, found: &mut Checked) -> Result<(), StorageError> {
        let mut all = Vec::new();
        self.blobs.each(&mut |digest, _, _| all.push(digest))?;
        let mut buffer = vec![0; 256 << 10];
        for digest in all {
            // One that was collected meanwhile is not there any more.
            let Some((mut file, _)) = self.blobs.open(&digest)? else {
                continue;
            };
            let mut verifier = Verifier::new(digest.algorithm());
            found.blobs += 1;
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(length) => {
                        found.bytes += length as u64;
                        verifier.update(&buffer[..length]);
                    }
                    Err(error) => {
                        return Err(FsError::new("read", digest.to_string(), error).into());
                    }
                }
            }
            if verifier.finish() != digest {
                found.wrong(None, &digest, "its bytes have another digest");
            }
        }
        Ok(())
    }

    fn repository(&self, name: &Repository, found: &mut Checked) -> Result<(), StorageError> {
        for digest in self.metadata.manifests(name)? {
            found.manifests += 1;
            if let Some(what) = twice(|| self.manifest(name, &digest))? {
                found.wrong(Some(name), &digest, what);
            }
        }
        for tag in self.metadata.tags(name)? {
            found.tags += 1;
            let Ok(tag) = Tag::parse(&tag) else {
                found.wrong(Some(name), &tag, "this cannot be a tag");
                continue;
            };
            let wrong = twice(|| {
                let Some(digest) = self.metadata.tag(name, &tag)? else {
                    return Ok(None);
                };
                let there = self.metadata.manifest(name, &digest)?.is_some();
                Ok((!there).then_some("the tag names a manifest that is not there"))
            })?;
            if let Some(what) = wrong {
                found.wrong(Some(name), &tag, what);
            }
        }
        for (digest, _) in self.metadata.blob_links(name)? {
            let wrong = twice(|| {
                let gone =
                    self.metadata.has_blob(name, &digest)? && self.blobs.size(&digest)?.is_none();
                Ok(gone.then_some("the repository holds a blob whose bytes are gone"))
            })?;
            if let Some(what) = wrong {
                found.wrong(Some(name), &digest, what);
            }
        }
        Ok(())
    }

    fn manifest(
        &self,
        name: &Repository,
        digest: &Digest,
    ) -> Result<Option<&'static str>, StorageError> {
        let Some(record) = self.metadata.manifest(name, digest)? else {
            return Ok(None);
        };
        if self.blobs.size(digest)?.is_none() {
            return Ok(Some("the manifest's bytes are gone"));
        }
        let Some(document) = document(&*self.blobs, &record.media_type, digest)? else {
            return Ok(Some("the manifest cannot be read"));
        };
        if let Some(subject) = &record.subject
            && !self.metadata.is_referrer(name, subject, digest)?
        {
            return Ok(Some(
                "the manifest is not in the list of referrers of its subject",
            ));
        }
        if self.sparse || self.cached.has(name) {
            return Ok(None);
        }
        let absent = match &document {
            Document::Manifest(manifest) => {
                let parts = std::iter::once(&manifest.config).chain(&manifest.layers);
                let mut parts = parts.filter(|part| !is_elsewhere(part));
                parts.try_fold(false, |absent, part| {
                    Ok::<_, StorageError>(absent || !self.metadata.has_blob(name, &part.digest)?)
                })?
            }
            Document::Index(index) => index.manifests.iter().try_fold(false, |absent, part| {
                let there = self.metadata.manifest(name, &part.digest)?.is_some()
                    || self.metadata.has_blob(name, &part.digest)?;
                Ok::<_, StorageError>(absent || !there)
            })?,
        };
        Ok(absent.then_some("the manifest names content that the repository does not hold"))
    }
}

/// What is wrong still when it is looked at again.
fn twice(
    look: impl Fn() -> Result<Option<&'static str>, StorageError>,
) -> Result<Option<&'static str>, StorageError> {
    match look()? {
        None => Ok(None),
        Some(_) => look(),
    }
}
