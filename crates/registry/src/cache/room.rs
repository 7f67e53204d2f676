//! Room for what comes: what was used longest ago goes first, and never what is being served.
//!
//! Three things ask for room: the cache's own size, a quota, and the disk. What goes is a blob or a manifest of a repository that stands
//! for an upstream's; its bytes go with it, unless another repository holds them. It is fetched again when it is asked for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use towline_oci::Digest;
use towline_sys::fs::FsError;
use towline_sys::task;

use super::Cache;
use super::usage::Coming;
use crate::collect::Batches;
use crate::handlers::Registry;
use crate::names::Repository;
use crate::quota::OverQuota;
use crate::storage::StorageError;

/// How often it is written down what was used, and looked whether there is too much.
const LOOK: Duration = Duration::from_secs(60);
/// More than what must go goes, so that not every download looks at everything: this part of the size.
const SPARE: u64 = 10;
/// Attempts at making room where others take it meanwhile.
const ATTEMPTS: usize = 3;

/// Something that may go.
#[derive(Debug)]
struct Thing {
    repository: Repository,
    digest: Digest,
    is_manifest: bool,
    size: u64,
    used: SystemTime,
}

/// All of the cache, and who else holds its bytes.
#[derive(Debug, Default)]
struct Stock {
    things: Vec<Thing>,
    holders: HashMap<Digest, usize>,
    /// Bytes of the cache, each content once.
    bytes: u64,
}

/// How much must go, and of what.
#[derive(Clone, Copy, Debug)]
struct Wanted<'a> {
    bytes: u64,
    /// Of this repository alone, whose own sum it is.
    of: Option<&'a Repository>,
}

impl Registry {
    /// Makes room for a blob that comes, and keeps it. Fails where there is none, however much goes. Blocks.
    pub(super) fn make_room(&self, name: &Repository, size: u64) -> Result<Coming, StorageError> {
        let usage = &self.cache.usage;
        let _one = usage.making();
        if let Some(most) = self.cache.options.size
            && self.cache.keeps(size)
        {
            self.shrink(most - size)?;
        }
        for _ in 0..ATTEMPTS {
            // With what comes already, which will be charged before this.
            let with_others = size.saturating_add(usage.coming_into(name));
            let (bytes, of) = match self.room(name, with_others) {
                Err(StorageError::OverQuota(over)) => (excess(&over), over.repository.is_some()),
                Err(error) => return Err(error),
                Ok(()) => match self.lacking(size) {
                    0 => return Ok(usage.coming(name, size)),
                    lacking => (lacking, false),
                },
            };
            let of = of.then_some(name);
            if self.evict(Wanted { bytes, of })? == 0 {
                break;
            }
        }
        self.room(name, size)?;
        match self.lacking(size) {
            0 => Ok(usage.coming(name, size)),
            _ => Err(FsError::new(
                "make room on the disk of",
                &self.cache.staging,
                std::io::Error::from(std::io::ErrorKind::StorageFull),
            )
            .into()),
        }
    }

    /// Bytes that the disk lacks for something of this size, beside what is kept free.
    fn lacking(&self, size: u64) -> u64 {
        let reserve = self.settings.get().limits.reserve;
        let needed = reserve
            .saturating_add(size)
            .saturating_add(self.cache.usage.held().coming);
        let free = self.state.free().unwrap_or(u64::MAX);
        needed.saturating_sub(free)
    }

    /// Lets go what is more than this, with what comes.
    fn shrink(&self, most: u64) -> Result<(), StorageError> {
        let held = self.cache.usage.held();
        let most = most.saturating_sub(held.coming);
        if held.kept.is_some_and(|kept| kept <= most) {
            return Ok(());
        }
        let kept = self.stock()?.bytes;
        self.cache.usage.counted(kept);
        if kept > most {
            let spare = self.cache.options.size.unwrap_or_default() / SPARE;
            let bytes = (kept - most).saturating_add(spare);
            self.evict(Wanted { bytes, of: None })?;
        }
        Ok(())
    }

    /// Lets the things go that were used longest ago, until so many bytes went; how many did.
    fn evict(&self, wanted: Wanted<'_>) -> Result<u64, StorageError> {
        self.note_uses();
        self.gate
            .in_batches(|batches| self.evict_in(wanted, batches))
    }

