//! Which old replica sets are forgotten.

use super::{View, replicas, revision_of};

/// Old replica sets that nothing runs of, beyond the limit of the history, oldest revision first.
pub(super) fn surplus(view: &View<'_>) -> Vec<String> {
    let limit = view
        .deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.revision_history_limit)
        .unwrap_or(10);
    let idle = |set: &&&k8s_openapi::api::apps::v1::ReplicaSet| {
        let running = set.status.as_ref().map_or(0, |status| status.replicas);
        replicas(set) == 0 && running == 0 && set.metadata.deletion_timestamp.is_none()
    };
    let mut idle: Vec<_> = view.old.iter().filter(idle).collect();
    idle.sort_by_key(|set| revision_of(&set.metadata));
    let keep = usize::try_from(limit).unwrap_or(0);
    let surplus = idle.len().saturating_sub(keep);
    idle.iter()
        .take(surplus)
        .filter_map(|set| set.metadata.name.clone())
        .collect()
}
