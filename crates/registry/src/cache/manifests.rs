//! Manifests of an upstream: by digest they never change; by tag they count for a while.

use std::sync::Arc;
use std::time::Instant;

use http::{Method, Response};
use towline_cause::{Cause, Failure, Step};
use towline_distribution::Resolved;
use towline_oci::{Digest, Document};

use super::trouble::{Trouble, is_proven_absent, of_storage};
use super::upstream::Source;
use super::{SIZES_TIME, from, not_there, stale};
use crate::body::Body;
use crate::collect::named;
use crate::handlers::{Answer, Held, Registry, manifest_answer, unknown_manifest};
use crate::names::{Repository, Tag};
use crate::refusal::Refusal;
use crate::route::ManifestName;
use crate::storage::StorageError;

/// Attempts at keeping a manifest whose room others take meanwhile.
const ATTEMPTS: usize = 3;

/// What the upstream said of a tag.
enum Said {
    /// It names what is held.
    Same,
    /// It names this.
    Brings(Box<Resolved>),
}

impl Registry {
    pub(super) async fn cached_manifest(
        self: &Arc<Self>,
        source: &Arc<Source>,
        method: &Method,
        name: Repository,
        which: ManifestName,
    ) -> Answer {
        match &which {
            ManifestName::Digest(digest) => {
                self.cached_by_digest(source, method, &name, digest).await
            }
            ManifestName::Tag(tag) => self.cached_by_tag(source, method, &name, tag).await,
            ManifestName::Impossible(_) => Err(unknown_manifest(&which)),
        }
    }

    async fn cached_by_digest(
        self: &Arc<Self>,
        source: &Arc<Source>,
        method: &Method,
        name: &Repository,
        digest: &Digest,
    ) -> Answer {
        let which = ManifestName::Digest(digest.clone());
        let thing = format!("{name}@{digest}");
        if let Some(held) = self.held(name, &which).await? {
            return Ok(self.manifest_hit(source, method, name, held));
        }
        let _flight = self.cache.flights.enter(thing.clone()).await;
        if let Some(held) = self.held(name, &which).await? {
            return Ok(self.manifest_hit(source, method, name, held));
        }
        if let Some(trouble) = source.refuses(&thing) {
            return Err(trouble.refusal(&source.known));
        }
        let remote = source.remote(name, None).ok_or_else(|| not_there(name))?;
        let found = remote.manifest(digest).await;
        let found =
            found.map_err(|failure| source.failed(&thing, failure).refusal(&source.known))?;
        let held = self.keep_found(name, found, None).await?;
        source.known.answered("miss");
        Ok(from(manifest_answer(method, held), "miss"))
    }

    async fn cached_by_tag(
        self: &Arc<Self>,
        source: &Arc<Source>,
        method: &Method,
        name: &Repository,
        tag: &Tag,
    ) -> Answer {
        let which = ManifestName::Tag(tag.clone());
        let key = (name.clone(), tag.clone());
        let is_fresh = || self.cache.fresh.get(&key, Instant::now()).is_some();
        let mut held = self.held(name, &which).await?;
        let mut flight = None;
        if !(held.is_some() && is_fresh()) {
            flight = Some(self.cache.flights.enter(format!("{name}:{tag}")).await);
            held = self.held(name, &which).await?;
        }
        if is_fresh()
            && let Some(held) = held
        {
            return Ok(self.manifest_hit(source, method, name, held));
        }
        let said = self.ask_tag(source, name, tag, held.as_ref()).await;
        let (found, what) = match (said, held) {
            (Ok(Said::Brings(found)), _) => (
                self.keep_found(name, *found, Some(tag.clone())).await?,
                "miss",
            ),
            (Ok(Said::Same), Some(held)) => (held, "revalidated"),
            (Ok(Said::Same), None) => return Err(unknown_manifest(&which)),
            (Err(trouble), held) => {
                return self
                    .without_tag(source, method, &which, name, held, &trouble)
                    .await;
            }
        };
        self.cache
            .fresh
            .put(key, (), Instant::now(), self.cache.options.tag_ttl);
        drop(flight);
        source.known.answered(what);
        self.cache.used(name, &found.digest);
        Ok(from(manifest_answer(method, found), what))
    }

    /// An answer with what is held.
    fn manifest_hit(
        &self,
        source: &Source,
        method: &Method,
        name: &Repository,
        held: Held,
    ) -> Response<Body> {
        source.known.answered("hit");
        self.cache.used(name, &held.digest);
        from(manifest_answer(method, held), "hit")
    }

    /// What is held under a name, if all of it is.
    async fn held(
        self: &Arc<Self>,
        name: &Repository,
        which: &ManifestName,
    ) -> Result<Option<Held>, Refusal> {
        let (name, which) = (name.clone(), which.clone());
        self.blocking("read a manifest", move |this| {
            this.find_manifest(&name, &which)
        })
        .await
    }

