//! Create and update: the one path by which objects change.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::decode::{self, Checked};
use super::{Context, reply};
use crate::admission;
use crate::error::{ApiError, ApiResult};
use crate::kinds::Kind;
use crate::storage::{Expect, Stored, WriteError};

/// How often an update without a revision of its own is tried again after others wrote.
const RETRIES: usize = 16;

/// Which part of an object a request may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Everything but the status.
    Main,
    /// The status.
    Status,
    /// A namespace's `spec.finalizers`.
    Finalize,
}

/// Microseconds have no place in most of Kubernetes' times.
pub(super) fn now() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

/// Adds the warnings that a write of this kind deserves.
pub(super) fn kept_only(kind: &Kind, warnings: &mut Vec<String>) {
    if !kind.acts {
        warnings.push(format!(
            "{} are stored, but nothing in this cluster acts on them",
            kind.qualified()
        ));
    }
}

/// `POST` of a collection.
pub(super) async fn create(context: &Context) -> ApiResult<Response> {
    let kind = context.target.kind;
    let given = decode::value(&context.headers, &context.body)?;
    let Checked {
        object,
        mut warnings,
    } = decode::check(kind, &context.query, given)?;
    kept_only(kind, &mut warnings);
    let stored = insert(context, kind.storable(object)).await?;
    let object = kind.present(&stored);
    let mut response = reply::object(
        kind,
        &context.headers,
        &context.query,
        StatusCode::CREATED,
        &object,
    )?;
    reply::warn(&mut response, &warnings);
    Ok(response)
}

/// Stores a new object in its stored form; gives it as stored, or as it would be with `dryRun`.
pub(super) async fn insert(context: &Context, mut object: Value) -> ApiResult<Value> {
    let kind = context.target.kind;
    let generated = name_it(context, &mut object)?;
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if kind.namespaced {
        admission::namespace_open(&context.app.store, kind, context.namespace(), &name)?;
    }
    prepare_new(kind, &mut object);
    if kind.plural == "pods" {
        admission::account_soon(&context.app.store, context.namespace(), &object).await;
    }
    admission::create(context, &mut object)?;
    let object = (kind.typed_storage())(object).map_err(|error| {
        ApiError::internal(format!(
            "the admitted object does not fit its type: {error}"
        ))
    })?;
    admission::validate(kind, &name, &object, None)?;
    if context.dry_run() {
        let key = kind.key(context.namespace(), &name);
        return match context.app.store.get(&key) {
            Some(_) => Err(ApiError::already_exists(kind, &name)),
            None => Ok(object),
        };
    }
    let mut name = name;
    let mut object = object;
    for _ in 0..8 {
        let key: Arc<str> = Arc::from(kind.key(context.namespace(), &name));
        match context
            .app
            .store
            .put(key, Expect::Absent, object.clone())
            .await
        {
            Ok(stored) => return Ok(Value::clone(&stored.value)),
            Err(WriteError::Conflict) => {
                let Some(prefix) = &generated else { break };
                name = format!("{prefix}{}", suffix());
                object["metadata"]["name"] = json!(name);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::already_exists(kind, &name))
}

/// Five characters as Kubernetes generates them: no vowels, no look-alikes.
fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5)
        .map(|_| char::from(LETTERS[fastrand::usize(..LETTERS.len())]))
        .collect()
}

