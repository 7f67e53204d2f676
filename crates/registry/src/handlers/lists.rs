//! Lists: tags, referrers, repositories.

use std::sync::Arc;

use http::{HeaderValue, Response, Uri, header};
use serde_json::{Value, json};
use towline_oci::{Digest, media_type};

use super::{Answer, Registry};
use crate::access::{Caller, Decision};
use crate::body::{Body, full};
use crate::names::Repository;
use crate::refusal::{Refusal, bad, missing};
use crate::route::{Action, digest, encoded, query};

/// Bytes of the descriptors of one list of referrers: with what is around them it is no larger than every client reads.
const DESCRIPTORS: usize = (4 << 20) - 256;

/// One page of a sorted list.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    items: Vec<String>,
    /// The query of the next page.
    next: Option<String>,
}

/// Cuts a page out of a sorted list: at most `n` items that come after `last`.
fn page(items: &[String], n: Option<usize>, last: Option<&str>, most: usize) -> Page {
    let size = n.unwrap_or(most).min(most);
    let first = last.map_or(0, |last| {
        items.partition_point(|item| item.as_str() <= last)
    });
    let items = &items[first..];
    let more = items.len() > size;
    let items = items[..size.min(items.len())].to_vec();
    let next = items
        .last()
        .filter(|_| more)
        .map(|last| format!("n={size}&last={last}"));
    Page { items, next }
}

fn asked(uri: &Uri) -> Result<(Option<usize>, Option<String>), Refusal> {
    let n = query(uri, "n").into_iter().next().filter(|n| !n.is_empty());
    // `parse` takes a sign too.
    let number = |n: String| n.parse().ok().filter(|_| !n.starts_with('+'));
    let refused = || bad("PAGINATION_NUMBER_INVALID", "`n` is not a number");
    let n = n.map(|n| number(n).ok_or_else(refused)).transpose()?;
    Ok((n, query(uri, "last").into_iter().next()))
}

fn answer(body: &Value, kind: &'static str) -> Response<Body> {
    let mut answer = Response::new(full(body.to_string()));
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn paged(body: &Value, path: &str, next: Option<String>) -> Response<Body> {
    let mut answer = answer(body, "application/json");
    let link = next.map(|next| format!("<{path}?{next}>; rel=\"next\""));
    if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
        answer.headers_mut().insert(header::LINK, link);
    }
    answer
}

impl Registry {
    pub(super) async fn tags(self: &Arc<Self>, uri: &Uri, name: Repository) -> Answer {
        let recent = self.metadata.recent();
        if let Some(tags) = recent.and_then(|recent| recent.tags(&name)) {
            return tags_answer(uri, &name, &tags, self.settings.get().limits.page);
        }
        let of = name.clone();
        let tags = self
            .blocking("list tags", move |this| {
                let recent = this.metadata.recent();
                let since = recent.map(|recent| (recent, recent.since()));
                let tags: Arc<[String]> = this.metadata.tags(&of)?.into();
                if tags.is_empty() && !this.metadata.exists(&of)? {
                    return Err(this.absent(
                        &of,
                        missing("NAME_UNKNOWN", "repository name not known to registry"),
                    ));
                }
                if let Some((recent, since)) = since {
                    recent.keep_tags(since, &of, &tags);
                }
                Ok(tags)
            })
            .await?;
        tags_answer(uri, &name, &tags, self.settings.get().limits.page)
    }

    pub(super) async fn catalog(self: &Arc<Self>, uri: &Uri, caller: &Arc<Caller>) -> Answer {
        let (n, last) = asked(uri)?;
        let caller = Arc::clone(caller);
        let most = caller.settings.limits.page;
        let names = self
            .blocking("list repositories", move |this| {
                let all = this.metadata.repositories()?;
                let readable = |name: &Repository| {
                    caller.decide_by_rules(name, Action::Pull) == Decision::Allow
                };
                Ok(all
                    .iter()
                    .filter(|name| readable(name))
                    .map(ToString::to_string)
                    .collect::<Vec<_>>())
            })
            .await?;
        let Page { items, next } = page(&names, n, last.as_deref(), most);
        Ok(paged(&json!({"repositories": items}), "/v2/_catalog", next))
    }

    pub(crate) async fn referrers(
        self: &Arc<Self>,
        uri: &Uri,
        name: Repository,
        subject: Digest,
    ) -> Answer {
        let mut page = Referrers::asked(uri, self.settings.get().limits.page)?;
        let path = format!("/v2/{name}/referrers/{subject}");
        let page = self
            .blocking("list referrers", move |this| {
                let after = page.after.clone();
                let tell = &mut |digest: &Digest, descriptor| page.take(digest, descriptor);
                this.metadata
                    .each_referrer(&name, &subject, after.as_ref(), tell)?;
                Ok(page)
            })
            .await?;
        Ok(page.answer(&path))
    }
}

