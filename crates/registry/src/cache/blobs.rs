//! Blobs of an upstream: served where they are held, followed where they come, begun where they are not.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use towline_cause::{Cause, Failure, Step};
use towline_distribution::Repository as Remote;
use towline_oci::{Descriptor, Digest};
use towline_sys::task;

use super::fill::{Failed, Fill};
use super::trouble::{Trouble, of_storage};
use super::upstream::Source;
use super::{SIZES_TIME, from, not_there};
use crate::body::{Body, full};
use crate::handlers::{Answer, Part, Registry, blob_answer, blob_in, text_header};
use crate::names::Repository;
use crate::range::{Wanted, wanted};
use crate::refusal::Refusal;
use crate::storage::StorageError;

/// Attempts at serving a blob that is there and makes room for others before it is read.
const ATTEMPTS: usize = 3;

/// What somebody who wants a blob gets.
enum Begun {
    /// It is held.
    Held,
    /// It comes.
    Comes(Arc<Fill>),
}

impl Registry {
    pub(super) async fn cached_blob(
        self: &Arc<Self>,
        source: &Arc<Source>,
        request: &Request<Incoming>,
        name: Repository,
        digest: Digest,
    ) -> Answer {
        let is_head = request.method() == Method::HEAD;
        if !is_head && let Some(found) = self.blob_at_once(&name, &digest) {
            return self.hit(source, &name, &digest, blob_in(request, &digest, found));
        }
        if self.holds_blob(&name, &digest).await? {
            let answer = self.get_blob(request, name.clone(), digest.clone()).await;
            // It may have made room for something else meanwhile: then it is fetched again.
            if !is_gone(&answer) {
                return self.hit(source, &name, &digest, answer);
            }
        }
        if is_head {
            let total = self.size_there(source, &name, &digest).await;
            let total = total.map_err(|trouble| trouble.refusal(&source.known))?;
            source.known.answered("miss");
            let answer = blob_answer(&digest, Part::whole(total), full(""));
            return Ok(from(answer, "miss"));
        }
        for _ in 0..ATTEMPTS {
            match self.begin_blob(source, &name, &digest).await? {
                Begun::Held => {
                    let answer = self.get_blob(request, name.clone(), digest.clone()).await;
                    if !is_gone(&answer) {
                        return self.hit(source, &name, &digest, answer);
                    }
                }
                Begun::Comes(fill) => {
                    return self.following(source, request, &name, &digest, fill).await;
                }
            }
        }
        let words = format!("blob {digest} makes room for others again and again; ask later");
        let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", words);
        Err(refusal
            .cause(Cause::RegistryError)
            .header(header::RETRY_AFTER, "1"))
    }

    /// The answer with what of a blob is asked for, while it comes.
    async fn following(
        &self,
        source: &Source,
        request: &Request<Incoming>,
        name: &Repository,
        digest: &Digest,
        fill: Arc<Fill>,
    ) -> Answer {
        let progress = fill.under_way().await;
        if let Some(Err(trouble)) = &progress.end {
            return Err(trouble.refusal(&source.known));
        }
        let total = progress.size.unwrap_or_default();
        let range = text_header(request, &header::RANGE);
        let part = match wanted(range, total) {
            Wanted::Whole => Part::whole(total),
            Wanted::Part(from, to) => Part::of(from, to, total),
            Wanted::Unsatisfiable => return Err(Part::unsatisfiable(total)),
        };
        source.known.answered("miss");
        let body = fill.body(part.from, part.to);
        let answer = from(blob_answer(digest, part, body), "miss");
        Ok(self.served(name, digest, answer))
    }

    /// An answer with what is held.
    fn hit(&self, source: &Source, name: &Repository, digest: &Digest, answer: Answer) -> Answer {
        let answer = from(answer?, "hit");
        source.known.answered("hit");
        Ok(self.served(name, digest, answer))
    }

    /// Notes that something is used, and keeps it as long as it is served.
    fn served(&self, name: &Repository, digest: &Digest, answer: Response<Body>) -> Response<Body> {
        self.cache.used(name, digest);
        let serving = self.cache.usage.serve(digest);
        answer.map(|body| body.holding(serving))
    }

