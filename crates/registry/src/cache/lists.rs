//! Lists of an upstream: its tags, and what refers to a manifest. They count as long as a tag does.

use std::sync::Arc;
use std::time::Instant;

use http::Uri;
use serde_json::{Value, json};
use towline_cause::Failure;
use towline_oci::Digest;

use super::trouble::{Trouble, is_proven_absent};
use super::upstream::Source;
use super::{from, not_there, stale};
use crate::handlers::{Answer, Referrers, Registry, tags_answer};
use crate::names::Repository;

/// The most tags that are asked for.
const TAGS: usize = 50_000;

impl Registry {
    pub(super) async fn cached_tags(
        self: &Arc<Self>,
        source: &Arc<Source>,
        uri: &Uri,
        name: Repository,
    ) -> Answer {
        let remote = source.remote(&name, None).ok_or_else(|| not_there(&name))?;
        let asking = async { Ok(json!(remote.tags(TAGS).await?)) };
        let (list, trouble) = self.listed(source, format!("tags of {name}"), asking).await;
        let Some(list) = list else {
            return Err(trouble.map_or_else(
                || not_there(&name),
                |trouble| trouble.refusal(&source.known),
            ));
        };
        let mut tags: Vec<String> = texts(&list);
        tags.sort_unstable();
        tags.dedup();
        let answer = tags_answer(uri, &name, &tags, self.settings.get().limits.page)?;
        Ok(told(answer, source, trouble.as_ref()))
    }

    pub(super) async fn cached_referrers(
        self: &Arc<Self>,
        source: &Arc<Source>,
        uri: &Uri,
        name: Repository,
        subject: Digest,
    ) -> Answer {
        let remote = source.remote(&name, None).ok_or_else(|| not_there(&name))?;
        let asking = async { Ok(json!(remote.referrers(&subject, None).await?.manifests)) };
        let (list, trouble) = self
            .listed(source, format!("referrers of {name}@{subject}"), asking)
            .await;
        let answer = match &list {
            Some(list) => {
                let mut page = Referrers::asked(uri, self.settings.get().limits.page)?;
                for (digest, descriptor) in after(list, page.after.as_ref()) {
                    if !page.take(&digest, descriptor.clone()) {
                        break;
                    }
                }
                page.answer(&format!("/v2/{name}/referrers/{subject}"))
            }
            // Clients ask for referrers while they pull, and an image that is held must not become unusable: what is known here is
            // told, with a warning that it may not be all.
            None => self.referrers(uri, name, subject).await?,
        };
        Ok(told(answer, source, trouble.as_ref()))
    }

    /// A list as it was a moment ago, or as the upstream says, or, where that fails, as it was last; and what failed.
    async fn listed(
        &self,
        source: &Arc<Source>,
        thing: String,
        asking: impl Future<Output = Result<Value, Failure>>,
    ) -> (Option<Arc<Value>>, Option<Trouble>) {
        let lists = &self.cache.lists;
        let _flight = self.cache.flights.enter(thing.clone()).await;
        if let Some(list) = lists.get(&thing, Instant::now()) {
            return (Some(list), None);
        }
        let asked = match source.refuses(&thing) {
            Some(trouble) => Err(trouble),
            None => asking
                .await
                .map_err(|failure| source.failed(&thing, failure)),
        };
        match asked {
            Ok(list) => {
                let list = Arc::new(list);
                source.well(&thing);
                lists.put(
                    thing,
                    Arc::clone(&list),
                    Instant::now(),
                    self.cache.options.tag_ttl,
                );
                (Some(list), None)
            }
            Err(trouble) => {
                let gone =
                    matches!(&trouble, Trouble::Upstream(failure) if is_proven_absent(failure));
                (lists.old(&thing).filter(|_| !gone), Some(trouble))
            }
        }
    }
}

/// The descriptors after one, sorted by digest.
fn after<'a>(list: &'a Value, last: Option<&Digest>) -> Vec<(Digest, &'a Value)> {
    let all = list.as_array().into_iter().flatten();
    let named = all.filter_map(|one| Some((Digest::parse(one["digest"].as_str()?).ok()?, one)));
    let mut sorted: Vec<_> = named
        .filter(|(digest, _)| last.is_none_or(|last| digest > last))
        .collect();
    sorted.sort_by(|one, other| one.0.cmp(&other.0));
    sorted
}

fn texts(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items
        .filter_map(|item| item.as_str().map(ToOwned::to_owned))
        .collect()
}

fn told(
    answer: http::Response<crate::body::Body>,
    source: &Source,
    trouble: Option<&Trouble>,
) -> http::Response<crate::body::Body> {
    match trouble {
        Some(trouble) => stale(answer, source, trouble),
        None => from(answer, "upstream"),
    }
}
