//! Deployments planned on tables: updates, surges, undo, progress.

use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn deployment(change: impl FnOnce(&mut Value)) -> Deployment {
    let mut value = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1, "annotations": {"note": "x", LAST_APPLIED: "{}"}},
        "spec": {
            "replicas": 3, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}},
        },
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

/// A replica set as the plan made it, with so many replicas told, there, and available.
fn grown(made: ReplicaSet, told: i32, there: i32, available: i32, age: i64) -> ReplicaSet {
    let mut set = made;
    set.metadata.uid = set.metadata.name.clone();
    let created = now() - jiff::SignedDuration::from_secs(age);
    set.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        created,
    ));
    set.spec.as_mut().unwrap().replicas = Some(told);
    set.status = Some(k8s_openapi::api::apps::v1::ReplicaSetStatus {
        replicas: there,
        ready_replicas: Some(available),
        available_replicas: Some(available),
        ..Default::default()
    });
    set
}

fn decide(deployment: &Deployment, sets: &[&ReplicaSet]) -> Plan {
    plan(deployment, sets, |_| false, now())
}

fn condition<'a>(plan: &'a Plan, kind: &str) -> (&'a str, &'a str, &'a str) {
    let conditions = plan.status.conditions.as_ref().unwrap();
    let found = conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .unwrap();
    (
        &found.status,
        found.reason.as_deref().unwrap(),
        found.message.as_deref().unwrap(),
    )
}

#[test]
fn the_first_replica_set() {
    let plan = decide(&deployment(|_| {}), &[]);
    let set = plan.create.clone().unwrap();
    let hash = set.metadata.labels.as_ref().unwrap()[HASH_LABEL].clone();
    assert_eq!(set.metadata.name, Some(format!("web-{hash}")));
    let spec = set.spec.as_ref().unwrap();
    assert_eq!(spec.replicas, Some(3));
    assert_eq!(
        spec.selector.match_labels.as_ref().unwrap()[HASH_LABEL],
        hash
    );
    assert_eq!(
        spec.template
            .as_ref()
            .unwrap()
            .metadata
            .as_ref()
            .unwrap()
            .labels
            .as_ref()
            .unwrap()[HASH_LABEL],
        hash
    );
    let annotations = set.metadata.annotations.as_ref().unwrap();
    assert_eq!(
        (annotations[REVISION].as_str(), annotations["note"].as_str()),
        ("1", "x")
    );
    assert_eq!(
        (annotations[DESIRED].as_str(), annotations[MAX].as_str()),
        ("3", "4")
    );
    assert!(!annotations.contains_key(LAST_APPLIED));
    assert_eq!(plan.revision.as_deref(), Some("1"));
    assert_eq!(condition(&plan, "Progressing").1, "NewReplicaSetCreated");
    assert_eq!(
        condition(&plan, "Available").1,
        "MinimumReplicasUnavailable"
    );
}

#[test]
fn a_rollout_ends_and_says_so() {
    let mut first = deployment(|_| {});
    let made = decide(&first, &[]).create.unwrap();
    first
        .metadata
        .annotations
        .as_mut()
        .unwrap()
        .insert(REVISION.to_owned(), "1".to_owned());
    let set = grown(made, 3, 3, 3, 60);
    let done = decide(&first, &[&set]);
    assert_eq!(
        (
            done.create.clone(),
            done.update.len(),
            done.revision.clone()
        ),
        (None, 0, None)
    );
    let name = set.metadata.name.clone().unwrap();
    let expected = format!("ReplicaSet {name:?} has successfully progressed.");
    assert_eq!(
        condition(&done, "Progressing"),
        ("True", "NewReplicaSetAvailable", expected.as_str())
    );
    assert_eq!(condition(&done, "Available").0, "True");
    first.status = Some(done.status.clone());
    assert_eq!(
        plan(&first, &[&set], |_| false, now()).status,
        done.status,
        "a status that says it all is not written again"
    );
}

#[test]
fn a_broken_new_template_stops_after_the_surge_and_an_undo_heals() {
    let made = decide(&deployment(|_| {}), &[]).create.unwrap();
    let old = grown(made, 3, 3, 3, 60);
    let broken = deployment(|value| {
        value["spec"]["template"]["spec"]["containers"][0]["image"] = json!("broken");
        value["metadata"]["annotations"][REVISION] = json!("1");
    });
    let created = decide(&broken, &[&old]);
    let new = created.create.clone().unwrap();
    assert_eq!(new.spec.as_ref().unwrap().replicas, Some(1));
    assert_eq!(created.revision.as_deref(), Some("2"));
    let new = grown(new, 1, 1, 0, 30);
    let stuck = decide(&broken, &[&old, &new]);
    assert_eq!(
        (stuck.create.clone(), stuck.update.len()),
        (None, 0),
        "{stuck:?}"
    );
    assert_eq!(stuck.status.updated_replicas, Some(1));
    assert_eq!(
        (
            stuck.status.available_replicas,
            stuck.status.unavailable_replicas
        ),
        (Some(3), Some(1))
    );

    // Undone: the old template is wanted again and becomes revision 3.
    let undone = deployment(|value| value["metadata"]["annotations"][REVISION] = json!("2"));
    let back = decide(&undone, &[&old, &new]);
    assert_eq!(back.create, None);
    assert_eq!(back.revision.as_deref(), Some("3"));
    let of_old = back
        .update
        .iter()
        .find(|update| Some(&update.name) == old.metadata.name.as_ref())
        .unwrap();
    assert_eq!(
        (
            of_old.annotations[REVISION].as_str(),
            of_old.annotations[REVISION_HISTORY].as_str()
        ),
        ("3", "1")
    );
    let of_new = back
        .update
        .iter()
        .find(|update| Some(&update.name) == new.metadata.name.as_ref())
        .unwrap();
    assert_eq!(of_new.scale, Some((1, 0)));
}