    async fn holds_blob(
        self: &Arc<Self>,
        name: &Repository,
        digest: &Digest,
    ) -> Result<bool, Refusal> {
        let (name, digest) = (name.clone(), digest.clone());
        self.blocking("look for a blob", move |this| {
            Ok(this.metadata.has_blob(&name, &digest)? && this.blobs.size(&digest)?.is_some())
        })
        .await
    }

    /// Joins the download of a blob, or begins one.
    async fn begin_blob(
        self: &Arc<Self>,
        source: &Arc<Source>,
        name: &Repository,
        digest: &Digest,
    ) -> Result<Begun, Refusal> {
        let key = (name.clone(), digest.clone());
        let thing = format!("{name}@{digest}");
        let _flight = self.cache.flights.enter(thing.clone()).await;
        let running = {
            let fills = self
                .cache
                .fills
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            fills.get(&key).cloned()
        };
        if let Some(fill) = running {
            return Ok(Begun::Comes(fill));
        }
        // A download leaves the list after its blob is held: whoever misses it there finds it here.
        if self.holds_blob(name, digest).await? {
            return Ok(Begun::Held);
        }
        if let Some(trouble) = source.refuses(&thing) {
            return Err(trouble.refusal(&source.known));
        }
        if self.adopt_own(source, name, digest).await? {
            return Ok(Begun::Held);
        }
        let remote = source.remote(name, None).ok_or_else(|| not_there(name))?;
        let (fill, writer) = self
            .blocking("begin a download", move |this| {
                Ok(Fill::begin(&this.cache.staging)?)
            })
            .await?;
        self.cache
            .fills
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, Arc::clone(&fill));
        let download = Download {
            registry: Arc::clone(self),
            source: Arc::clone(source),
            name: name.clone(),
            digest: digest.clone(),
            fill: Arc::clone(&fill),
        };
        let mut running = self
            .cache
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while running.try_join_next().is_some() {}
        running.spawn(download.run(writer, remote));
        Ok(Begun::Comes(fill))
    }

    /// Links a blob whose bytes another repository brought here, once the upstream says that this repository has it too.
    async fn adopt_own(
        self: &Arc<Self>,
        source: &Arc<Source>,
        name: &Repository,
        digest: &Digest,
    ) -> Result<bool, Refusal> {
        let sought = digest.clone();
        let here = self.blocking("look for a blob", move |this| {
            Ok(this.blobs.size(&sought)?.is_some())
        });
        if !here.await? {
            return Ok(false);
        }
        let there = self.size_there(source, name, digest).await;
        there.map_err(|trouble| trouble.refusal(&source.known))?;
        let (name, digest) = (name.clone(), digest.clone());
        self.blocking("link a blob", move |this| {
            // Only the repository's quota can lack room: the bytes are here.
            let size = this.blobs.size(&digest)?.unwrap_or_default();
            let room = this.make_room(&name, size, 0);
            let _coming = room.map_err(|error| of_storage(&error))?;
            let adding = this.gate.adding();
            adding.note(&name, [&digest]);
            // It may have been collected meanwhile.
            let here = this.blobs.size(&digest)?;
            if let Some(size) = here {
                let room = match this.charge(&name, &digest, size) {
                    // What is in use holds all the room: it is fetched and passed on, as any other.
                    Err(StorageError::OverQuota(_)) => return Ok(false),
                    room => room.map_err(|error| of_storage(&error))?,
                };
                this.metadata.link_blob(&name, &digest)?;
                room.kept();
                this.cache.used(&name, &digest);
                this.cache.usage.grew(size);
            }
            Ok(here.is_some())
        })
        .await
    }

    /// The size that the upstream says a blob has.
    async fn size_there(
        &self,
        source: &Arc<Source>,
        name: &Repository,
        digest: &Digest,
    ) -> Result<u64, Trouble> {
        let thing = format!("{name}@{digest}");
        if let Some(trouble) = source.refuses(&thing) {
            return Err(trouble);
        }
        let nowhere = || {
            Failure::new(
                Cause::RepositoryNotFound,
                Step::Reference,
                format!("{name} is no repository of the upstream"),
            )
        };
        let remote = source.remote(name, None).ok_or_else(nowhere)?;
        let head = remote
            .head_blob(digest)
            .await
            .map_err(|failure| source.failed(&thing, failure))?;
        let Some(size) = head.size else {
            let words = format!("{} does not say how long blob {digest} is", head.endpoint);
            let failure =
                Failure::new(Cause::RegistryMisconfigured, Step::Fetch, words).at(head.endpoint);
            return Err(source.failed(&thing, failure));
        };
        self.cache.sizes.put(
            (name.clone(), digest.clone()),
            size,
            Instant::now(),
            SIZES_TIME,
        );
        Ok(size)
    }
}