/// Sets name and namespace. Gives the prefix when the name was generated.
fn name_it(context: &Context, object: &mut Value) -> ApiResult<Option<String>> {
    let kind = context.target.kind;
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    let metadata = &mut object["metadata"];
    if kind.namespaced {
        match metadata["namespace"].as_str() {
            None | Some("") => metadata["namespace"] = json!(context.namespace()),
            Some(found) if found == context.namespace() => {}
            Some(_) => {
                return Err(ApiError::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
        }
    } else if let Some(metadata) = metadata.as_object_mut() {
        metadata.shift_remove("namespace");
    }
    let name = metadata["name"].as_str().unwrap_or_default().to_owned();
    let mut generated = None;
    if name.is_empty() {
        let prefix = metadata["generateName"].as_str().unwrap_or_default();
        if prefix.is_empty() {
            let cause = crate::error::FieldCause {
                reason: "FieldValueRequired",
                field: "metadata.name".to_owned(),
                message: "Required value: name or generateName is required".to_owned(),
            };
            return Err(ApiError::invalid(kind, "", &[cause]));
        }
        let prefix: String = prefix.chars().take(58).collect();
        metadata["name"] = json!(format!("{prefix}{}", suffix()));
        generated = Some(prefix);
    }
    let name = metadata["name"].as_str().unwrap_or_default().to_owned();
    admission::name(kind, &name)?;
    Ok(generated)
}

/// The metadata of a new object belongs to the server; so does its status.
fn prepare_new(kind: &Kind, object: &mut Value) {
    let metadata = &mut object["metadata"];
    metadata["uid"] = json!(uuid::Uuid::new_v4().to_string());
    metadata["creationTimestamp"] = json!(now());
    if let Some(metadata) = metadata.as_object_mut() {
        for field in [
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "generation",
        ] {
            metadata.shift_remove(field);
        }
        if kind.generation {
            metadata.insert("generation".to_owned(), json!(1));
        }
    }
    if kind.status
        && kind.plural != "nodes"
        && let Some(object) = object.as_object_mut()
    {
        object.shift_remove("status");
    }
}

/// `PUT` of an object or of one of its parts.
pub(super) async fn update(context: &Context, part: Part) -> ApiResult<Response> {
    let kind = context.target.kind;
    let given = decode::value(&context.headers, &context.body)?;
    let Checked {
        object,
        mut warnings,
    } = decode::check(kind, &context.query, given)?;
    if object["metadata"]["name"]
        .as_str()
        .is_some_and(|name| !name.is_empty() && name != context.name())
    {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            object["metadata"]["name"].as_str().unwrap_or_default(),
            context.name()
        )));
    }
    let unconditional = matches!(
        kind.plural,
        "pods"
            | "nodes"
            | "events"
            | "deployments"
            | "replicasets"
            | "secrets"
            | "configmaps"
            | "serviceaccounts"
            | "namespaces"
    );
    if !unconditional
        && object["metadata"]["resourceVersion"]
            .as_str()
            .is_none_or(str::is_empty)
    {
        let cause = crate::error::FieldCause {
            reason: "FieldValueInvalid",
            field: "metadata.resourceVersion".to_owned(),
            message: "Invalid value: 0: must be specified for an update".to_owned(),
        };
        return Err(ApiError::invalid(kind, context.name(), &[cause]));
    }
    let object = kind.storable(object);
    let stored = change(context, part, |_| Ok(object.clone())).await?;
    kept_only(kind, &mut warnings);
    let object = kind.present(&stored);
    let mut response = reply::object(
        kind,
        &context.headers,
        &context.query,
        StatusCode::OK,
        &object,
    )?;
    reply::warn(&mut response, &warnings);
    Ok(response)
}