/// The answer with a page of sorted tags.
pub(crate) fn tags_answer(uri: &Uri, name: &Repository, tags: &[String], most: usize) -> Answer {
    let (n, last) = asked(uri)?;
    let Page { items, next } = page(tags, n, last.as_deref(), most);
    let body = json!({"name": name.as_str(), "tags": items});
    Ok(paged(&body, &format!("/v2/{name}/tags/list"), next))
}

/// A page of what refers to something, sorted by digest: all of it, or those of the type that is asked for. It is no larger than a manifest
/// may be, so that every client can read it, unless a single descriptor is.
#[derive(Debug)]
pub(crate) struct Referrers {
    /// After which it begins.
    pub(crate) after: Option<Digest>,
    wanted: Option<String>,
    /// What the client asked for at most.
    asked: Option<usize>,
    most: usize,
    bytes: usize,
    items: Vec<Value>,
    last: Option<Digest>,
    has_more: bool,
}

impl Referrers {
    /// What a request asks for.
    pub(crate) fn asked(uri: &Uri, most: usize) -> Result<Self, Refusal> {
        let (n, last) = asked(uri)?;
        Ok(Self {
            after: last.map(|last| digest(&last)).transpose()?,
            wanted: query(uri, "artifactType").into_iter().next(),
            asked: n,
            most: n.unwrap_or(most).min(most),
            bytes: 0,
            items: Vec::new(),
            last: None,
            has_more: false,
        })
    }

    /// Takes the next one; false if this is enough.
    pub(crate) fn take(&mut self, digest: &Digest, descriptor: Value) -> bool {
        if let Some(wanted) = &self.wanted
            && descriptor["artifactType"] != wanted.as_str()
        {
            return true;
        }
        let bytes = self.bytes + descriptor.to_string().len() + 1;
        let is_full = self.items.len() >= self.most;
        if is_full || (bytes > DESCRIPTORS && !self.items.is_empty()) {
            self.has_more = true;
            return false;
        }
        self.bytes = bytes;
        self.items.push(descriptor);
        self.last = Some(digest.clone());
        true
    }

    /// The answer, for a request of this path.
    pub(crate) fn answer(self, path: &str) -> Response<Body> {
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": self.items});
        let mut answer = answer(&index, media_type::OCI_INDEX);
        let headers = answer.headers_mut();
        if let Some(last) = self.last.filter(|_| self.has_more) {
            let mut next = format!("<{path}?last={last}");
            if let Some(n) = self.asked {
                next = format!("{next}&n={n}");
            }
            if let Some(wanted) = &self.wanted {
                next = format!("{next}&artifactType={}", encoded(wanted));
            }
            if let Ok(link) = HeaderValue::from_str(&format!("{next}>; rel=\"next\"")) {
                headers.insert(header::LINK, link);
            }
        }
        if self.wanted.is_some() {
            let applied = HeaderValue::from_static("artifactType");
            headers.insert("oci-filters-applied", applied);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_page_are_numbers() {
        let n = |text: &str| {
            let uri = format!("/v2/_catalog?n={text}").parse().unwrap();
            asked(&uri).map(|(n, _)| n).map_err(|refusal| refusal.code)
        };
        assert_eq!(n("7"), Ok(Some(7)));
        assert_eq!(n(""), Ok(None));
        for wrong in ["-1", "x", "1x", "%2b1", "99999999999999999999999"] {
            assert_eq!(n(wrong), Err("PAGINATION_NUMBER_INVALID"), "{wrong}");
        }
    }

    #[test]
    fn pages() {
        let all = || ["a", "b", "c"].map(ToOwned::to_owned).to_vec();
        let got = |n, last, most| {
            let page = page(&all(), n, last, most);
            (page.items.join(""), page.next)
        };
        assert_eq!(got(None, None, 10), ("abc".to_owned(), None));
        assert_eq!(
            got(Some(2), None, 10),
            ("ab".to_owned(), Some("n=2&last=b".to_owned()))
        );
        assert_eq!(got(Some(2), Some("b"), 10), ("c".to_owned(), None));
        assert_eq!(got(Some(3), None, 10), ("abc".to_owned(), None));
        assert_eq!(got(Some(0), None, 10), (String::new(), None));
        assert_eq!(
            got(Some(5), None, 1),
            ("a".to_owned(), Some("n=1&last=a".to_owned()))
        );
        assert_eq!(got(None, Some("bb"), 10), ("c".to_owned(), None));
    }
}