/// Whether what was held when it was looked for is not there any more.
fn is_gone(answer: &Answer) -> bool {
    matches!(answer, Err(refusal) if refusal.status == StatusCode::NOT_FOUND)
}

/// A download on its way, apart from whoever asked for it first: it goes on when they leave.
struct Download {
    registry: Arc<Registry>,
    source: Arc<Source>,
    name: Repository,
    digest: Digest,
    fill: Arc<Fill>,
}

impl Download {
    async fn run(self, writer: File, remote: Remote) {
        let thing = format!("{}@{}", self.name, self.digest);
        match self.fetch(writer, &remote).await {
            Ok(kept) => {
                if let Some(bytes) = kept {
                    self.source.known.filled(bytes);
                }
                self.source.well(&thing);
                self.fill.done();
            }
            Err(trouble) => self.fill.fail(trouble),
        }
    }

    /// Fetches the blob; its bytes if they were kept, and not only passed on.
    async fn fetch(&self, writer: File, remote: &Remote) -> Result<Option<u64>, Trouble> {
        // Never closed.
        let _permit = self.source.downloads.acquire().await.ok();
        let thing = format!("{}@{}", self.name, self.digest);
        let cache = &self.registry.cache;
        let known = cache
            .sizes
            .get(&(self.name.clone(), self.digest.clone()), Instant::now());
        let size = match known {
            Some(size) => size,
            None => {
                self.registry
                    .size_there(&self.source, &self.name, &self.digest)
                    .await?
            }
        };
        let most = self.registry.settings.get().limits.blob_bytes;
        if size > most {
            let words = format!(
                "blob {} has {size} bytes, and this registry takes at most {most}",
                self.digest
            );
            return Err(self.source.failed(
                &thing,
                Failure::new(Cause::ImageTooLarge, Step::Fetch, words),
            ));
        }
        let (registry, name) = (Arc::clone(&self.registry), self.name.clone());
        // Before anything is asked of the upstream for nothing.
        let room = task::blocking("make room", move || registry.make_room(&name, size, size));
        let coming = Arc::new(room.await?);
        let counting = Arc::clone(&coming);
        let arrived = move |bytes| counting.arrived(bytes);
        let wanted = Descriptor::new("application/octet-stream", self.digest.clone(), size);
        let (registry, name, digest) = (
            Arc::clone(&self.registry),
            self.name.clone(),
            self.digest.clone(),
        );
        // What is not kept is read to its end by whoever reads it now, and goes with the last of them.
        let keep = move |staged: &Path| registry.keep_blob(&name, &digest, size, staged);
        let done = self.fill.download(writer, remote, wanted, arrived, keep);
        match done.await {
            Ok(kept) => Ok(kept.then_some(size)),
            Err(Failed::Upstream(failure)) => Err(self.source.failed(&thing, failure)),
            Err(Failed::Storage(error)) => Err(error.into()),
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let stopped = Failure::new(Cause::ConnectionReset, Step::Fetch, "this registry stops");
        self.fill.fail(stopped.into());
        let key = (self.name.clone(), self.digest.clone());
        self.registry
            .cache
            .fills
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
    }
}
