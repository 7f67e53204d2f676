//! What is there from the start, and what goes by itself: namespaces, and events past their time.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::app::App;
use crate::kinds::Kind;
use crate::storage::{Expect, WriteError};

/// Namespaces that always exist.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// Time between two looks at the ages of events.
const SWEEP: Duration = Duration::from_secs(30);

/// Creates the namespaces that are missing.
pub(crate) async fn namespaces(app: &App) -> Result<(), WriteError> {
    let kind = Kind::named("", "namespaces");
    for name in NAMESPACES {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": name, "uid": uuid::Uuid::new_v4().to_string(),
                "creationTimestamp": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                "labels": {"kubernetes.io/metadata.name": name},
            },
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        });
        match app
            .store
            .put(Arc::from(kind.key("", name)), Expect::Absent, namespace)
            .await
        {
            Ok(_) | Err(WriteError::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes events that were last written longer ago than their time to live; runs until the server stops.
pub(crate) async fn expire_events(app: Arc<App>) {
    let stopping = app.stopping.clone();
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(SWEEP.min(app.limits.event_ttl)) => {}
        }
        let ttl = i64::try_from(app.limits.event_ttl.as_secs()).unwrap_or(i64::MAX);
        let oldest = jiff::Timestamp::now().as_second().saturating_sub(ttl);
        let Ok((events, _)) = app
            .store
            .list(&Kind::named("", "events").prefix(None), None)
        else {
            continue;
        };
        for (key, stored) in events {
            if stored.written < oldest
                && let Err(WriteError::Store(error)) = app
                    .store
                    .delete(key, Expect::Revision(stored.revision))
                    .await
            {
                tracing::warn!(%error, "an expired event could not be removed");
                break;
            }
        }
    }
}
