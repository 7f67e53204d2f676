//! A visit by a pod, against an API server that keeps what it was told.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use towline_keyring::Credential;
use towline_oci::Platform;

use super::{Eye, Visit, Wanted};

/// What the API server was told: method, path, body.
type Told = Arc<Mutex<Vec<(Method, String, Value)>>>;

fn client(told: &Told, phase: &'static str, log: String) -> kube::Client {
    let told = Arc::clone(told);
    let service = tower::service_fn(move |request: Request<Body>| {
        let (told, log) = (Arc::clone(&told), log.clone());
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&bytes).unwrap_or_default();
            let path = parts.uri.path().to_owned();
            let answer = match (&parts.method, path.as_str()) {
                (_, path) if path.ends_with("/log") => log,
                (&Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews") => {
                    let body: &Value = &body;
                    let allowed = body["spec"]["resourceAttributes"]["verb"] != "delete";
                    json!({"spec": body["spec"], "status": {"allowed": allowed}}).to_string()
                }
                _ => json!({"metadata": {"name": "x"}, "spec": {"containers": []}, "status": {"phase": phase}})
                    .to_string(),
            };
            told.lock().unwrap().push((parts.method, path, body));
            Ok::<_, Infallible>(Response::new(Body::from(answer.into_bytes())))
        }
    });
    kube::Client::new(service, "default")
}

fn report() -> String {
    json!({"kind": "NodeReplay", "report": {
        "apiVersion": "towline.dev/v1", "kind": "ProbeReport", "image": "r.test/x:v1",
        "platform": {"os": "linux", "architecture": "amd64"}, "steps": [],
    }})
    .to_string()
}

fn wanted(platform: &Platform) -> Wanted<'_> {
    Wanted {
        namespace: "shop",
        pod: Some("web-1"),
        image: "r.test/x:v1",
        secrets: vec!["regcred".to_owned()],
        platform,
        credentials: vec![Credential::basic("bob", "hunter2-marked")],
    }
}

#[tokio::test]
async fn the_pod_is_pinned_bounded_and_deleted_and_holds_no_value() {
    let told = Told::default();
    let client = client(&told, "Succeeded", report());
    let visit = Visit::new("r.corp/towline:v1", "default");
    let eye = Eye::pod(client, "n1", visit);
    let platform = Platform::new("linux", "amd64");
    let first = eye.look(wanted(&platform)).await.unwrap();
    assert!(first.would_pull());
    eye.look(wanted(&platform)).await.unwrap();
    assert!(eye.clean_up().await.is_empty());

    let told = told.lock().unwrap();
    let made: Vec<&Value> = told
        .iter()
        .filter(|(method, ..)| *method == Method::POST)
        .map(|(_, _, body)| body)
        .collect();
    let [pod] = made.as_slice() else {
        panic!("one pod for one question: {made:?}")
    };
    let spec = &pod["spec"];
    assert_eq!(spec["nodeName"], "n1");
    assert_eq!(pod["metadata"]["namespace"], "shop");
    assert_eq!(spec["activeDeadlineSeconds"], 120);
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(
        spec["containers"][0]["resources"]["limits"]["memory"],
        "128Mi"
    );
    assert_eq!(spec["volumes"][0]["secret"]["secretName"], "regcred");
    assert!(!format!("{told:?}").contains("hunter2-marked"));
    let deleted = told.iter().filter(|(method, ..)| *method == Method::DELETE);
    assert_eq!(deleted.count(), 1);
}

#[tokio::test]
async fn a_pod_that_fails_is_told_and_deleted_too() {
    let told = Told::default();
    let client = client(&told, "Failed", "no towline here".to_owned());
    let eye = Eye::pod(client, "n1", Visit::new("busybox", "default"));
    let platform = Platform::new("linux", "amd64");
    let why = eye.look(wanted(&platform)).await.unwrap_err();
    assert!(why.contains("no towline here"), "{why}");
    let told = told.lock().unwrap();
    assert!(told.iter().any(|(method, ..)| *method == Method::DELETE));
}

#[tokio::test]
async fn what_it_takes_is_known_before() {
    let told = Told::default();
    let client = client(&told, "Running", String::new());
    let rights = Visit::rights(&client, "shop").await;
    let lines: Vec<String> = rights.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "create pods in namespace shop: yes",
            "get pods in namespace shop: yes",
            "get pods/log in namespace shop: yes",
            "delete pods in namespace shop: no",
        ]
    );
}
