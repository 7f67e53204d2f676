//! `towline why` on a node, and for images.

use serde_json::Value;
use towline_sys::testing::{need_program, need_root};

use crate::support::node::Node;
use crate::support::program::{text, towline};
use crate::support::registry::{DockerRegistry, hello, push};

#[test]
fn the_demo_shows_each_cause_and_recovers() {
    if !need_root() {
        return;
    }
    let output = towline().arg("demo").output().unwrap();
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    for words in [
        "TagNotFound",
        "NoCredentials",
        "PullSecretMissing",
        "PullSecretWrongHost",
        "DnsNameNotFound",
        "PlatformMismatch",
        "ErrImagePull",
        "ImagePullBackOff",
        "Running",
        "kubectl -n demo set image pod/typo app=",
        "kubectl -n demo create secret docker-registry ghost",
        "Cleaned up.",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(
        !told.contains("correct-horse"),
        "the password is never shown"
    );
    let readme = include_str!("../../../../README.md");
    let told: Vec<String> = told.lines().map(anonymous).collect();
    let shown: Vec<&str> = readme
        .split("```text\n")
        .skip(1)
        .filter_map(|block| block.split("```").next())
        .flat_map(str::lines)
        .collect();
    assert!(shown.len() > 100, "the README shows the demo");
    for line in shown.into_iter().filter(|line| !is_progress(line)) {
        assert!(
            told.contains(&anonymous(line)),
            "the README shows the demo as it is: {line}"
        );
    }
}

#[test]
fn a_pod_is_explained_in_json() {
    if !need_root() || need_program("kubectl").is_none() {
        return;
    }
    let node = Node::up();
    push(
        &hello("x"),
        node.address("registry"),
        "team/app",
        "v1.0",
        None,
    );
    let image = format!("{}/team/app:v1.O", node.address("registry"));
    node.run("typo", &image, "");
    node.wait_status("typo", "ErrImagePull", 15);
    let output = node.towline(&["why", "pod/typo", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    crate::support::schema::check(&answer);
    assert_eq!(answer["apiVersion"], "towline.dev/v1");
    assert_eq!(answer["kind"], "Diagnosis");
    assert_eq!(answer["cause"], "TagNotFound");
    assert_eq!(answer["step"], "resolve");
    assert_eq!(answer["confidence"], "proven");
    assert_eq!(answer["target"]["image"], image);
    assert_eq!(answer["retry"]["attempts"], 1);
    assert!(answer["retry"]["next"].is_string(), "{answer}");
    assert!(
        answer["evidence"]
            .as_array()
            .is_some_and(|evidence| evidence.iter().all(|fact| fact["seenFrom"].is_string()))
    );
    let command = answer["fixes"][0]["commands"][0].as_str().unwrap();
    assert_eq!(
        command,
        format!(
            "kubectl -n default set image pod/typo app={}/team/app:v1.0",
            node.address("registry")
        )
    );

    let shell = std::process::Command::new("sh")
        .args(["-c", command])
        .env("KUBECONFIG", node.kubeconfig())
        .output()
        .unwrap();
    assert!(
        shell.status.success(),
        "the command can be pasted: {}",
        text(&shell)
    );
    node.wait_status("typo", "Running", 15);
    let output = node.towline(&["why", "pod/typo", "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn an_image_is_explained_without_a_cluster() {
    if need_program("docker-registry").is_none() {
        return;
    }
    let registry = DockerRegistry::with_login();
    registry.push(&hello("x"), "team/app", "v1");
    let why = |image: &str, more: &[&str]| {
        let output = towline()
            .args(["why", image, "-o", "json"])
            .args(more)
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
        crate::support::schema::check(&answer);
        (
            output.status.code(),
            answer["cause"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let image = |tag: &str| format!("{}/team/app:{tag}", registry.address);
    let (user, password) = crate::support::registry::LOGIN;
    let right = format!("{user}:{password}");
    assert_eq!(
        why(&image("v1"), &["--creds", &right]),
        (Some(0), String::new())
    );
    assert_eq!(
        why(&image("v2"), &["--creds", &right]),
        (Some(1), "TagNotFound".to_owned())
    );
    assert_eq!(
        why(&image("v1"), &["--creds", "alice:wrong"]),
        (Some(1), "WrongCredentials".to_owned())
    );
    assert_eq!(
        why(&image("v1"), &[]),
        (Some(1), "NoCredentials".to_owned())
    );
    assert_eq!(why("Bad/Name", &[]).1, "InvalidReference");
    assert_eq!(why("127.0.0.1:1/x:v1", &[]).1, "RegistryIsLocalhost");
}

#[test]
fn an_unknown_authority_is_named_and_trusting_it_helps() {
    if !need_root()
        || need_program("kubectl").is_none()
        || need_program("docker-registry").is_none()
    {
        return;
    }
    let plain = DockerRegistry::open();
    plain.push(&hello("over TLS"), "team/app", "v1");
    let registry = DockerRegistry::with_tls(&plain);
    let image = format!("{}/team/app:v1", registry.address);
    let output = towline()
        .args(["why", &image, "-o", "json"])
        .output()
        .unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["cause"], "TlsUnknownAuthority", "{answer}");
    assert_eq!(answer["step"], "tls");
    let output = towline()
        .args(["why", &image, "--ca", &registry.ca()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));

    let node = Node::up_with(&["--ca", &registry.ca()]);
    node.run("secure", &image, "");
    node.wait_status("secure", "Running", 20);
}

#[test]
fn pull_and_images_work_alone_and_through_the_node() {
    if !need_root() || need_program("docker-registry").is_none() {
        return;
    }
    let registry = DockerRegistry::with_login();
    registry.push(&hello("x"), "team/app", "v1");
    let image = format!("{}/team/app:v1", registry.address);
    let (user, password) = crate::support::registry::LOGIN;
    let creds = format!("{user}:{password}");
    let run = |data: &str, args: &[&str]| {
        let output = towline()
            .args(args)
            .args(["--data-dir", data])
            .output()
            .unwrap();
        (output.status.code(), text(&output))
    };
    let alone = tempfile::tempdir().unwrap();
    let node = Node::up();
    for data in [alone.path().to_owned(), node.data()] {
        let data = data.to_str().unwrap();
        let (code, failed) = run(data, &["pull", &image]);
        assert_eq!(code, Some(1), "{failed}");
        assert!(
            failed.contains("NoCredentials") && failed.contains("hint:"),
            "{failed}"
        );
        let (code, pulled) = run(data, &["pull", &image, "--creds", &creds]);
        assert_eq!(code, Some(0), "{pulled}");
        let (code, list) = run(data, &["images"]);
        assert_eq!(code, Some(0), "{list}");
        assert!(list.contains(&image), "{list}");
    }
}

/// A line without what differs from run to run: ports, times, generated names, digests.
fn anonymous(line: &str) -> String {
    let varies = |c: char| c.is_ascii_digit();
    let words = line.split(' ').map(|word| {
        let pod = word
            .split_once("private-")
            .is_some_and(|(_, rest)| rest.contains('-'));
        let folder = word.starts_with("/tmp/");
        let digest = word.starts_with("sha256:");
        if digest || pod || folder {
            "#".to_owned()
        } else {
            word.replace(varies, "#")
                .replace("##", "#")
                .replace("##", "#")
                .replace("##", "#")
        }
    });
    words.collect::<Vec<_>>().join(" ").trim_end().to_owned()
}

/// A line such as `  12.4 s  typo   ImagePullBackOff`: their order differs from run to run.
fn is_progress(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let seconds = words.next().is_some_and(|word| word.parse::<f64>().is_ok());
    seconds && words.next() == Some("s")
}