#[test]
fn the_deadline_passes() {
    let made = decide(&deployment(|_| {}), &[]).create.unwrap();
    let set = grown(made, 3, 3, 0, 700);
    let waiting = |since: &str| {
        deployment(|value| {
            value["status"] = json!({"replicas": 3, "updatedReplicas": 3, "unavailableReplicas": 3, "conditions": [
                {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "message": "", "lastUpdateTime": since}]});
        })
    };
    let early = decide(&waiting("2026-01-01T00:55:00Z"), &[&set]);
    assert_eq!(
        (condition(&early, "Progressing").1, early.again),
        ("ReplicaSetUpdated", Some(Duration::from_secs(300)))
    );
    let late = decide(&waiting("2026-01-01T00:50:00Z"), &[&set]);
    let name = set.metadata.name.unwrap();
    let expected = format!("ReplicaSet {name:?} has timed out progressing.");
    assert_eq!(
        condition(&late, "Progressing"),
        ("False", "ProgressDeadlineExceeded", expected.as_str())
    );
}

#[test]
fn recreate_waits_for_the_old_pods() {
    let strategy = |value: &mut Value| value["spec"]["strategy"] = json!({"type": "Recreate"});
    let made = decide(&deployment(strategy), &[]).create.unwrap();
    let old = grown(made.clone(), 3, 3, 3, 60);
    let next = deployment(|value| {
        strategy(value);
        value["spec"]["template"]["spec"]["containers"][0]["image"] = json!("v2");
    });
    let down = decide(&next, &[&old]);
    assert_eq!(
        (down.create.clone(), down.update[0].scale),
        (None, Some((3, 0)))
    );
    let old = grown(made, 0, 0, 0, 60);
    assert_eq!(plan(&next, &[&old], |_| true, now()).create, None);
    assert_eq!(
        decide(&next, &[&old])
            .create
            .unwrap()
            .spec
            .unwrap()
            .replicas,
        Some(3)
    );
}

#[test]
fn scaling_and_pausing() {
    let made = decide(&deployment(|_| {}), &[]).create.unwrap();
    let set = grown(made, 3, 3, 3, 60);
    let more = decide(
        &deployment(|value| value["spec"]["replicas"] = json!(5)),
        &[&set],
    );
    assert_eq!(
        (
            more.update[0].scale,
            more.update[0].annotations[DESIRED].as_str()
        ),
        (Some((3, 5)), "5")
    );
    let none = decide(
        &deployment(|value| value["spec"]["replicas"] = json!(0)),
        &[&set],
    );
    assert_eq!(none.update[0].scale, Some((3, 0)));
    let paused = decide(
        &deployment(|value| {
            value["spec"]["paused"] = json!(true);
            value["spec"]["template"]["spec"]["containers"][0]["image"] = json!("v2");
        }),
        &[&set],
    );
    assert_eq!((paused.create.clone(), paused.update.len()), (None, 0));
    assert_eq!(
        condition(&paused, "Progressing"),
        ("Unknown", "DeploymentPaused", "Deployment is paused")
    );
}

#[test]
fn the_history_is_cut() {
    let made = decide(&deployment(|_| {}), &[]).create.unwrap();
    let current = grown(made.clone(), 3, 3, 3, 10);
    let old: Vec<ReplicaSet> = (1..4)
        .map(|number| {
            let mut set = grown(made.clone(), 0, 0, 0, 100 - number);
            set.metadata.name = Some(format!("web-{number}"));
            set.metadata
                .labels
                .as_mut()
                .unwrap()
                .insert(HASH_LABEL.to_owned(), number.to_string());
            set.metadata
                .annotations
                .as_mut()
                .unwrap()
                .insert(REVISION.to_owned(), number.to_string());
            let template = set.spec.as_mut().unwrap().template.as_mut().unwrap();
            template.spec.as_mut().unwrap().containers[0].image = Some(format!("old-{number}"));
            set
        })
        .collect();
    let sets: Vec<&ReplicaSet> = old.iter().chain([&current]).collect();
    let limited = deployment(|value| value["spec"]["revisionHistoryLimit"] = json!(1));
    assert_eq!(decide(&limited, &sets).delete, ["web-1", "web-2"]);
}

#[test]
fn the_hash_depends_on_the_template_alone() {
    let template = |image: &str| {
        deployment(|value| {
            value["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        })
        .spec
        .unwrap()
        .template
    };
    assert_eq!(hash(&template("a"), 0), hash(&template("a"), 0));
    assert_ne!(hash(&template("a"), 0), hash(&template("b"), 0));
    assert_ne!(hash(&template("a"), 0), hash(&template("a"), 1));
}
