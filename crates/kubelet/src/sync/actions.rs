//! What one sync of a pod has to do, from what the pod asks and what the runtime holds. Pure.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::view::{self, Instance, PodView, Role, State};

/// What the probes say of one container that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Health {
    /// Its startup probe has passed, or it has none.
    pub(crate) started: bool,
    /// Its liveness probe has failed too often.
    pub(crate) dead: bool,
    /// Its startup probe has failed too often.
    pub(crate) never_started: bool,
}

/// A container to end, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) name: String,
    pub(crate) id: String,
    /// Message of the `Killing` event.
    pub(crate) message: String,
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Actions {
    /// End everything that is left of an older sandbox, or of a pod that is done.
    pub(crate) kill_pod: bool,
    /// Make a sandbox with this attempt number.
    pub(crate) create_sandbox: Option<u32>,
    pub(crate) kill: Vec<Kill>,
    /// Names, in order.
    pub(crate) start_ephemeral: Vec<String>,
    /// Names, in order.
    pub(crate) start_init: Vec<String>,
    /// Names, in order.
    pub(crate) start_main: Vec<String>,
}

/// Decides. `health` answers for containers that run.
pub(crate) fn decide(pod: &Pod, view: &PodView, health: &dyn Fn(&str) -> Health) -> Actions {
    let all = view::containers(pod);
    let of = |role: Role| all.iter().filter(move |(r, _)| *r == role).map(|(_, c)| c);
    let init: Vec<&(Role, Container)> = all
        .iter()
        .filter(|(r, _)| matches!(r, Role::Init | Role::Sidecar))
        .collect();
    if view.ready_sandbox().is_none() {
        return with_new_sandbox(pod, view, &init, of(Role::Main));
    }
    let mut actions = Actions {
        start_ephemeral: of(Role::Ephemeral)
            .filter(|c| view.latest(&c.name).is_none())
            .map(|c| c.name.clone())
            .collect(),
        ..Actions::default()
    };
    let any_main = of(Role::Main).any(|c| view.latest_here(&c.name).is_some());
    let initialized = decide_init(pod, view, &init, any_main, health, &mut actions);
    if !initialized {
        return actions;
    }
    let mut kept = false;
    for container in of(Role::Main) {
        kept |= decide_main(pod, view, container, health, &mut actions);
    }
    if !kept && actions.start_main.is_empty() {
        actions.kill_pod = true;
        actions.start_init.clear();
    }
    actions
}

fn with_new_sandbox<'a>(
    pod: &Pod,
    view: &PodView,
    init: &[&(Role, Container)],
    main: impl Iterator<Item = &'a Container>,
) -> Actions {
    let attempt = view.sandbox().map_or(0, |s| s.attempt + 1);
    let mut actions = Actions {
        kill_pod: true,
        ..Actions::default()
    };
    let start: Vec<String> = main
        .filter(|c| should_start(pod, c, view.latest(&c.name)))
        .map(|c| c.name.clone())
        .collect();
    let never = pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()) == Some("Never");
    let used_up = never && attempt > 0 && !view.containers.is_empty();
    if start.is_empty() || used_up {
        return actions;
    }
    actions.create_sandbox = Some(attempt);
    match init.first() {
        Some((_, first)) => actions.start_init.push(first.name.clone()),
        None => actions.start_main = start,
    }
    actions
}

/// Walks the init containers; true when the main containers may run.
fn decide_init(
    pod: &Pod,
    view: &PodView,
    init: &[&(Role, Container)],
    any_main: bool,
    health: &dyn Fn(&str) -> Health,
    actions: &mut Actions,
) -> bool {
    for (role, container) in init.iter().copied() {
        let here = view.latest_here(&container.name);
        let go_on = match role {
            Role::Sidecar => decide_sidecar(view, container, here, any_main, health, actions),
            _ => any_main || decide_one_init(pod, container, here, actions),
        };
        if !go_on && !any_main {
            return false;
        }
    }
    true
}

fn decide_sidecar(
    view: &PodView,
    container: &Container,
    here: Option<&Instance>,
    any_main: bool,
    health: &dyn Fn(&str) -> Health,
    actions: &mut Actions,
) -> bool {
    let Some(here) = here else {
        actions.start_init.push(container.name.clone());
        return false;
    };
    match here.state {
        State::Running => {
            let health = health(&container.name);
            if let Some(message) = unfit(container, here, health, true) {
                actions.kill.push(kill(here, message));
                actions.start_init.push(container.name.clone());
                return false;
            }
            health.started
        }
        State::Unknown => {
            actions.kill.push(kill(here, unknown_state(&here.name)));
            actions.start_init.push(container.name.clone());
            false
        }
        State::Created | State::Exited => {
            // A sidecar that ends after the work is done is not started again: the sandbox is about to go.
            if any_main && view.live().next().is_none() {
                return true;
            }
            actions.start_init.push(container.name.clone());
            false
        }
    }
}