/// Reads, changes and writes an object until no one else wrote in between. `propose` gives the wanted object in its
/// stored form; what the part does not cover is put back. Gives the object as stored.
pub(super) async fn change(
    context: &Context,
    part: Part,
    propose: impl Fn(&Value) -> ApiResult<Value>,
) -> ApiResult<Value> {
    let kind = context.target.kind;
    let key: Arc<str> = Arc::from(kind.key(context.namespace(), context.name()));
    for _ in 0..RETRIES {
        let current = context
            .app
            .store
            .get(&key)
            .ok_or_else(|| ApiError::not_found(kind, context.name()))?;
        let proposed = propose(&current.value)?;
        let next = merge_parts(context, part, &current, proposed)?;
        if next == *current.value || context.dry_run() {
            return Ok(next);
        }
        let expect = Expect::Revision(current.revision);
        let result = if gone(kind, &next) {
            // The last finalizer was removed: the object goes, and its last state is the answer.
            context
                .app
                .store
                .delete(Arc::clone(&key), expect)
                .await
                .map(|_| next)
        } else {
            context
                .app
                .store
                .put(Arc::clone(&key), expect, next)
                .await
                .map(|stored| Value::clone(&stored.value))
        };
        match result {
            Ok(stored) => return Ok(stored),
            Err(WriteError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::modified(kind, context.name()))
}

/// Whether an object that is being deleted has nothing left that holds it.
fn gone(kind: &Kind, object: &Value) -> bool {
    let empty = |value: &Value| value.as_array().is_none_or(Vec::is_empty);
    let metadata = &object["metadata"];
    let graceful =
        kind.plural == "pods" && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0;
    metadata["deletionTimestamp"].is_string()
        && empty(&metadata["finalizers"])
        && !graceful
        && (kind.plural != "namespaces" || empty(&object["spec"]["finalizers"]))
}

/// Puts together what a request may change and what it may not.
fn merge_parts(
    context: &Context,
    part: Part,
    current: &Stored,
    mut next: Value,
) -> ApiResult<Value> {
    let kind = context.target.kind;
    let old = &*current.value;
    let name = context.name();
    let given = &next["metadata"];
    if let Some(version) = given["resourceVersion"]
        .as_str()
        .filter(|text| !text.is_empty())
        && version.parse() != Ok(current.revision)
    {
        return Err(ApiError::modified(kind, name));
    }
    if let Some(uid) = given["uid"].as_str().filter(|text| !text.is_empty())
        && old["metadata"]["uid"] != uid
    {
        return Err(precondition(kind, name, uid, old));
    }
    keep(
        &mut next["metadata"],
        &old["metadata"],
        &[
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generateName",
            "selfLink",
            "resourceVersion",
        ],
    );
    if next["metadata"].get("managedFields").is_none() {
        keep(&mut next["metadata"], &old["metadata"], &["managedFields"]);
    }
    let mut next = limit_to(kind, part, old, next);
    if part == Part::Main {
        admission::update(context, &mut next, old)?;
    } else {
        admission::status_update(context, &mut next, old)?;
    }
    let mut next = (kind.typed_storage())(next).map_err(|error| {
        ApiError::bad_request(format!("the changed object does not fit its type: {error}"))
    })?;
    admission::validate(kind, name, &next, Some(old))?;
    if kind.generation && part == Part::Main && next["spec"] != old["spec"] {
        next["metadata"]["generation"] =
            json!(old["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
    }
    Ok(next)
}

/// Puts back what a part of an object does not cover.
fn limit_to(kind: &Kind, part: Part, old: &Value, mut next: Value) -> Value {
    match part {
        Part::Main => {
            if kind.status {
                keep(&mut next, old, &["status"]);
            }
            if kind.plural == "namespaces" {
                keep(&mut next, old, &["spec"]);
            }
        }
        Part::Status => {
            keep(
                &mut next["metadata"],
                &old["metadata"],
                &["ownerReferences", "finalizers"],
            );
            let status = next["status"].take();
            let metadata = next["metadata"].take();
            next = old.clone();
            next["metadata"] = metadata;
            if !status.is_null() {
                next["status"] = status;
            }
        }
        Part::Finalize => {
            let finalizers = next["spec"]["finalizers"].take();
            next = old.clone();
            next["spec"]["finalizers"] = if finalizers.is_null() {
                json!([])
            } else {
                finalizers
            };
        }
    }
    next
}

/// 409 about the UID of a precondition.
pub(super) fn precondition(kind: &Kind, name: &str, uid: &str, current: &Value) -> ApiError {
    let found = current["metadata"]["uid"].as_str().unwrap_or_default();
    ApiError::conflict(
        kind,
        name,
        &format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}"),
    )
}

/// Gives these fields the values that they had.
fn keep(next: &mut Value, old: &Value, fields: &[&str]) {
    if !next.is_object() {
        *next = json!({});
    }
    let Some(map) = next.as_object_mut() else {
        return;
    };
    for field in fields {
        match old.get(*field) {
            Some(value) => {
                map.insert((*field).to_owned(), value.clone());
            }
            None => {
                map.shift_remove(*field);
            }
        }
    }
}
