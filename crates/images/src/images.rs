//! The images of a node.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use towline_cause::{Cause, Failure, Step};
use towline_distribution::{Fact, Observer};
use towline_keyring::Credential;
use towline_oci::{Digest, Reference};
use towline_store::{Collected, Damage, ImageRecord, Store, StoreError, Usage, Verified};
use towline_sys::task::{self, CancellationToken};

use crate::flight::{Flights, Key};
use crate::helper::Helpers;
use crate::keyed::Locks;
use crate::limiter::Limiter;
use crate::pull::Pull;
use crate::unpack::Rights;
use crate::{Image, Options, Plan, Progress, PullRequest, Unpacking};

/// The images of a node. Clones are the same thing.
#[derive(Debug, Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    store: Store,
    flights: Flights,
    locks: Arc<Locks>,
    limiter: Option<Arc<Limiter>>,
    /// `None` where layers are unpacked here.
    helpers: Option<Arc<Helpers>>,
}

impl Images {
    /// Opens the store and its images. Blocks. Fails with step commit where the store is in use ([`in_use_by`] says by whom), of another
    /// version, or damaged.
    pub fn open(options: Options) -> Result<Self, Failure> {
        let store = Store::open_with(&options.root, options.store).map_err(|error| {
            let detail = format!(
                "the image store {} cannot be opened",
                options.root.display()
            );
            error.into_failure(Step::Commit, detail)
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                helpers: match &options.unpacking {
                    Unpacking::Helper(program) => Some(Arc::new(Helpers::new(program.clone()))),
                    Unpacking::InProcess => None,
                },
                limiter: options.rate.map(|rate| Arc::new(Limiter::new(rate))),
                options,
                store,
                flights: Flights::default(),
                locks: Arc::default(),
            }),
        })
    }

    /// Pulls an image, or joins a pull of the same image with the same credential and platform that already runs.
    ///
    /// The image is unpacked and recorded when this returns. Dropping the future leaves the pull, as cancelling does; with the last waiter
    /// the download stops and what it has stays for the next attempt.
    pub async fn pull(&self, request: PullRequest) -> Result<Image, Failure> {
        let (image, key) = self.key(&request);
        let (waiter, running) = self.inner.flights.join(key.clone());
        if let Some(running) = running {
            let pull = self.prepare(
                &request,
                image,
                key,
                running.progress.clone(),
                running.cancel.clone(),
            );
            let (image, attempt) = (pull.image.to_string(), request.trace.attempt.clone());
            drop(task::spawn("pull", async move {
                let begun = tokio::time::Instant::now();
                tracing::info!(image, attempt, "pull begins");
                let result = Box::pin(pull.run()).await;
                log(&image, &attempt, begun.elapsed(), &result);
                running.land(result);
            }));
        }
        waiter.wait(request.cancel, request.progress).await
    }

    fn prepare(
        &self,
        request: &PullRequest,
        image: Reference,
        key: Key,
        progress: watch::Sender<Progress>,
        cancel: CancellationToken,
    ) -> Pull {
        let options = &self.inner.options;
        let client = &options.client;
        Pull {
            store: self.inner.store.clone(),
            locks: Arc::clone(&self.inner.locks),
            repository: client
                .repository(&image, key.credential, request.trace.clone())
                .observed(Arc::new(Logged(image.to_string()))),
            image,
            platform: key.platform,
            ceilings: options.ceilings,
            rights: Rights {
                unprivileged: options.unprivileged,
                exact_owners: options.exact_owners,
            },
            helpers: self.inner.helpers.clone(),
            max_concurrent_layers: options.max_concurrent_layers,
            connections_per_layer: options.connections_per_layer,
            limiter: self.inner.limiter.clone(),
            keep_blobs: options.keep_blobs,
            progress,
            cancel,
        }
    }

    fn key(&self, request: &PullRequest) -> (Reference, Key) {
        let image = request.image.clone().with_default_tag();
        let platform = request.platform.clone();
        let key = Key {
            image: image.to_string(),
            credential: request.credential.clone(),
            platform: platform.unwrap_or_else(|| self.inner.options.platform.clone()),
        };
        (image, key)
    }

    /// What [`Images::pull`] would do now. Asks the registry for manifest and config; changes nothing.
    pub async fn plan(&self, request: PullRequest) -> Result<Plan, Failure> {
        let (image, key) = self.key(&request);
        let progress = watch::Sender::new(Progress::default());
        let pull = self.prepare(&request, image, key, progress, request.cancel.clone());
        Box::pin(pull.plan()).await
    }

    /// How far each pull is that runs now, by its image's canonical name.
    pub fn running(&self) -> Vec<(String, Progress)> {
        self.inner.flights.running()
    }

    /// Unpacks again what the image with this id or name lacks, from compressed layers that are kept. No registry is asked. True where nothing
    /// is lacking in the end, also of the compressed layers.
    pub async fn restore(&self, name_or_id: &str) -> Result<bool, Failure> {
        let Some(record) = self.find(name_or_id) else {
            return Ok(false);
        };
        let names = record.sources.iter().chain(&record.repo_digests);
        let mut names = names.chain(&record.names);
        // Whoever is asked nothing needs no name that leads to it.
        let nobody = format!("localhost/image@{}", record.id);
        let name = names.next().unwrap_or(&nobody);
        let reference = Reference::parse(name).map_err(|error| {
            Failure::new(Cause::InvalidReference, Step::Reference, error.to_string())
        })?;
        let request = PullRequest::new(reference, Credential::Anonymous);
        let (image, key) = self.key(&request);
        let progress = watch::Sender::new(Progress::default());
        let pull = self.prepare(&request, image, key, progress, request.cancel.clone());
        let restored = Box::pin(pull.restore(record.clone())).await;
        if let Err(failure) = restored {
            tracing::debug!(image = %record.id, why = failure.chain(), "it is not unpacked again from here");
            return Ok(false);
        }
        Ok(self.inner.store.lacking(&record).is_empty())
    }

    /// Every image, by id. From memory.
    pub fn list(&self) -> Vec<Image> {
        let records = self.inner.store.images();
        records
            .iter()
            .filter_map(|record| self.image(record))
            .collect()
    }

    /// The image with this id (`sha256:` optional), or with this name (expanded as a reference; without tag it means `latest`), or the only one
    /// whose id begins so. From memory.
    pub fn get(&self, name_or_id: &str) -> Option<Image> {
        self.image(&self.find(name_or_id)?)
    }

    fn find(&self, name_or_id: &str) -> Option<ImageRecord> {
        let store = &self.inner.store;
        let id =
            Digest::parse(name_or_id).or_else(|_| Digest::parse(&format!("sha256:{name_or_id}")));
        if let Ok(id) = id {
            return store.image(&id);
        }
        let reference = Reference::parse(name_or_id).ok()?.with_default_tag();
        // A digest decides, whatever tag stands beside it.
        let reference = match reference.digest() {
            Some(digest) => reference.with_digest(digest.clone()),
            None => reference,
        };
        let named = store.image_named(&reference.to_string());
        named.or_else(|| self.find_by_start(name_or_id))
    }

    fn find_by_start(&self, start: &str) -> Option<ImageRecord> {
        if start.len() < 4 || !start.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let images = self.inner.store.images().into_iter();
        let mut fitting = images.filter(|image| image.id.hex().starts_with(start));
        let found = fitting.next()?;
        fitting.next().is_none().then_some(found)
    }

    fn image(&self, record: &ImageRecord) -> Option<Image> {
        Image::of(&self.inner.store, record)
            .inspect_err(|error| tracing::error!(%error, "an image record cannot be used"))
            .ok()
    }

    /// Removes the image with this id or name, with all its names, and the layers that nothing else uses. That there is none is no error;
    /// the answer says whether there was one.
    pub async fn remove(&self, name_or_id: &str) -> Result<bool, Failure> {
        let Some(record) = self.find(name_or_id) else {
            return Ok(false);
        };
        self.with_store(
            format!("image {} cannot be removed", record.id),
            move |store| store.remove_image(&record.id),
        )
        .await
    }

    /// Gives an image one more name; the name leaves the image that had it.
    pub async fn tag(&self, name_or_id: &str, name: &Reference) -> Result<Image, Failure> {
        let name = name.clone().with_default_tag().to_string();
        self.update(name_or_id, move |record| record.names.push(name))
            .await
    }

    /// Keeps an image from the kubelet's garbage collection, or no more.
    pub async fn pin(&self, name_or_id: &str, pinned: bool) -> Result<Image, Failure> {
        self.update(name_or_id, move |record| record.pinned = pinned)
            .await
    }

    async fn update(
        &self,
        name_or_id: &str,
        change: impl FnOnce(&mut ImageRecord) + Send + 'static,
    ) -> Result<Image, Failure> {
        let Some(record) = self.find(name_or_id) else {
            return Err(Failure::new(
                Cause::ImageCollected,
                Step::Commit,
                format!("there is no image {name_or_id:?} here"),
            ));
        };
        self.with_store(
            format!("image {} cannot be changed", record.id),
            move |store| {
                let record = store.update(&record.id, change)?;
                Image::of(store, &record)
            },
        )
        .await
    }

    /// The directories of an overlay mount, top first. Each stays while the image is recorded or held. A layer that hides everything below
    /// it is the last.
    pub fn lower_dirs(&self, image: &Image) -> Vec<PathBuf> {
        let store = &self.inner.store;
        let mut dirs = Vec::with_capacity(image.diff_ids.len());
        for diff_id in image.diff_ids.iter().rev() {
            // overlayfs refuses a directory that is given twice; below itself a layer adds nothing.
            let path = store.layer_path(diff_id);
            dirs.extend(path.filter(|path| !dirs.contains(path)));
            if store
                .layer_info(diff_id)
                .is_some_and(|info| info.opaque_root)
            {
                break;
            }
        }
        dirs
    }

    /// Keeps the layers of an image for `owner` (a container's id) until [`Images::release`], also over a restart and when the image is removed.
    pub async fn hold(&self, owner: &str, image: &Image) -> Result<(), Failure> {
        let (owner, id) = (owner.to_owned(), image.id.clone());
        self.with_store(format!("image {id} cannot be held"), move |store| {
            store.hold(&owner, &id)?;
            store.update(&id, |record| record.last_used = Timestamp::now())?;
            Ok(())
        })
        .await
    }

    /// Ends what [`Images::hold`] began. That there is no hold is no error.
    pub async fn release(&self, owner: &str) -> Result<(), Failure> {
        let owner = owner.to_owned();
        self.with_store(
            format!("the hold of {owner} cannot be ended"),
            move |store| store.release(&owner),
        )
        .await
    }

    /// Every hold: owner and image id.
    pub fn holds(&self) -> Vec<(String, Digest)> {
        self.inner.store.holds()
    }

    /// What the store takes.
    pub async fn usage(&self) -> Result<Usage, Failure> {
        self.with_store(
            "the use of the store cannot be told".to_owned(),
            Store::usage,
        )
        .await
    }

    /// Removes what no image and no hold uses and that is not fresh, and old leftovers of cut pulls.
    pub async fn gc(&self) -> Result<Collected, Failure> {
        self.with_store("the store cannot be tidied".to_owned(), |store| {
            store.gc(Timestamp::now())
        })
        .await
    }

    /// As [`Images::gc`], and every interrupted download that no pull waits for.
    pub async fn prune(&self) -> Result<Collected, Failure> {
        self.with_store("the store cannot be tidied".to_owned(), |store| {
            store.prune(Timestamp::now())
        })
        .await
    }

    /// Where less than 15 % of the disk is free: removes interrupted downloads that no pull waits for and that nobody wrote to for `idle`.
    /// Gives the bytes.
    pub async fn relieve(&self, idle: Duration) -> Result<u64, Failure> {
        self.with_store("the store cannot be tidied".to_owned(), move |store| {
            if towline_sys::fs::free_percent(store.root())? >= 15 {
                return Ok(0);
            }
            store.free_spools(Timestamp::now(), idle, u64::MAX)
        })
        .await
    }

    /// Keeps no compressed layer of any image any more, and removes those that no pull in flight uses.
    pub async fn forget_kept(&self) -> Result<Collected, Failure> {
        let detail = "compressed layers cannot be removed".to_owned();
        self.with_store(detail, Store::forget_kept).await
    }

    /// Reads everything that can be compared with a digest or a list of its own, and looks whether every image has what it needs.
    pub async fn verify(&self) -> Result<Vec<Damage>, Failure> {
        let detail = "the store cannot be verified".to_owned();
        self.with_store(detail, Store::verify).await
    }

    /// As [`Images::verify`], and how much could not be compared.
    pub async fn compare(&self) -> Result<Verified, Failure> {
        let detail = "the store cannot be verified".to_owned();
        self.with_store(detail, Store::compare).await
    }

    /// Whether there is a store in `root`.
    pub fn are_at(root: &Path) -> bool {
        Store::is_at(root)
    }

    /// Puts aside what is damaged, so that the next pull of its image fetches it again. False where a container holds it: then it stays.
    pub async fn set_aside(&self, damage: &Damage) -> Result<bool, Failure> {
        let damage = damage.clone();
        let detail = "what is damaged cannot be put aside".to_owned();
        self.with_store(detail, move |store| store.set_aside(&damage))
            .await
    }

    /// Ends a repair: what was put aside and did not come again gets its place back. Gives the digests of that.
    pub async fn conclude(&self) -> Result<Vec<Digest>, Failure> {
        let detail = "what was put aside cannot be put back".to_owned();
        self.with_store(detail, Store::conclude).await
    }

    /// Stops every pull and waits for their threads; what they have stays for the next attempt. Pulls that begin later are not stopped.
    pub async fn stop(&self) {
        self.inner.flights.stop().await;
    }

    async fn with_store<T: Send + 'static>(
        &self,
        detail: String,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Failure> {
        let store = self.inner.store.clone();
        task::blocking("store", move || work(&store))
            .await
            .map_err(|error| error.into_failure(Step::Commit, detail))
    }
}

