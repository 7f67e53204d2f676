//! Objects: created, changed, listed, deleted.

use serde_json::json;

use crate::server::{Caller, Server};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn the_life_of_an_object() {
    let server = Server::start().await;
    let admin = server.admin().await;
    let made = admin
        .post(
            CONFIG_MAPS,
            json!({"metadata": {"name": "a"}, "data": {"k": "1"}}),
        )
        .await;
    assert_eq!(made.code, 201);
    let first = made.body["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let again = admin
        .post(CONFIG_MAPS, json!({"metadata": {"name": "a"}}))
        .await;
    assert_eq!(
        (again.code, again.body["message"].as_str()),
        (409, Some("configmaps \"a\" already exists"))
    );
    assert_eq!(again.body["reason"], "AlreadyExists");
    let mut object = made.body.clone();
    object["data"]["k"] = json!("2");
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(admin.put(&path, &object).await.code, 200);
    let stale = admin.put(&path, &object).await;
    assert_eq!(stale.code, 409);
    assert_eq!(
        stale.body["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; \
        please apply your changes to the latest version and try again"
    );
    let same = admin.patch(&path, json!({"data": {"k": "2"}})).await;
    assert_ne!(same.body["metadata"]["resourceVersion"], json!(first));
    let revision = same.body["metadata"]["resourceVersion"].clone();
    // A patch that changes nothing writes nothing.
    assert_eq!(
        admin.patch(&path, json!({"data": {"k": "2"}})).await.body["metadata"]["resourceVersion"],
        revision
    );
    let dry = admin
        .patch(&format!("{path}?dryRun=All"), json!({"data": {"k": "3"}}))
        .await;
    assert_eq!(dry.body["data"]["k"], "3");
    assert_eq!(admin.get(&path).await.body["data"]["k"], "2");
    assert_eq!(admin.delete(&path).await.body["status"], "Success");
    let gone = admin.get(&path).await;
    assert_eq!(
        (gone.code, gone.body["message"].as_str()),
        (404, Some("configmaps \"a\" not found"))
    );
    let generated = admin
        .post(CONFIG_MAPS, json!({"metadata": {"generateName": "g-"}}))
        .await;
    assert_eq!(
        generated.body["metadata"]["name"].as_str().unwrap().len(),
        7
    );
    server.stop().await;
}

/// Path, body, status and words of the answer.
fn wrong() -> Vec<(&'static str, serde_json::Value, u16, &'static str)> {
    vec![
        (
            "/api/v1/namespaces/nope/configmaps",
            json!({"metadata": {"name": "a"}}),
            404,
            "namespaces \"nope\" not found",
        ),
        (
            CONFIG_MAPS,
            json!({"metadata": {"name": "a", "namespace": "other"}}),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            CONFIG_MAPS,
            json!({"kind": "Secret", "metadata": {"name": "a"}}),
            400,
            "the kind in the data (Secret) does not match the expected kind (ConfigMap)",
        ),
        (
            CONFIG_MAPS,
            json!({"metadata": {"name": "A_b"}}),
            422,
            "ConfigMap \"A_b\" is invalid: metadata.name: Invalid value",
        ),
        (
            CONFIG_MAPS,
            json!({}),
            422,
            "name or generateName is required",
        ),
        (
            "/api/v1/namespaces/default/secrets",
            json!({"metadata": {"name": "s"}, "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": "bm90IGpzb24="}}),
            422,
            "<secret contents redacted>",
        ),
        (
            PODS,
            json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}], "serviceAccountName": "no"}}),
            403,
            "pods \"p\" is forbidden: error looking up service account default/no: serviceaccount \"no\" not found",
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            json!({"metadata": {"name": "d"}, "spec": {
            "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "c"}},
            "spec": {"containers": [{"name": "c", "image": "x"}]}}}}),
            422,
            "`selector` does not match template `labels`",
        ),
    ]
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_kubernetes_words() {
    let server = Server::start().await;
    let admin = server.admin().await;
    let table = wrong();
    for (path, body, code, text) in table {
        let answer = admin.post(path, body).await;
        assert_eq!(answer.code, code, "{answer:?}");
        assert!(
            answer.body["message"].as_str().unwrap().contains(text),
            "{} lacks {text}",
            answer.body["message"]
        );
        assert_eq!(answer.body["kind"], "Status");
    }
    let long = admin
        .post(
            CONFIG_MAPS,
            json!({"metadata": {"name": "a"}, "data": {"k": "x".repeat(4 << 20)}}),
        )
        .await;
    assert_eq!(
        (long.code, long.body["reason"].as_str()),
        (413, Some("RequestEntityTooLarge"))
    );
    let media = admin
        .send(
            "PATCH",
            &format!("{CONFIG_MAPS}/a"),
            "text/plain",
            Vec::new(),
        )
        .await;
    assert_eq!(media.code, 415);
    let unknown = admin
        .post(
            &format!("{CONFIG_MAPS}?fieldValidation=Warn"),
            json!({"metadata": {"name": "w"}, "bogus": 1}),
        )
        .await;
    assert_eq!(unknown.warnings, ["299 - \"unknown field \\\"bogus\\\"\""]);
    let kept = admin
        .post(
            "/apis/batch/v1/namespaces/default/jobs",
            json!({"metadata": {"name": "j"}}),
        )
        .await;
    assert!(
        kept.warnings[0]
            .contains("jobs.batch are stored, but nothing in this cluster acts on them")
    );
    server.stop().await;
}