fn decide_one_init(
    pod: &Pod,
    container: &Container,
    here: Option<&Instance>,
    actions: &mut Actions,
) -> bool {
    let Some(here) = here else {
        actions.start_init.push(container.name.clone());
        return false;
    };
    match here.state {
        State::Running => false,
        State::Exited if here.exit_code == 0 => true,
        State::Exited => {
            let never =
                pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()) == Some("Never");
            if never {
                actions.kill_pod = true;
            } else {
                actions.start_init.push(container.name.clone());
            }
            false
        }
        State::Created => {
            actions.start_init.push(container.name.clone());
            false
        }
        State::Unknown => {
            actions.kill.push(kill(here, unknown_state(&here.name)));
            actions.start_init.push(container.name.clone());
            false
        }
    }
}

/// True when the container is kept running.
fn decide_main(
    pod: &Pod,
    view: &PodView,
    container: &Container,
    health: &dyn Fn(&str) -> Health,
    actions: &mut Actions,
) -> bool {
    let latest = view.latest(&container.name);
    let Some(running) = latest.filter(|c| c.state == State::Running) else {
        if should_start(pod, container, latest) {
            if let Some(lost) = latest.filter(|c| c.state == State::Unknown) {
                actions.kill.push(kill(lost, unknown_state(&lost.name)));
            }
            actions.start_main.push(container.name.clone());
        }
        return false;
    };
    let changed = running.hash != view::hash(container);
    let restart = changed || view::restart_policy(pod, container) != "Never";
    let Some(message) = unfit(container, running, health(&container.name), restart) else {
        return true;
    };
    actions.kill.push(kill(running, message));
    if restart {
        actions.start_main.push(container.name.clone());
    }
    false
}

fn unfit(
    container: &Container,
    running: &Instance,
    health: Health,
    restart: bool,
) -> Option<String> {
    let name = &container.name;
    let problem = if running.hash != view::hash(container) {
        format!("Container {name} definition changed")
    } else if health.dead {
        format!("Container {name} failed liveness probe")
    } else if health.never_started {
        format!("Container {name} failed startup probe")
    } else {
        return None;
    };
    Some(if restart {
        format!("{problem}, will be restarted")
    } else {
        problem
    })
}

fn unknown_state(name: &str) -> String {
    format!("Container is in \"unknown\" state, try killing it before restart: {name}")
}

fn kill(instance: &Instance, message: String) -> Kill {
    Kill {
        name: instance.name.clone(),
        id: instance.id.clone(),
        message,
    }
}

