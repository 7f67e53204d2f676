//! Deletion: grace of pods, finalizers, preconditions, collections.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::list::{self, Filter};
use super::{Context, decode, reply, write};
use crate::error::{ApiError, ApiResult};
use crate::kinds::{KINDS, Kind};
use crate::storage::{Expect, Stored, WriteError};

/// What a deletion asks for, from body and query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) grace: Option<i64>,
    pub(super) propagation: Option<String>,
    pub(super) uid: Option<String>,
    pub(super) revision: Option<u64>,
    pub(super) dry_run: bool,
}

impl Options {
    fn of(context: &Context) -> ApiResult<Self> {
        let body = if context.body.is_empty() {
            Value::Null
        } else {
            decode::value(&context.headers, &context.body)?
        };
        let mut options = Self::from_value(&body)?;
        let query = &context.query;
        if options.grace.is_none()
            && let Some(text) = query.get("gracePeriodSeconds")
        {
            options.grace = Some(
                text.parse()
                    .map_err(|_| ApiError::bad_request("invalid gracePeriodSeconds"))?,
            );
        }
        options.propagation = options
            .propagation
            .or_else(|| query.get("propagationPolicy").map(str::to_owned));
        options.dry_run |= context.dry_run();
        if let Some(policy) = &options.propagation
            && !matches!(policy.as_str(), "Background" | "Foreground" | "Orphan")
        {
            return Err(ApiError::bad_request(format!(
                "invalid propagationPolicy {policy:?}"
            )));
        }
        Ok(options)
    }

    pub(super) fn from_value(body: &Value) -> ApiResult<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let orphan = body["orphanDependents"].as_bool().map(|orphan| {
            if orphan {
                "Orphan".to_owned()
            } else {
                "Background".to_owned()
            }
        });
        let revision =
            match body["preconditions"]["resourceVersion"].as_str() {
                None => None,
                Some(text) => Some(text.parse().map_err(|_| {
                    ApiError::bad_request("invalid resourceVersion in preconditions")
                })?),
            };
        Ok(Self {
            grace: body["gracePeriodSeconds"].as_i64(),
            propagation: text(&body["propagationPolicy"]).or(orphan),
            uid: text(&body["preconditions"]["uid"]),
            revision,
            dry_run: body["dryRun"]
                .as_array()
                .is_some_and(|list| !list.is_empty()),
        })
    }
}

/// What is done with an object that is to be deleted.
#[derive(Debug, PartialEq)]
enum Step {
    Remove,
    /// Marked; something else removes it later.
    Mark(Value),
    /// Already marked like this.
    Nothing,
}

