//! What looks after a registry: deleting manifests, listing repositories. Not every registry lets its clients do so.

use http::{Method, StatusCode};
use serde::Deserialize;
use towline_cause::{Cause, Failure, Step};

use crate::refused;
use crate::session::{Asking, Session};
use crate::tags::page;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

/// Deletes a manifest by its digest, or a tag.
pub(crate) async fn delete(session: &Session, target: &str) -> Result<(), Failure> {
    let repository = session.target.repository();
    let what = format!("DELETE manifest {target} of {repository}");
    let path = format!("/v2/{repository}/manifests/{target}");
    let mut asking = Asking::new(Method::DELETE, path, what, Step::Resolve);
    asking.push = true;
    asking.follow = false;
    let got = session.ask(&asking).await?;
    match got.answer.status {
        StatusCode::ACCEPTED | StatusCode::OK | StatusCode::NO_CONTENT => Ok(()),
        _ => Err(refused::of_answer(session, &asking, got).await),
    }
}

/// The repositories of the registry that the client may see, at most `limit`.
pub(crate) async fn catalog(session: &Session, limit: usize) -> Result<Vec<String>, Failure> {
    let what = "GET list of repositories".to_owned();
    let mut asking = Asking::new(Method::GET, "/v2/_catalog".to_owned(), what, Step::Resolve);
    asking.query = Some(format!("n={}", limit.clamp(1, 1000)));
    session.log_in_first("registry:catalog:*").await?;
    let (mut names, mut seen) = (Vec::new(), Vec::new());
    while names.len() < limit {
        let (url, next, bytes) = page(session, &asking).await?;
        let Ok(read) = serde_json::from_slice::<Page>(&bytes) else {
            let message = format!(
                "{} at {}: the answer is no such list",
                asking.what, url.origin
            );
            let failure = Failure::new(Cause::RegistryMisconfigured, Step::Resolve, message);
            return Err(failure.at(url.origin.to_string()));
        };
        names.extend(read.repositories.unwrap_or_default());
        // A link that comes again leads nowhere.
        let Some(next) = next.filter(|next| !seen.contains(next) && seen.len() < 1000) else {
            break;
        };
        seen.push(next.clone());
        asking.url = Some(next);
    }
    names.truncate(limit);
    Ok(names)
}
