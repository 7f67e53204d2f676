//! Pulls that fail and recover, as a person sees them with kubectl.

use towline_sys::testing::{need_program, need_root};

use crate::support::eventually;
use crate::support::node::Node;
use crate::support::program::text;
use crate::support::registry::{DockerRegistry, LOGIN, hello};

fn ready() -> bool {
    need_root() && need_program("kubectl").is_some() && need_program("docker-registry").is_some()
}

#[test]
fn a_wrong_tag_backs_off_as_on_kubernetes_and_set_image_heals_it() {
    if !ready() {
        return;
    }
    let registry = DockerRegistry::open();
    registry.push(&hello("right"), "team/app", "v1.0");
    let node = Node::up();
    let wrong = format!("{}/team/app:v1.O", registry.address);
    node.run("typo", &wrong, "");
    node.wait_status("typo", "ErrImagePull", 15);
    node.wait_status("typo", "ImagePullBackOff", 25);

    let events = node.events("typo");
    for (reason, message) in [
        ("Pulling", format!("Pulling image \"{wrong}\"")),
        ("Failed", "Error: ErrImagePull".to_owned()),
        ("BackOff", format!("Back-off pulling image \"{wrong}\"")),
        ("Failed", "Error: ImagePullBackOff".to_owned()),
    ] {
        assert!(
            events.contains(&(reason.to_owned(), message.clone())),
            "{reason} {message}: {events:?}"
        );
    }
    let failed = format!("Failed to pull image \"{wrong}\": ");
    assert!(
        events
            .iter()
            .any(|(reason, message)| reason == "Failed" && message.starts_with(&failed)),
        "{events:?}"
    );
    let message = node.kubectl(&[
        "get",
        "pod",
        "typo",
        "-o",
        "jsonpath={.status.containerStatuses[0].state.waiting.message}",
    ]);
    assert!(
        message.starts_with(&format!(
            "Back-off pulling image \"{wrong}\": ErrImagePull: "
        )),
        "{message}"
    );

    // Attempts 2 and 3 come 10 and 30 s after the first, late by at most what re-queueing adds.
    let times = eventually("three attempts", 75, || {
        let times = attempt_times(&registry);
        if times.len() >= 3 {
            Ok(times)
        } else {
            Err(format!("{times:?}"))
        }
    });
    let (second, third) = (times[1] - times[0], times[2] - times[0]);
    assert!(
        (9.5..19.0).contains(&second),
        "the second attempt came after {second:.1} s"
    );
    assert!(
        (29.5..52.0).contains(&third),
        "the third attempt came after {third:.1} s"
    );

    node.kubectl(&[
        "set",
        "image",
        "pod/typo",
        &format!("app={}/team/app:v1.0", registry.address),
    ]);
    node.wait_status("typo", "Running", 20);
}

/// Seconds at which the registry was asked for the wrong tag's manifest: requests less than 3 s apart are one attempt.
fn attempt_times(registry: &DockerRegistry) -> Vec<f64> {
    let mut times: Vec<f64> = Vec::new();
    for line in registry.requests("manifests/v1.O") {
        let Some(time) = line
            .split("time=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
        else {
            continue;
        };
        let Ok(time) = time.parse::<jiff::Timestamp>() else {
            continue;
        };
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of one test")]
        let seconds = time.as_millisecond() as f64 / 1000.0;
        if times.last().is_none_or(|last| seconds - last > 3.0) {
            times.push(seconds);
        }
    }
    times
}

#[test]
fn a_private_image_runs_at_once_when_its_secret_is_created() {
    if !ready() {
        return;
    }
    let registry = DockerRegistry::with_login();
    registry.push(&hello("private"), "private/app", "v1");
    let node = Node::up();
    node.run(
        "private",
        &format!("{}/private/app:v1", registry.address),
        "  imagePullSecrets: [{name: regcred}]\n",
    );
    node.wait_status("private", "ImagePullBackOff", 40);
    let events = node.events("private");
    assert!(
        events.iter().any(|(reason, message)| reason == "FailedToRetrieveImagePullSecret"
            && message == "Unable to retrieve some image pull secrets (regcred); attempting to pull the image may not succeed."),
        "{events:?}"
    );
    node.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "regcred",
        &format!("--docker-server={}", registry.address),
        &format!("--docker-username={}", LOGIN.0),
        &format!("--docker-password={}", LOGIN.1),
    ]);
    node.wait_status("private", "Running", 8);
}

#[test]
fn a_rolling_update_to_a_broken_tag_stops_and_is_healed() {
    if !ready() {
        return;
    }
    let registry = DockerRegistry::open();
    registry.push(&hello("one"), "team/web", "v1");
    registry.push(&hello("two"), "team/web", "v2");
    let node = Node::up();
    let image = |tag: &str| format!("{}/team/web:{tag}", registry.address);
    node.apply(&format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 2\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers: [{{name: app, image: \"{}\"}}]\n",
        image("v1")
    ));
    node.kubectl(&["rollout", "status", "deployment/web", "--timeout=40s"]);
    node.kubectl(&[
        "set",
        "image",
        "deployment/web",
        &format!("app={}", image("broken")),
    ]);
    eventually("a new pod fails to pull", 30, || {
        let pods = node.kubectl(&["get", "pods", "--no-headers"]);
        if pods.contains("ErrImagePull") || pods.contains("ImagePullBackOff") {
            Ok(())
        } else {
            Err(pods)
        }
    });
    let pods = node.kubectl(&["get", "pods", "--no-headers"]);
    assert_eq!(
        pods.matches("Running").count(),
        2,
        "the old pods stay: {pods}"
    );
    let stuck = node.try_kubectl(&["rollout", "status", "deployment/web", "--timeout=3s"]);
    assert!(!stuck.status.success(), "{}", text(&stuck));

    node.kubectl(&["rollout", "undo", "deployment/web"]);
    node.kubectl(&["rollout", "status", "deployment/web", "--timeout=40s"]);
    node.kubectl(&[
        "set",
        "image",
        "deployment/web",
        &format!("app={}", image("v2")),
    ]);
    node.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    // `rollout status` does not wait for pods that are ending; they have to be gone soon, and only the new ones be left.
    let v2 = image("v2");
    eventually("only the new pods are left", 20, || {
        let images = node.kubectl(&[
            "get",
            "pods",
            "-o",
            "jsonpath={.items[*].spec.containers[0].image}",
        ]);
        if images == format!("{v2} {v2}") {
            Ok(())
        } else {
            Err(images)
        }
    });
}

#[test]
fn the_annotation_asks_for_an_attempt_now() {
    if !ready() {
        return;
    }
    let registry = DockerRegistry::open();
    let node = Node::up();
    node.run("late", &format!("{}/team/late:v1", registry.address), "");
    // Late in the third window nothing but the annotation would start an attempt soon.
    eventually("two attempts", 60, || {
        let record = node.kubectl(&[
            "get",
            "pod",
            "late",
            "-o",
            "jsonpath={.metadata.annotations.towline\\.dev/pulls}",
        ]);
        if record.contains("\"attempt\":2") {
            Ok(())
        } else {
            Err(record)
        }
    });
    registry.push(&hello("late"), "team/late", "v1");
    node.kubectl(&["annotate", "pod", "late", "towline.dev/retry-now=1"]);
    node.wait_status("late", "Running", 8);
}