/// Decides a deletion.
fn decide(kind: &Kind, current: &Value, options: &Options, now: jiff::Timestamp) -> Step {
    let mut next = current.clone();
    let deleting = current["metadata"]["deletionTimestamp"].is_string();
    let held = next["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|list| !list.is_empty())
        || (kind.plural == "namespaces"
            && next["spec"]["finalizers"]
                .as_array()
                .is_some_and(|list| !list.is_empty()));
    let grace = if kind.plural == "pods" {
        pod_grace(current, options)
    } else {
        0
    };
    if grace == 0 && !held {
        return Step::Remove;
    }
    let before = current["metadata"]["deletionGracePeriodSeconds"].as_i64();
    if deleting && before.is_none_or(|before| before <= grace) {
        return Step::Nothing;
    }
    let base = current["metadata"]["deletionTimestamp"]
        .as_str()
        .and_then(|text| text.parse::<jiff::Timestamp>().ok())
        .zip(before)
        .map_or(now, |(time, before)| {
            time.saturating_sub(jiff::SignedDuration::from_secs(before))
                .unwrap_or(now)
        });
    // Any number of seconds may be asked for, also one that ends after the last moment there is.
    let time = base
        .saturating_add(jiff::SignedDuration::from_secs(grace))
        .unwrap_or(jiff::Timestamp::MAX);
    next["metadata"]["deletionTimestamp"] = json!(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    next["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    if kind.plural == "namespaces" {
        next["status"]["phase"] = json!("Terminating");
    }
    if kind.generation {
        next["metadata"]["generation"] =
            json!(current["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
    }
    Step::Mark(next)
}

fn pod_grace(pod: &Value, options: &Options) -> i64 {
    let unscheduled = pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty);
    let finished = matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    if unscheduled || finished {
        return 0;
    }
    let grace = options
        .grace
        .or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64())
        .unwrap_or(30);
    if grace < 0 { 1 } else { grace }
}

/// Deletes one object of the context's kind; gives its last state and whether it is gone.
pub(super) async fn remove(
    context: &Context,
    namespace: &str,
    name: &str,
    options: &Options,
) -> ApiResult<(Value, bool)> {
    let kind = context.target.kind;
    let store = &context.app.store;
    let key: Arc<str> = Arc::from(kind.key(namespace, name));
    for _ in 0..16 {
        let current: Stored = store
            .get(&key)
            .ok_or_else(|| ApiError::not_found(kind, name))?;
        if let Some(uid) = &options.uid
            && current.value["metadata"]["uid"] != *uid
        {
            return Err(write::precondition(kind, name, uid, &current.value));
        }
        if let Some(revision) = options.revision
            && current.revision != revision
        {
            let why = format!(
                "Precondition failed: ResourceVersion in precondition: {revision}, ResourceVersion in object meta: {}",
                current.revision
            );
            return Err(ApiError::conflict(kind, name, &why));
        }
        let step = decide(kind, &current.value, options, jiff::Timestamp::now());
        if options.dry_run {
            return Ok((Value::clone(&current.value), step == Step::Remove));
        }
        let expect = Expect::Revision(current.revision);
        let result = match step {
            Step::Nothing => return Ok((Value::clone(&current.value), false)),
            Step::Remove => store
                .delete(Arc::clone(&key), expect)
                .await
                .map(|stored| (stored, true)),
            Step::Mark(next) => store
                .put(Arc::clone(&key), expect, next)
                .await
                .map(|stored| (stored, false)),
        };
        match result {
            Ok((stored, gone)) => return Ok((Value::clone(&stored.value), gone)),
            Err(WriteError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::modified(kind, name))
}

/// Takes an owner's name off everything that it owns in its namespace, so that nothing follows it.
async fn orphan(context: &Context, owner: &Value) -> ApiResult<()> {
    let store = &context.app.store;
    let uid = &owner["metadata"]["uid"];
    for kind in KINDS
        .iter()
        .filter(|kind| kind.namespaced && !kind.presents())
    {
        let prefix = kind.prefix(Some(context.namespace()));
        let Ok((objects, _)) = store.list(&prefix, None) else {
            continue;
        };
        for (key, mut stored) in objects {
            loop {
                let references = stored.value["metadata"]["ownerReferences"].as_array();
                let Some(references) =
                    references.filter(|list| list.iter().any(|one| one["uid"] == *uid))
                else {
                    break;
                };
                let kept: Vec<Value> = references
                    .iter()
                    .filter(|one| one["uid"] != *uid)
                    .cloned()
                    .collect();
                let mut next = Value::clone(&stored.value);
                next["metadata"]["ownerReferences"] = json!(kept);
                match store
                    .put(Arc::clone(&key), Expect::Revision(stored.revision), next)
                    .await
                {
                    Ok(_) => break,
                    Err(WriteError::Conflict) => match store.get(&key) {
                        Some(newer) => stored = newer,
                        None => break,
                    },
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(())
}

/// `DELETE` of an object.
pub(super) async fn one(context: &Context) -> ApiResult<Response> {
    let kind = context.target.kind;
    let name = context.name();
    let undeletable = ["default", "kube-system", "kube-public", "kube-node-lease"];
    if kind.plural == "namespaces" && undeletable.contains(&name) {
        return Err(ApiError::forbidden(
            kind,
            name,
            "this namespace may not be deleted",
        ));
    }
    let options = Options::of(context)?;
    if options.propagation.as_deref() == Some("Orphan") && !options.dry_run {
        orphan(context, &list::current(context)?.value).await?;
    }
    let (last, gone) = remove(context, context.namespace(), name, &options).await?;
    if gone && kind.plural != "pods" {
        let mut details =
            json!({"name": name, "kind": kind.plural, "uid": last["metadata"]["uid"]});
        if !kind.group.is_empty() {
            details["group"] = json!(kind.group);
        }
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        let mut response = reply::json(StatusCode::OK, &status);
        if options.propagation.as_deref() == Some("Foreground") {
            let warning = "dependents are deleted in the background, the deletion of the owner does not wait for them";
            reply::warn(&mut response, &[warning.to_owned()]);
        }
        return Ok(response);
    }
    reply::object(
        kind,
        &context.headers,
        &context.query,
        StatusCode::OK,
        &kind.present(&last),
    )
}

/// `DELETE` of a collection: everything that the selectors name.
pub(super) async fn collection(context: &Context) -> ApiResult<Response> {
    let kind = context.target.kind;
    if kind.plural == "namespaces" || (kind.namespaced && context.target.namespace.is_none()) {
        return Err(ApiError::method_not_allowed());
    }
    let options = Options::of(context)?;
    let filter = Filter::of(context)?;
    let prefix = kind.prefix(context.target.namespace.as_deref());
    let (objects, revision) = context
        .app
        .store
        .list(&prefix, None)
        .map_err(|_| ApiError::internal("the newest revision is not there"))?;
    let mut items = Vec::new();
    for (_, stored) in objects {
        if !filter.matches(context, &stored.value) {
            continue;
        }
        let name = stored.value["metadata"]["name"]
            .as_str()
            .unwrap_or_default();
        match remove(context, context.namespace(), name, &options).await {
            Ok((last, _)) => items.push(kind.present(&last)),
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let list = json!({
        "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
        "metadata": {"resourceVersion": revision.to_string()}, "items": items,
    });
    Ok(reply::json(StatusCode::OK, &list))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(node: &str, phase: &str) -> Value {
        json!({"metadata": {"name": "p", "generation": 1}, "spec": {"nodeName": node}, "status": {"phase": phase}})
    }

    #[test]
    fn a_running_pod_gets_its_grace_and_a_second_deletion_may_only_shorten_it() {
        let pods = Kind::named("", "pods");
        let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let Step::Mark(marked) = decide(pods, &pod("n", "Running"), &Options::default(), now)
        else {
            panic!()
        };
        assert_eq!(
            marked["metadata"]["deletionTimestamp"],
            "2026-01-01T00:00:30Z"
        );
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
        assert_eq!(marked["metadata"]["generation"], 2);
        let later: jiff::Timestamp = "2026-01-01T00:00:05Z".parse().unwrap();
        let with = |grace| Options {
            grace: Some(grace),
            ..Options::default()
        };
        assert_eq!(decide(pods, &marked, &with(60), later), Step::Nothing);
        let Step::Mark(shorter) = decide(pods, &marked, &with(10), later) else {
            panic!()
        };
        assert_eq!(
            shorter["metadata"]["deletionTimestamp"],
            "2026-01-01T00:00:10Z"
        );
        assert_eq!(decide(pods, &marked, &with(0), later), Step::Remove);
        let Step::Mark(one) = decide(pods, &pod("n", "Running"), &with(-5), now) else {
            panic!()
        };
        assert_eq!(one["metadata"]["deletionGracePeriodSeconds"], 1);
    }

    #[test]
    fn what_nobody_holds_goes_at_once() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let pods = Kind::named("", "pods");
        for gone in [
            pod("", "Pending"),
            pod("n", "Succeeded"),
            pod("n", "Failed"),
        ] {
            assert_eq!(
                decide(pods, &gone, &Options::default(), now),
                Step::Remove,
                "{gone}"
            );
        }
        let secrets = Kind::named("", "secrets");
        assert_eq!(
            decide(secrets, &json!({"metadata": {}}), &Options::default(), now),
            Step::Remove
        );
        let held = json!({"metadata": {"finalizers": ["x"]}});
        assert!(matches!(
            decide(secrets, &held, &Options::default(), now),
            Step::Mark(_)
        ));
        let namespaces = Kind::named("", "namespaces");
        let namespace = json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}});
        let Step::Mark(marked) = decide(namespaces, &namespace, &Options::default(), now) else {
            panic!()
        };
        assert_eq!(marked["status"]["phase"], "Terminating");
    }
}
