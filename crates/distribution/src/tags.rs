//! Lists in pages: tags and referrers. A page's link is followed as it is, on the same origin only, and never in a circle.

use http::{Method, StatusCode, header};
use serde::Deserialize;
use towline_cause::{Cause, Failure, Step};
use towline_oci::{Descriptor, Digest, Document, Index, media_type};

use crate::fault;
use crate::manifest::{self, Name};
use crate::refused;
use crate::session::{Asking, Session};
use crate::target::Subject;
use crate::transport::Answer;
use crate::url::Url;

const MOST_PAGES: usize = 1000;
const MOST_REFERRERS: usize = 20_000;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

/// The tags of one page; names that are no tags are left out.
pub(crate) fn read(bytes: &[u8]) -> Option<Vec<String>> {
    let page: Page = serde_json::from_slice(bytes).ok()?;
    let mut tags = page.tags.unwrap_or_default();
    tags.retain(|tag| {
        !tag.is_empty()
            && tag.len() <= 128
            && tag
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
    });
    Some(tags)
}

/// The tags of a repository, at most `limit`.
pub(crate) async fn list(session: &Session, limit: usize) -> Result<Vec<String>, Failure> {
    let repository = session.target.repository();
    let what = format!("GET tags of {repository}");
    let mut asking = Asking::new(
        Method::GET,
        format!("/v2/{repository}/tags/list"),
        what,
        Step::Resolve,
    )
    .about(Subject::Tags);
    asking.query = Some(format!("n={}", limit.clamp(1, 1000)));
    let mut tags = Vec::new();
    let mut seen = Vec::new();
    while tags.len() < limit {
        let (answer_url, next, bytes) = page(session, &asking).await?;
        let Some(more) = read(&bytes) else {
            return Err(Failure::new(
                Cause::RegistryMisconfigured,
                Step::Resolve,
                format!(
                    "{} at {}: the answer is not a list of tags",
                    asking.what, answer_url.origin
                ),
            )
            .at(answer_url.origin.to_string())
            .or_else([Cause::NotARegistry]));
        };
        tags.extend(more);
        let Some(next) = next.filter(|next| !seen.contains(next) && seen.len() < MOST_PAGES) else {
            break;
        };
        seen.push(next.clone());
        asking.url = Some(next);
    }
    tags.truncate(limit);
    Ok(tags)
}

pub(crate) async fn page(
    session: &Session,
    asking: &Asking,
) -> Result<(Url, Option<Url>, bytes::Bytes), Failure> {
    let got = session.ask(asking).await?;
    if got.answer.status != StatusCode::OK {
        return Err(refused::of_answer(session, asking, got).await);
    }
    let url = got.answer.url.clone();
    let next = next_link(&got.answer);
    let limit = session.shared.transport.limits.page;
    match got.answer.body.read(limit).await {
        Ok(bytes) => Ok((url, next, bytes)),
        Err(why) => {
            Err(fault::of_body(&why, &url.origin, &asking.what, asking.step, 0).because(why))
        }
    }
}

/// The `rel="next"` link of a page, if it stays on the page's origin.
fn next_link(answer: &Answer) -> Option<Url> {
    answer
        .headers
        .get_all(header::LINK)
        .iter()
        .take(8)
        .filter_map(|value| value.to_str().ok())
        .filter_map(next_of)
        .find_map(|target| answer.url.join(target).ok())
        .filter(|next| next.origin == answer.url.origin)
}

fn next_of(value: &str) -> Option<&str> {
    value.split('<').skip(1).find_map(|one| {
        let (target, parameters) = one.split_once('>')?;
        let is_next = parameters.split([';', ',']).any(|parameter| {
            let parameter = parameter.trim();
            parameter.eq_ignore_ascii_case("rel=next")
                || parameter.eq_ignore_ascii_case("rel=\"next\"")
        });
        is_next.then_some(target)
    })
}