/// Logs what happens on the way to a registry: decisions as `info`, the rest as `debug`.
struct Logged(String);

impl Observer for Logged {
    fn observe(&self, fact: Fact) {
        let image = &self.0;
        match fact {
            Fact::Retry {
                what,
                attempt,
                wait_millis,
                why,
            } => tracing::info!(image, what, attempt, wait_millis, why, "asked again"),
            Fact::Endpoint { endpoint, outcome } => {
                tracing::info!(image, endpoint, outcome, "the next endpoint is asked");
            }
            other => tracing::debug!(image, fact = ?other, "on the way"),
        }
    }
}

/// Who uses the store, where that is why [`Images::open`] failed: process id and program, as that process wrote them.
pub fn in_use_by(failure: &Failure) -> Option<&str> {
    let source = std::error::Error::source(failure)?;
    match source.downcast_ref::<StoreError>()? {
        StoreError::InUse { holder, .. } => Some(holder),
        _ => None,
    }
}

fn log(image: &str, attempt: &str, took: std::time::Duration, result: &Result<Image, Failure>) {
    match result {
        Ok(pulled) => {
            tracing::info!(image, attempt, ?took, id = %pulled.id, size = pulled.size, "pull ends");
        }
        Err(failure) => {
            let (cause, step) = (failure.cause().name(), failure.step().name());
            tracing::warn!(image, attempt, ?took, cause, step, error = %failure.chain(), "pull fails");
        }
    }
}