    fn evict_in(&self, wanted: Wanted<'_>, batches: &Batches<'_>) -> Result<u64, StorageError> {
        let usage = &self.cache.usage;
        let Stock {
            mut things,
            mut holders,
            mut bytes,
        } = self.stock()?;
        things.retain(|thing| wanted.of.is_none_or(|name| thing.repository == *name));
        things.sort_by_key(|thing| thing.used);
        let mut went = 0;
        let (mut some, mut left) = (Vec::new(), things.into_iter());
        while went < wanted.bytes {
            some.extend(left.by_ref().take(Batches::SIZE));
            if some.is_empty() {
                break;
            }
            batches.alone(|fresh| {
                for thing in some.drain(..) {
                    let (name, digest) = (&thing.repository, &thing.digest);
                    let stays = usage.is_served(digest)
                        || usage.is_used(name, digest)
                        || fresh(Some(name), digest);
                    if went >= wanted.bytes || stays || !self.let_go(&thing)? {
                        continue;
                    }
                    let others = holders.entry(digest.clone()).or_default();
                    *others = others.saturating_sub(1);
                    let is_last = *others == 0 && !fresh(None, digest);
                    if is_last && self.blobs.remove(digest)? {
                        bytes = bytes.saturating_sub(thing.size);
                        usage.went(thing.size);
                    }
                    // A repository has room again also where others hold the same bytes.
                    if is_last || wanted.of.is_some() {
                        went += thing.size;
                    }
                }
                Ok::<_, StorageError>(())
            })?;
        }
        usage.counted(bytes);
        self.quotas.forget_all();
        if went > 0 {
            tracing::info!(bytes = went, "the cache made room");
        }
        Ok(went)
    }

    /// Takes a thing from its repository; false if it is not there any more.
    fn let_go(&self, thing: &Thing) -> Result<bool, StorageError> {
        let (name, digest) = (&thing.repository, &thing.digest);
        if thing.is_manifest {
            return self.metadata.delete_manifest(name, digest);
        }
        self.metadata.unlink_blob(name, digest)
    }

    /// All that the cache holds.
    fn stock(&self) -> Result<Stock, StorageError> {
        let mut stock = Stock::default();
        let mut sizes: HashMap<Digest, u64> = HashMap::new();
        for repository in self.metadata.repositories()? {
            let is_cached = self.cache.find(&repository).is_some();
            let blobs = self.metadata.blob_links(&repository)?.into_iter();
            let blobs = blobs.map(|(digest, used)| (digest, used, false));
            let manifests = self.metadata.manifest_times(&repository)?.into_iter();
            let manifests = manifests.map(|(digest, used)| (digest, used, true));
            for (digest, used, is_manifest) in blobs.chain(manifests) {
                *stock.holders.entry(digest.clone()).or_default() += 1;
                if !is_cached {
                    continue;
                }
                let size = if let Some(size) = sizes.get(&digest) {
                    *size
                } else {
                    let size = self.blobs.size(&digest)?.unwrap_or_default();
                    sizes.insert(digest.clone(), size);
                    stock.bytes += size;
                    size
                };
                stock.things.push(Thing {
                    repository: repository.clone(),
                    digest,
                    is_manifest,
                    size,
                    used,
                });
            }
        }
        Ok(stock)
    }

    /// Writes down when things were used. Blocks.
    pub(crate) fn note_uses(&self) {
        for ((name, digest), at) in self.cache.usage.take_times() {
            // What is gone meanwhile needs no time, and one that cannot be written only goes earlier.
            if let Err(error) = self.metadata.note_use(&name, &digest, at) {
                let error = task::chain(&error);
                tracing::warn!(error, "note when something was used");
            }
        }
    }

    /// Writes down now and then what was used, and lets go what is too much. Never ends.
    pub(crate) async fn keep_cache_small(self: Arc<Self>) {
        if self.cache.sources.is_empty() {
            return std::future::pending().await;
        }
        loop {
            let this = Arc::clone(&self);
            task::blocking("keep the cache small", move || this.keep_size()).await;
            tokio::time::sleep(LOOK).await;
        }
    }

    fn keep_size(&self) {
        let _one = self.cache.usage.making();
        self.note_uses();
        let shrunk = self.cache.options.size.map(|most| self.shrink(most));
        if let Some(Err(error)) = shrunk {
            let error = task::chain(&error);
            tracing::warn!(error, "keep the cache small");
        }
    }
}

impl Cache {
    /// Whether something of this size is kept, or only passed on.
    pub(super) fn keeps(&self, size: u64) -> bool {
        self.options.size.is_none_or(|most| size <= most)
    }

    /// Something of an upstream's repository was asked for.
    pub(super) fn used(&self, name: &Repository, digest: &Digest) {
        self.usage.used(name, digest);
    }
}

/// How many bytes must go for what is to come.
fn excess(over: &OverQuota) -> u64 {
    over.used
        .saturating_add(over.more)
        .saturating_sub(over.limit)
}
