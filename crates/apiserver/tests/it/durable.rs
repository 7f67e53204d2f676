//! What was acknowledged stays: over a restart, and over a kill in the middle of writing.

use std::io::BufRead as _;
use std::process::{Command, Stdio};

use serde_json::json;
use towline_apiserver::{Identity, Options, Service};

use crate::server::{Server, provider};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CHILD: &str = "TOWLINE_TEST_APISERVER_CHILD";

#[tokio::test]
async fn a_restart_keeps_objects_revisions_certificates_and_watches() {
    let server = Server::start().await;
    let admin = server.admin().await;
    let made = admin
        .post(CONFIG_MAPS, json!({"metadata": {"name": "a"}}))
        .await
        .body;
    admin
        .post(CONFIG_MAPS, json!({"metadata": {"name": "b"}}))
        .await;
    let ca = server.handle.ca_pem().to_owned();
    let dir = server.stop().await;
    let mut options = Options::new(
        dir.path().join("data"),
        vec!["127.0.0.1:0".parse().unwrap()],
    );
    options.server_names = vec!["other.example".to_owned()];
    let server = Server {
        handle: Service::start(options).await.unwrap(),
        dir,
    };
    assert_eq!(server.handle.ca_pem(), ca);
    let admin = server.admin().await;
    assert_eq!(admin.get(&format!("{CONFIG_MAPS}/a")).await.body, made);
    // A client that saw "a" before the restart goes on with "b".
    let from = made["metadata"]["resourceVersion"].as_str().unwrap();
    let events = admin
        .get(&format!(
            "{CONFIG_MAPS}?watch=true&timeoutSeconds=1&resourceVersion={from}"
        ))
        .await
        .body;
    assert_eq!(events["object"]["metadata"]["name"], "b");
    server.stop().await;
}

/// Not a test of its own: the server that the next test kills. Writes until then, and says what was acknowledged.
#[tokio::test]
async fn child_that_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    provider();
    let options = Options::new(
        std::path::Path::new(&dir).join("data"),
        vec!["127.0.0.1:0".parse().unwrap()],
    );
    let handle = Service::start(options).await.unwrap();
    let server = Server {
        handle,
        dir: tempfile::tempdir().unwrap(),
    };
    let admin = server.caller(Identity::Admin).await;
    for at in 0_u32.. {
        let body = json!({"metadata": {"name": format!("m{at}")}, "data": {"k": "x".repeat(2000)}});
        assert_eq!(admin.post(CONFIG_MAPS, body).await.code, 201);
        println!("\nACKNOWLEDGED m{at}");
    }
}

#[tokio::test]
async fn a_kill_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["durable::child_that_is_killed", "--exact", "--nocapture"])
        .env(CHILD, dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = Vec::new();
    for line in output.lines() {
        if let Some(name) = line.unwrap().strip_prefix("ACKNOWLEDGED ") {
            acknowledged.push(name.to_owned());
        }
        if acknowledged.len() == 40 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(
        acknowledged.len() >= 40,
        "the child wrote {} objects",
        acknowledged.len()
    );
    provider();
    let options = Options::new(
        dir.path().join("data"),
        vec!["127.0.0.1:0".parse().unwrap()],
    );
    let server = Server {
        handle: Service::start(options).await.unwrap(),
        dir,
    };
    let admin = server.admin().await;
    for name in acknowledged {
        assert_eq!(
            admin.get(&format!("{CONFIG_MAPS}/{name}")).await.code,
            200,
            "{name} was acknowledged"
        );
    }
    server.stop().await;
}
