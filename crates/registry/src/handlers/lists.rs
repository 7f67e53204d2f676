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
use crate::route::{Action, query};

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
    let n = n
        .map(|n| n.parse())
        .transpose()
        .map_err(|_| bad("PAGINATION_NUMBER_INVALID", "`n` is not a number"))?;
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

    pub(super) async fn referrers(
        self: &Arc<Self>,
        uri: &Uri,
        name: Repository,
        subject: Digest,
    ) -> Answer {
        let found = self
            .blocking("list referrers", move |this| {
                Ok(this.metadata.referrers(&name, &subject)?)
            })
            .await?;
        Ok(referrers_answer(uri, found))
    }
}

/// The answer with a page of sorted tags.
pub(crate) fn tags_answer(uri: &Uri, name: &Repository, tags: &[String], most: usize) -> Answer {
    let (n, last) = asked(uri)?;
    let Page { items, next } = page(tags, n, last.as_deref(), most);
    let body = json!({"name": name.as_str(), "tags": items});
    Ok(paged(&body, &format!("/v2/{name}/tags/list"), next))
}

/// The answer with what refers to something: all of it, or those of the type that is asked for.
pub(crate) fn referrers_answer(uri: &Uri, mut found: Vec<Value>) -> Response<Body> {
    let wanted = query(uri, "artifactType").into_iter().next();
    if let Some(wanted) = &wanted {
        found.retain(|descriptor| descriptor["artifactType"] == wanted.as_str());
    }
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": found});
    let mut answer = answer(&index, media_type::OCI_INDEX);
    if wanted.is_some() {
        answer.headers_mut().insert(
            "oci-filters-applied",
            HeaderValue::from_static("artifactType"),
        );
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

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