#[tokio::test]
async fn a_pod_gets_defaults_its_account_and_a_node() {
    let server = Server::start().await;
    let admin = server.admin().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "pull"}]});
    assert_eq!(admin.post(accounts, account).await.code, 201);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "nginx"}]},
        "status": {"phase": "Running"}});
    let made = admin.post(PODS, pod).await.body;
    assert_eq!(made["status"]["phase"], "Pending");
    assert_eq!(made["status"]["qosClass"], "BestEffort");
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
    let mount = &made["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(
        mount["mountPath"],
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    let own = json!({"metadata": {"name": "q"}, "spec": {"containers": [{"name": "c", "image": "x"}],
        "imagePullSecrets": [{"name": "mine"}], "automountServiceAccountToken": false}});
    let own = admin.post(PODS, own).await.body;
    assert_eq!(own["spec"]["imagePullSecrets"], json!([{"name": "mine"}]));
    assert!(own["spec"].get("volumes").is_none());
    let binding = json!({"target": {"kind": "Node", "name": "n1"}});
    let path = format!("{PODS}/p/binding");
    assert_eq!(admin.post(&path, binding.clone()).await.code, 201);
    let bound = admin.get(&format!("{PODS}/p")).await.body;
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let twice = admin.post(&path, binding).await;
    assert_eq!(twice.code, 409);
    assert!(
        twice.body["message"]
            .as_str()
            .unwrap()
            .ends_with("pod p is already assigned to node \"n1\"")
    );
    parts_and_grace(&admin, &made["metadata"]["uid"]).await;
    server.stop().await;
}

async fn parts_and_grace(admin: &Caller, uid: &serde_json::Value) {
    // Status and the rest are apart.
    let status = admin
        .patch(
            &format!("{PODS}/p/status"),
            json!({"spec": {"nodeName": "n2"}, "status": {"phase": "Running"}}),
        )
        .await;
    assert_eq!(
        (
            status.body["spec"]["nodeName"].as_str(),
            status.body["status"]["phase"].as_str()
        ),
        (Some("n1"), Some("Running"))
    );
    let main = admin
        .patch(&format!("{PODS}/p"), json!({"status": {"phase": "Failed"}}))
        .await;
    assert_eq!(main.body["status"]["phase"], "Running");
    // Graceful deletion: marked first, then removed by whoever asks with no grace and the right UID.
    let marked = admin.delete(&format!("{PODS}/p")).await;
    assert_eq!(marked.body["metadata"]["deletionGracePeriodSeconds"], 30);
    let wrong = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "other"}})
        .to_string()
        .into_bytes();
    assert_eq!(
        admin
            .send("DELETE", &format!("{PODS}/p"), "application/json", wrong)
            .await
            .code,
        409
    );
    let right = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}).to_string();
    assert_eq!(
        admin
            .send(
                "DELETE",
                &format!("{PODS}/p"),
                "application/json",
                right.into_bytes()
            )
            .await
            .code,
        200
    );
    assert_eq!(admin.get(&format!("{PODS}/p")).await.code, 404);
}

#[tokio::test]
async fn namespaces_and_finalizers_hold_what_they_hold() {
    let server = Server::start().await;
    let admin = server.admin().await;
    assert_eq!(
        admin
            .post("/api/v1/namespaces", json!({"metadata": {"name": "n"}}))
            .await
            .code,
        201
    );
    let marked = admin.delete("/api/v1/namespaces/n").await.body;
    assert_eq!(marked["status"]["phase"], "Terminating");
    let late = admin
        .post(
            "/api/v1/namespaces/n/configmaps",
            json!({"metadata": {"name": "a"}}),
        )
        .await;
    assert_eq!(late.code, 403);
    assert!(
        late.body["message"]
            .as_str()
            .unwrap()
            .contains("because it is being terminated")
    );
    let mut empty = admin.get("/api/v1/namespaces/n").await.body;
    empty["spec"]["finalizers"] = json!([]);
    assert_eq!(
        admin
            .put("/api/v1/namespaces/n/finalize", &empty)
            .await
            .code,
        200
    );
    assert_eq!(admin.get("/api/v1/namespaces/n").await.code, 404);
    assert_eq!(admin.delete("/api/v1/namespaces/default").await.code, 403);
    let held = json!({"metadata": {"name": "held", "finalizers": ["x/y"]}});
    admin.post(CONFIG_MAPS, held).await;
    let path = format!("{CONFIG_MAPS}/held");
    assert!(admin.delete(&path).await.body["metadata"]["deletionTimestamp"].is_string());
    let released = admin
        .patch(&path, json!({"metadata": {"finalizers": null}}))
        .await;
    assert_eq!(released.code, 200);
    assert_eq!(admin.get(&path).await.code, 404);
    server.stop().await;
}

