//! Room for what comes: what was used longest ago goes first, and never what is being served.
//!
//! Three things ask for room: the cache's own size, a quota, and the disk. What goes is a blob or a manifest of a repository that stands
//! for an upstream's; its bytes go with it, unless another repository holds them. It is fetched again when it is asked for.

use std::collections::HashMap;
use std::path::Path;
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
use crate::quota::{OverQuota, Quota};
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

/// What went.
#[derive(Clone, Copy, Debug, Default)]
struct Gone {
    bytes: u64,
    /// Whether something stayed because it is in use.
    is_busy: bool,
}

impl Wanted<'_> {
    /// What a quota lacks.
    fn by<'a>(over: &OverQuota, name: &'a Repository) -> Wanted<'a> {
        let missing = over.used.saturating_add(over.more);
        Wanted {
            bytes: missing.saturating_sub(over.limit),
            of: over.repository.is_some().then_some(name),
        }
    }
}

impl Registry {
    /// Makes room for something of this size that comes into a repository, and holds it. Of that size `new` bytes are not here yet. Fails
    /// where there is none, however much goes. Blocks.
    pub(super) fn make_room(
        &self,
        name: &Repository,
        size: u64,
        new: u64,
    ) -> Result<Coming, StorageError> {
        let usage = &self.cache.usage;
        let _one = usage.making();
        if let Some(most) = self.cache.options.size
            && self.cache.keeps(new)
        {
            self.shrink((most - new).saturating_sub(usage.held().coming))?;
        }
        let mut is_busy = false;
        for _ in 0..ATTEMPTS {
            let Some(wanted) = self.lacking(name, size, new)? else {
                return Ok(usage.coming(name, size, new));
            };
            let gone = self.evict(wanted)?;
            is_busy = gone.is_busy;
            if gone.bytes == 0 {
                break;
            }
        }
        // Nothing more can go. What is in use may go before this has come, and what comes beside it may not come to be kept: it is looked
        // once more then. Where nothing is in use there will be no room then, either.
        if !is_busy {
            self.room_for(name, size, new)?;
        }
        match self.disk_lacks(new) {
            0 => Ok(usage.coming(name, size, new)),
            _ => Err(FsError::new(
                "make room on the disk of",
                &self.cache.staging,
                std::io::Error::from(std::io::ErrorKind::StorageFull),
            )
            .into()),
        }
    }

    /// What must go for something that comes, beside all that comes already and will be there before it; none where there is room.
    fn lacking<'a>(
        &self,
        name: &'a Repository,
        size: u64,
        new: u64,
    ) -> Result<Option<Wanted<'a>>, StorageError> {
        let usage = &self.cache.usage;
        let in_repository = size.saturating_add(usage.coming_into(name));
        let in_all = new.saturating_add(usage.held().coming);
        match self.room_for(name, in_repository, in_all) {
            Err(StorageError::OverQuota(over)) => Ok(Some(Wanted::by(&over, name))),
            Err(error) => Err(error),
            Ok(()) => {
                let bytes = self.disk_lacks(new);
                Ok((bytes > 0).then_some(Wanted { bytes, of: None }))
            }
        }
    }

    /// Bytes that the disk lacks for so many more, beside what is kept free and what is still to come.
    fn disk_lacks(&self, new: u64) -> u64 {
        let held = self.cache.usage.held();
        let needed = self
            .settings
            .get()
            .limits
            .reserve
            .saturating_add(new)
            .saturating_add(held.coming.saturating_sub(held.arrived));
        let free = self.state.free().unwrap_or(u64::MAX);
        needed.saturating_sub(free)
    }

    /// Keeps a blob that came whole, if there is room for it now: what came beside it may have taken the room. Otherwise it was only passed
    /// on. Blocks.
    pub(super) fn keep_blob(
        &self,
        name: &Repository,
        digest: &Digest,
        size: u64,
        staged: &Path,
    ) -> Result<bool, StorageError> {
        let usage = &self.cache.usage;
        let most = self.cache.options.size;
        let is_bounded = most.is_some() || self.settings.get().quota != Quota::default();
        // One after the other, so that two do not take the same room.
        let _one = is_bounded.then(|| usage.making());
        if let Some(most) = most
            && (size > most || self.shrink(most - size)? > most - size)
        {
            return Ok(false);
        }
        for _ in 0..ATTEMPTS {
            match self.take_blob(name, digest, size, staged) {
                Err(StorageError::OverQuota(over)) => {
                    if self.evict(Wanted::by(&over, name))?.bytes == 0 {
                        break;
                    }
                }
                taken => return taken.map(|()| true),
            }
        }
        Ok(false)
    }

    fn take_blob(
        &self,
        name: &Repository,
        digest: &Digest,
        size: u64,
        staged: &Path,
    ) -> Result<(), StorageError> {
        let adding = self.gate.adding();
        adding.note(name, [digest]);
        let room = self.charge(name, digest, size)?;
        self.blobs.adopt(staged, digest)?;
        self.metadata.link_blob(name, digest)?;
        room.kept();
        self.cache.used(name, digest);
        self.cache.usage.grew(size);
        Ok(())
    }

    /// Lets go what of the cache is more than this; what is kept then.
    fn shrink(&self, most: u64) -> Result<u64, StorageError> {
        let usage = &self.cache.usage;
        if let Some(kept) = usage.held().kept.filter(|kept| *kept <= most) {
            return Ok(kept);
        }
        let kept = self.stock()?.bytes;
        usage.counted(kept);
        if kept <= most {
            return Ok(kept);
        }
        let spare = self.cache.options.size.unwrap_or_default() / SPARE;
        let bytes = (kept - most).saturating_add(spare);
        self.evict(Wanted { bytes, of: None })?;
        Ok(usage.held().kept.unwrap_or_default())
    }

    /// Lets the things go that were used longest ago, until so many bytes went.
    fn evict(&self, wanted: Wanted<'_>) -> Result<Gone, StorageError> {
        self.note_uses();
        self.gate
            .in_batches(|batches| self.evict_in(wanted, batches))
    }

    fn evict_in(&self, wanted: Wanted<'_>, batches: &Batches<'_>) -> Result<Gone, StorageError> {
        let usage = &self.cache.usage;
        let Stock {
            mut things,
            mut holders,
            mut bytes,
        } = self.stock()?;
        things.retain(|thing| wanted.of.is_none_or(|name| thing.repository == *name));
        things.sort_by_key(|thing| thing.used);
        let mut gone = Gone::default();
        let (mut some, mut left) = (Vec::new(), things.into_iter());
        while gone.bytes < wanted.bytes {
            some.extend(left.by_ref().take(Batches::SIZE));
            if some.is_empty() {
                break;
            }
            batches.alone(|fresh| {
                for thing in some.drain(..) {
                    let (name, digest) = (&thing.repository, &thing.digest);
                    let is_busy = usage.is_served(digest)
                        || usage.is_used(name, digest)
                        || fresh(Some(name), digest);
                    gone.is_busy |= is_busy;
                    if gone.bytes >= wanted.bytes || is_busy || !self.let_go(&thing)? {
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
                        gone.bytes += thing.size;
                    }
                }
                Ok::<_, StorageError>(())
            })?;
        }
        usage.counted(bytes);
        self.quotas.forget_all();
        if gone.bytes > 0 {
            tracing::info!(bytes = gone.bytes, "the cache made room");
        }
        Ok(gone)
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
        let coming = self.cache.usage.held().coming;
        let size = self.cache.options.size;
        let shrunk = size.map(|most| self.shrink(most.saturating_sub(coming)));
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