/// What refers to a manifest: by the API, or by the fallback tag of registries that do not have it.
pub(crate) async fn referrers(
    session: &Session,
    digest: &Digest,
    artifact_type: Option<&str>,
) -> Result<Index, Failure> {
    let repository = session.target.repository();
    let what = format!("GET referrers of {repository}@{digest}");
    let mut asking = Asking::new(
        Method::GET,
        format!("/v2/{repository}/referrers/{digest}"),
        what,
        Step::Resolve,
    )
    .header(header::ACCEPT, media_type::OCI_INDEX);
    asking.query = artifact_type.map(|kind| format!("artifactType={}", crate::url::encode(kind)));
    let mut found: Option<Index> = None;
    let mut seen: Vec<Url> = Vec::new();
    loop {
        let got = session.ask(&asking).await?;
        if got.answer.status == StatusCode::NOT_FOUND && found.is_none() {
            return fallback(session, digest, artifact_type).await;
        }
        if got.answer.status != StatusCode::OK {
            return Err(refused::of_answer(session, &asking, got).await);
        }
        let origin = got.answer.url.origin.clone();
        let next = next_link(&got.answer);
        let limit = session.shared.transport.limits.page;
        let bytes = got.answer.body.read(limit).await.map_err(|why| {
            fault::of_body(&why, &origin, &asking.what, Step::Resolve, 0).because(why)
        })?;
        let Ok(Document::Index(page)) = Document::parse(media_type::OCI_INDEX, &bytes) else {
            return Err(Failure::new(
                Cause::RegistryMisconfigured,
                Step::Resolve,
                format!("{} at {origin}: the answer is not an index", asking.what),
            )
            .at(origin.to_string()));
        };
        match &mut found {
            Some(index) => index.manifests.extend(page.manifests),
            None => found = Some(page),
        }
        let count = found.as_ref().map_or(0, |index| index.manifests.len());
        match next.filter(|next| {
            !seen.contains(next) && seen.len() < MOST_PAGES && count < MOST_REFERRERS
        }) {
            Some(next) => {
                seen.push(next.clone());
                asking.url = Some(next);
            }
            None => break,
        }
    }
    Ok(only(found.unwrap_or_else(empty), artifact_type))
}

async fn fallback(
    session: &Session,
    digest: &Digest,
    artifact_type: Option<&str>,
) -> Result<Index, Failure> {
    let tag = format!("{}-{}", digest.algorithm().name(), digest.hex());
    match manifest::get(session, &Name::Tag(tag)).await {
        Ok(found) => match found.document {
            Document::Index(index) => Ok(only(index, artifact_type)),
            Document::Manifest(_) => Ok(empty()),
        },
        Err(failure) if failure.cause() == Cause::TagNotFound => Ok(empty()),
        Err(failure) => Err(failure),
    }
}

fn only(mut index: Index, artifact_type: Option<&str>) -> Index {
    if let Some(kind) = artifact_type {
        index
            .manifests
            .retain(|one: &Descriptor| one.artifact_type.as_deref() == Some(kind));
    }
    index
}

fn empty() -> Index {
    Index {
        schema_version: 2,
        media_type: media_type::OCI_INDEX.to_owned(),
        artifact_type: None,
        manifests: Vec::new(),
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        for (value, want) in [
            (
                r#"</v2/a/tags/list?n=2&last=b>; rel="next""#,
                Some("/v2/a/tags/list?n=2&last=b"),
            ),
            ("<x>; rel=prev, <y>;title=z; rel=next", Some("y")),
            ("<x>; rel=prev", None),
            ("x; rel=next", None),
        ] {
            assert_eq!(next_of(value), want, "{value}");
        }
    }

    #[test]
    fn odd_tags_are_left_out() {
        let page = br#"{"name":"a","tags":["1.0","a b","\u001b[31m",""],"manifest":{}}"#;
        assert_eq!(read(page), Some(vec!["1.0".to_owned()]));
        assert_eq!(read(br#"{"tags":null}"#), Some(vec![]));
        assert_eq!(read(b"<html>"), None);
    }
}