#[tokio::test]
async fn lists_are_cut_and_continued_at_one_revision() {
    let server = Server::start().await;
    let admin = server.admin().await;
    for at in 0..5 {
        let body = json!({"metadata": {"name": format!("m{at}"), "labels": {"even": (at % 2 == 0).to_string()}}});
        assert_eq!(admin.post(CONFIG_MAPS, body).await.code, 201);
    }
    let page = admin.get(&format!("{CONFIG_MAPS}?limit=2")).await.body;
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    assert_eq!(page["metadata"]["remainingItemCount"], 3);
    // What happens in between does not show.
    admin.delete(&format!("{CONFIG_MAPS}/m3")).await;
    let token = page["metadata"]["continue"].as_str().unwrap();
    let rest = admin
        .get(&format!("{CONFIG_MAPS}?limit=500&continue={token}"))
        .await
        .body;
    let names: Vec<&str> = rest["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["m2", "m3", "m4"]);
    assert_eq!(
        rest["metadata"]["resourceVersion"],
        page["metadata"]["resourceVersion"]
    );
    let even = admin
        .get(&format!("{CONFIG_MAPS}?labelSelector=even%3Dtrue"))
        .await
        .body;
    assert_eq!(even["items"].as_array().unwrap().len(), 3);
    let named = admin
        .get(&format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Dm1"))
        .await
        .body;
    assert_eq!(named["items"].as_array().unwrap().len(), 1);
    for (query, code) in [
        ("continue=zzz", 400),
        ("resourceVersionMatch=Exact", 422),
        ("resourceVersionMatch=Exact&resourceVersion=0", 422),
        ("sendInitialEvents=true", 422),
        ("resourceVersion=999999", 504),
        ("resourceVersion=x", 400),
        ("fieldSelector=spec.x%3D1", 400),
        ("labelSelector=a%20b", 400),
    ] {
        assert_eq!(
            admin.get(&format!("{CONFIG_MAPS}?{query}")).await.code,
            code,
            "{query}"
        );
    }
    let all = admin.delete(CONFIG_MAPS).await.body;
    assert_eq!(all["items"].as_array().unwrap().len(), 4);
    server.stop().await;
}

#[tokio::test]
async fn events_have_two_faces_and_scale_has_one_number() {
    let server = Server::start().await;
    let admin = server.admin().await;
    let event = json!({"metadata": {"name": "e"}, "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Scheduled", "note": "hello", "type": "Normal", "action": "Binding", "eventTime": "2026-01-01T00:00:00.000001Z",
        "reportingController": "default-scheduler", "reportingInstance": "x"});
    let made = admin
        .post("/apis/events.k8s.io/v1/namespaces/default/events", event)
        .await;
    assert_eq!(made.code, 201, "{made:?}");
    let core = admin
        .get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp")
        .await
        .body;
    assert_eq!(core["items"][0]["message"], "hello");
    assert_eq!(core["items"][0]["apiVersion"], "v1");
    let patch = admin
        .patch("/api/v1/namespaces/default/events/e", json!({"count": 4}))
        .await;
    assert_eq!(patch.code, 200);
    let new = admin
        .get("/apis/events.k8s.io/v1/namespaces/default/events/e")
        .await
        .body;
    assert_eq!(
        (new["deprecatedCount"].as_i64(), new["note"].as_str()),
        (Some(4), Some("hello"))
    );
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template":
        {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(
        admin.post(deployments, deployment).await.body["spec"]["replicas"],
        1
    );
    let scaled = admin
        .patch(
            &format!("{deployments}/d/scale"),
            json!({"spec": {"replicas": 3}}),
        )
        .await;
    assert_eq!(
        (scaled.code, scaled.body["spec"]["replicas"].as_i64()),
        (200, Some(3))
    );
    let now = admin.get(&format!("{deployments}/d")).await.body;
    assert_eq!(
        (
            now["spec"]["replicas"].as_i64(),
            now["metadata"]["generation"].as_i64()
        ),
        (Some(3), Some(2))
    );
    server.stop().await;
}

#[tokio::test]
async fn an_orphan_keeps_living_without_its_owner() {
    let server = Server::start().await;
    let admin = server.admin().await;
    let owner = admin
        .post(CONFIG_MAPS, json!({"metadata": {"name": "owner"}}))
        .await
        .body;
    let reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]});
    let owned = json!({"metadata": {"name": "owned", "ownerReferences": [reference]}});
    assert_eq!(
        admin
            .post("/api/v1/namespaces/default/secrets", owned)
            .await
            .code,
        201
    );
    let body = json!({"propagationPolicy": "Orphan"})
        .to_string()
        .into_bytes();
    let path = format!("{CONFIG_MAPS}/owner");
    assert_eq!(
        admin
            .send("DELETE", &path, "application/json", body)
            .await
            .code,
        200
    );
    let left = admin
        .get("/api/v1/namespaces/default/secrets/owned")
        .await
        .body;
    assert_eq!(left["metadata"]["ownerReferences"], json!([]));
    server.stop().await;
}