pub(crate) fn should_start(pod: &Pod, container: &Container, latest: Option<&Instance>) -> bool {
    let Some(latest) = latest else { return true };
    match latest.state {
        State::Running => false,
        State::Created | State::Unknown => true,
        State::Exited => match view::restart_policy(pod, container) {
            "Never" => false,
            "OnFailure" => latest.exit_code != 0,
            _ => true,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn pod(policy: &str, init: &[&str], main: &[&str]) -> Pod {
        let containers = |names: &[&str]| {
            names
                .iter()
                .map(|name| {
                    let (name, policy) = match name.strip_suffix('*') {
                        Some(name) => (name, serde_json::json!("Always")),
                        None => (*name, serde_json::Value::Null),
                    };
                    serde_json::json!({"name": name, "image": "i", "restartPolicy": policy})
                })
                .collect::<Vec<_>>()
        };
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"restartPolicy": policy, "initContainers": containers(init), "containers": containers(main)},
        }))
        .unwrap()
    }

    fn view(ready: bool, containers: &[(&str, State, i32)]) -> PodView {
        let mut view = PodView::default();
        view.sandboxes.push(Sandbox {
            id: "s".into(),
            ready,
            attempt: 0,
            created: Timestamp::UNIX_EPOCH,
            ips: vec![],
        });
        for (name, state, exit_code) in containers {
            let spec = Container {
                name: (*name).into(),
                image: Some("i".into()),
                ..Container::default()
            };
            view.containers
                .push(instance(name, *state, *exit_code, &view::hash(&spec)));
        }
        view
    }

    fn instance(name: &str, state: State, exit_code: i32, hash: &str) -> Instance {
        Instance {
            id: format!("id-{name}"),
            name: name.into(),
            sandbox: "s".into(),
            state,
            image: "i".into(),
            image_ref: "i@sha256:1".into(),
            created: Timestamp::UNIX_EPOCH,
            started: None,
            finished: None,
            exit_code,
            reason: String::new(),
            message: String::new(),
            restarts: 0,
            hash: hash.into(),
            log_path: String::new(),
            message_file: String::new(),
            message_from_logs: false,
            grace_seconds: None,
        }
    }

    use crate::view::Sandbox;
    use State::{Created, Exited, Running, Unknown};

    const FIT: Health = Health {
        started: true,
        dead: false,
        never_started: false,
    };

    fn decided(pod: &Pod, view: &PodView) -> Actions {
        decide(pod, view, &|_| FIT)
    }

    #[test]
    fn a_new_pod_gets_a_sandbox_and_its_first_containers() {
        let actions = decided(&pod("Always", &[], &["a", "b"]), &PodView::default());
        assert_eq!(actions.create_sandbox, Some(0));
        assert_eq!(actions.start_main, ["a", "b"]);
        let actions = decided(&pod("Always", &["i", "j"], &["a"]), &PodView::default());
        assert_eq!(
            (actions.start_init, actions.start_main),
            (vec!["i".into()], vec![])
        );
    }

    #[test]
    fn restart_policies() {
        for (policy, exit_code, starts) in [
            ("Always", 0, true),
            ("Always", 1, true),
            ("OnFailure", 0, false),
            ("OnFailure", 1, true),
            ("Never", 1, false),
        ] {
            let actions = decided(
                &pod(policy, &[], &["a", "b"]),
                &view(true, &[("a", Exited, exit_code), ("b", Running, 0)]),
            );
            assert_eq!(
                !actions.start_main.is_empty(),
                starts,
                "{policy} {exit_code}"
            );
            assert!(!actions.kill_pod);
        }
    }

    #[test]
    fn a_pod_that_is_done_loses_its_sandbox() {
        let pod = pod("Never", &[], &["a"]);
        assert!(decided(&pod, &view(true, &[("a", Exited, 0)])).kill_pod);
        let actions = decided(&pod, &view(false, &[("a", Exited, 0)]));
        assert_eq!((actions.kill_pod, actions.create_sandbox), (true, None));
    }

    #[test]
    fn a_dead_sandbox_is_replaced() {
        let pod = pod("Always", &[], &["a"]);
        let actions = decided(&pod, &view(false, &[("a", Exited, 137)]));
        assert_eq!(actions.create_sandbox, Some(1));
        assert_eq!(actions.start_main, ["a"]);
        assert!(actions.kill_pod);
    }

    #[test]
    fn init_containers_run_one_by_one() {
        let pod = pod("Always", &["i", "j"], &["a"]);
        for (here, init, main) in [
            (vec![], vec!["i"], vec![]),
            (vec![("i", Running, 0)], vec![], vec![]),
            (vec![("i", Created, 0)], vec!["i"], vec![]),
            (vec![("i", Unknown, 0)], vec!["i"], vec![]),
            (vec![("i", Exited, 1)], vec!["i"], vec![]),
            (vec![("i", Exited, 0)], vec!["j"], vec![]),
            (vec![("i", Exited, 0), ("j", Exited, 0)], vec![], vec!["a"]),
            (vec![("a", Running, 0)], vec![], vec![]),
        ] {
            let actions = decided(&pod, &view(true, &here));
            assert_eq!(
                (actions.start_init, actions.start_main),
                (
                    init.iter().map(ToString::to_string).collect(),
                    main.iter().map(ToString::to_string).collect()
                ),
                "{here:?}"
            );
        }
    }

    #[test]
    fn a_failed_init_container_ends_a_pod_that_never_restarts() {
        let actions = decided(
            &pod("Never", &["i"], &["a"]),
            &view(true, &[("i", Exited, 1)]),
        );
        assert!(actions.kill_pod);
        assert_eq!(actions.start_init.len(), 0);
    }

    #[test]
    fn sidecars_hold_back_the_rest_until_started_and_restart_alone_later() {
        let pod = pod("Always", &["s*", "i"], &["a"]);
        let running = view(true, &[("s", Running, 0)]);
        let waiting = decide(&pod, &running, &|_| Health::default());
        assert_eq!(waiting.start_init.len(), 0);
        assert_eq!(decided(&pod, &running).start_init, ["i"]);
        let later = view(
            true,
            &[("s", Exited, 1), ("a", Running, 0), ("i", Exited, 0)],
        );
        let actions = decided(&pod, &later);
        assert_eq!(actions.start_init, ["s"]);
        assert!(!actions.kill_pod);
    }

    #[test]
    fn changes_and_failed_probes_restart() {
        let always = pod("Always", &[], &["a"]);
        let mut changed = view(true, &[("a", Running, 0)]);
        changed.containers[0].hash = "other".into();
        let actions = decided(&always, &changed);
        assert_eq!(
            actions.kill[0].message,
            "Container a definition changed, will be restarted"
        );
        assert_eq!(actions.start_main, ["a"]);
        let running = view(true, &[("a", Running, 0)]);
        let dead = Health { dead: true, ..FIT };
        let actions = decide(&always, &running, &|_| dead);
        assert_eq!(
            actions.kill[0].message,
            "Container a failed liveness probe, will be restarted"
        );
        let actions = decide(&pod("Never", &[], &["a"]), &running, &|_| dead);
        assert_eq!(actions.kill[0].message, "Container a failed liveness probe");
        assert!(actions.start_main.is_empty());
    }
}