    /// Asks the upstream what a tag names: by HEAD, where something is held that it may still be.
    async fn ask_tag(
        &self,
        source: &Arc<Source>,
        name: &Repository,
        tag: &Tag,
        held: Option<&Held>,
    ) -> Result<Said, Trouble> {
        let thing = format!("{name}:{tag}");
        if let Some(trouble) = source.refuses(&thing) {
            return Err(trouble);
        }
        let Some(remote) = source.remote(name, Some(tag.as_str())) else {
            let words = format!("{name} is no repository of the upstream");
            return Err(Failure::new(Cause::RepositoryNotFound, Step::Reference, words).into());
        };
        let Some(held) = held else {
            let found = remote
                .resolve()
                .await
                .map_err(|failure| source.failed(&thing, failure))?;
            source.well(&thing);
            return Ok(Said::Brings(Box::new(found)));
        };
        let asking = async {
            let head = remote.head_manifest(tag.as_str()).await?;
            match head.digest {
                Some(digest) if digest == held.digest => Ok(Said::Same),
                // It moved, or the upstream does not say.
                _ => Ok(Said::Brings(Box::new(remote.resolve().await?))),
            }
        };
        let patience = self.cache.options.patience;
        let said = tokio::time::timeout(patience, asking)
            .await
            .unwrap_or_else(|_| {
                let words = format!(
                    "{} did not say within {} s what {tag} names",
                    source.known.name(),
                    patience.as_secs_f32()
                );
                Err(Failure::new(Cause::ConnectionTimeout, Step::Resolve, words))
            });
        let said = said.map_err(|failure| source.failed(&thing, failure))?;
        source.well(&thing);
        Ok(said)
    }

    /// The upstream did not say what a tag names: what is held counts on, unless the tag is known to be gone.
    async fn without_tag(
        self: &Arc<Self>,
        source: &Arc<Source>,
        method: &Method,
        which: &ManifestName,
        name: &Repository,
        held: Option<Held>,
        trouble: &Trouble,
    ) -> Answer {
        let gone = matches!(trouble, Trouble::Upstream(failure) if is_proven_absent(failure));
        match held {
            Some(held) if !gone => {
                self.cache.used(name, &held.digest);
                Ok(stale(manifest_answer(method, held), source, trouble))
            }
            Some(_) => {
                if let ManifestName::Tag(tag) = which.clone() {
                    let name = name.clone();
                    self.blocking("drop a tag", move |this| {
                        Ok(this.metadata.delete_tag(&name, &tag)?)
                    })
                    .await?;
                }
                Err(trouble.refusal(&source.known))
            }
            None => Err(trouble.refusal(&source.known)),
        }
    }

    /// Keeps what the upstream brought, which its client verified.
    async fn keep_found(
        self: &Arc<Self>,
        name: &Repository,
        found: Resolved,
        tag: Option<Tag>,
    ) -> Result<Held, Refusal> {
        self.remember_sizes(name, &found.document);
        let name = name.clone();
        self.blocking("keep a manifest", move |this| {
            for _ in 0..ATTEMPTS {
                // What came beside it may take the room that was made for it: in the end it is only passed on.
                let kept = this.take_manifest(&name, &found, tag.as_ref());
                if kept.map_err(|error| of_storage(&error))? {
                    break;
                }
            }
            Ok(Held {
                digest: found.digest,
                media_type: found.media_type,
                bytes: found.bytes,
            })
        })
        .await
    }

    /// Makes room for a manifest and keeps it there, under a tag if one was asked for. False if the room was taken meanwhile.
    fn take_manifest(
        &self,
        name: &Repository,
        found: &Resolved,
        tag: Option<&Tag>,
    ) -> Result<bool, StorageError> {
        let size = found.bytes.len() as u64;
        let new = match self.blobs.size(&found.digest)? {
            Some(_) => 0,
            None => size,
        };
        let _coming = self.make_room(name, size, new)?;
        let adding = self.gate.adding();
        adding.note(name, named(&found.document));
        adding.note(name, [&found.digest]);
        let stored = self.store_manifest(
            name,
            &found.digest,
            &found.media_type,
            &found.document,
            &found.bytes,
        );
        if let Err(StorageError::OverQuota(_)) = stored {
            return Ok(false);
        }
        stored?;
        if let Some(tag) = tag {
            self.metadata.set_tag(name, tag, &found.digest)?;
        }
        self.cache.used(name, &found.digest);
        self.cache.usage.grew(new);
        Ok(true)
    }

    fn remember_sizes(&self, name: &Repository, document: &Document) {
        let Document::Manifest(manifest) = document else {
            return;
        };
        let now = Instant::now();
        for descriptor in std::iter::once(&manifest.config).chain(&manifest.layers) {
            let key = (name.clone(), descriptor.digest.clone());
            self.cache.sizes.put(key, descriptor.size, now, SIZES_TIME);
        }
    }
}
