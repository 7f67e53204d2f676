//! Who may do what, over the wire.

use serde_json::{Value, json};
use towline_apiserver::Identity;

use crate::server::{Caller, Server};

const DEFAULT: &str = "/api/v1/namespaces/default";

#[tokio::test]
async fn nobody_is_anonymous_but_for_health() {
    let server = Server::start().await;
    for caller in [
        server.bearer(None).await,
        server.bearer(Some("e30.e30.e30")).await,
    ] {
        for path in ["/healthz", "/livez", "/readyz"] {
            assert_eq!(caller.get(path).await.code, 200, "{path}");
        }
        for path in [
            "/",
            "/api",
            "/apis",
            "/api/v1",
            "/version",
            "/metrics",
            "/openapi/v3",
            "/api/v1/pods",
            "/api/v1/secrets",
            "/api/v1/namespaces/default/secrets/x",
            "/bogus",
            "/api/v1/bogus",
            "/healthz/../api",
        ] {
            let answer = caller.get(path).await;
            assert_eq!(
                (answer.code, answer.body["reason"].as_str()),
                (401, Some("Unauthorized")),
                "{path}"
            );
        }
        assert_eq!(
            caller
                .post(
                    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                    json!({})
                )
                .await
                .code,
            401
        );
        assert_eq!(caller.post("/healthz", json!({})).await.code, 200);
    }
    server.stop().await;
}

async fn secret(admin: &Caller, name: &str) {
    let body = json!({"metadata": {"name": name}, "stringData": {"k": "v"}});
    assert_eq!(
        admin.post(&format!("{DEFAULT}/secrets"), body).await.code,
        201
    );
}

#[tokio::test]
async fn a_node_sees_what_its_pods_name_and_nothing_else() {
    let server = Server::start().await;
    let admin = server.admin().await;
    admin.account("default").await;
    for name in ["one-pull", "two-env", "free"] {
        secret(&admin, name).await;
    }
    admin
        .bound_pod(
            "one",
            "n1",
            json!({"imagePullSecrets": [{"name": "one-pull"}]}),
        )
        .await;
    admin
        .bound_pod("two", "n2", json!({"containers": [{"name": "c", "image": "x",
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "two-env", "key": "k"}}}]}]}))
        .await;
    let one = server.caller(Identity::Node("n1".to_owned())).await;
    for (path, code) in [
        ("secrets/one-pull", 200),
        ("secrets?fieldSelector=metadata.name%3Done-pull", 200),
        ("secrets/two-env", 403),
        ("secrets/free", 403),
        ("secrets/missing", 403),
        ("secrets", 403),
        ("secrets?fieldSelector=metadata.name%3Dtwo-env", 403),
        ("configmaps/kube-root-ca.crt", 404),
        ("configmaps/other", 403),
        ("pods/one", 200),
        ("pods/two", 403),
        ("pods", 403),
        ("pods?fieldSelector=spec.nodeName%3Dn1", 200),
        ("pods?fieldSelector=spec.nodeName%3Dn2", 403),
        ("pods?fieldSelector=spec.nodeName!%3Dn2", 403),
        ("serviceaccounts/default", 200),
        ("services", 200),
    ] {
        let answer = one.get(&format!("{DEFAULT}/{path}")).await;
        assert_eq!(answer.code, code, "{path}: {answer:?}");
    }
    for (path, code) in [
        ("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", 200),
        ("/api/v1/pods", 403),
        ("/api/v1/nodes", 403),
        ("/api/v1/nodes/n2", 403),
        ("/api/v1/nodes/n1", 404),
        ("/api/v1/secrets", 403),
        ("/metrics", 403),
        ("/version", 200),
        (
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2",
            403,
        ),
    ] {
        assert_eq!(one.get(path).await.code, code, "{path}");
    }
    let denied = one.get(&format!("{DEFAULT}/secrets/two-env")).await.body;
    assert_eq!(
        denied["message"],
        "secrets \"two-env\" is forbidden: User \"system:node:n1\" cannot get resource \"secrets\" \
        in API group \"\" in the namespace \"default\""
    );
    node_writes(&one).await;
    node_tokens(&admin, &one).await;
    server.stop().await;
}

async fn node_writes(one: &Caller) {
    let node = |name: &str| json!({"metadata": {"name": name}});
    assert_eq!(one.post("/api/v1/nodes", node("n2")).await.code, 403);
    assert_eq!(one.post("/api/v1/nodes", node("n1")).await.code, 201);
    assert_eq!(
        one.patch(
            "/api/v1/nodes/n1/status",
            json!({"status": {"phase": "Running"}})
        )
        .await
        .code,
        200
    );
    assert_eq!(
        one.patch(
            "/api/v1/nodes/n1",
            json!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "1"}}})
        )
        .await
        .code,
        403
    );
    assert_eq!(one.delete("/api/v1/nodes/n1").await.code, 403);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    assert_eq!(one.post(leases, node("n2")).await.code, 403);
    assert_eq!(one.post(leases, node("n1")).await.code, 201);
    let running = json!({"status": {"phase": "Running"}});
    assert_eq!(
        one.patch(&format!("{DEFAULT}/pods/one/status"), running.clone())
            .await
            .code,
        200
    );
    assert_eq!(
        one.patch(&format!("{DEFAULT}/pods/two/status"), running.clone())
            .await
            .code,
        403
    );
    assert_eq!(
        one.patch(&format!("{DEFAULT}/pods/one"), running)
            .await
            .code,
        403
    );
    assert_eq!(one.delete(&format!("{DEFAULT}/pods/two")).await.code, 403);
    let pod = json!({"metadata": {"name": "mine"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "x"}]}});
    assert_eq!(one.post(&format!("{DEFAULT}/pods"), pod).await.code, 403);
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}});
    assert_eq!(
        one.post(&format!("{DEFAULT}/events"), event).await.code,
        201
    );
    assert_eq!(
        one.post(
            &format!("{DEFAULT}/pods/two/binding"),
            json!({"target": {"name": "n1"}})
        )
        .await
        .code,
        403
    );
}

fn token_request(pod: &str, uid: &Value) -> Value {
    json!({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}}})
}

async fn node_tokens(admin: &Caller, one: &Caller) {
    let path = format!("{DEFAULT}/serviceaccounts/default/token");
    let uid = |pod: Value| pod["metadata"]["uid"].clone();
    let own = uid(admin.get(&format!("{DEFAULT}/pods/one")).await.body);
    let foreign = uid(admin.get(&format!("{DEFAULT}/pods/two")).await.body);
    assert_eq!(
        one.post(&path, json!({"spec": {}})).await.code,
        403,
        "an unbound token"
    );
    assert_eq!(
        one.post(&path, token_request("two", &foreign)).await.code,
        403,
        "another node's pod"
    );
    assert_eq!(
        one.post(&path, token_request("one", &foreign)).await.code,
        409,
        "another pod's UID"
    );
    assert_eq!(one.post(&path, token_request("one", &own)).await.code, 201);
}

#[tokio::test]
async fn a_pods_token_reads_nothing_and_dies_with_the_pod() {
    let server = Server::start().await;
    let admin = server.admin().await;
    admin.account("default").await;
    secret(&admin, "s").await;
    let pod = admin.bound_pod("p", "n1", json!({})).await;
    let path = format!("{DEFAULT}/serviceaccounts/default/token");
    let made = admin
        .post(&path, token_request("p", &pod["metadata"]["uid"]))
        .await;
    assert_eq!(made.code, 201, "{made:?}");
    let token = made.body["status"]["token"].as_str().unwrap().to_owned();
    let caller = server.bearer(Some(&token)).await;
    for (path, code) in [
        ("/api/v1/namespaces/default/secrets/s", 403),
        ("/api/v1/namespaces/default/secrets", 403),
        ("/api/v1/pods", 403),
        ("/api/v1/namespaces/default/pods/p", 403),
        ("/version", 200),
        ("/api/v1", 200),
        ("/metrics", 403),
    ] {
        assert_eq!(caller.get(path).await.code, code, "{path}");
    }
    let who = caller
        .post(
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            json!({}),
        )
        .await
        .body;
    assert_eq!(
        who["status"]["userInfo"]["username"],
        "system:serviceaccount:default:default"
    );
    assert_eq!(
        who["status"]["userInfo"]["extra"]["authentication.kubernetes.io/pod-name"],
        json!(["p"])
    );
    let can = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "secrets", "namespace": "default"}}});
    let can = caller
        .post(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            can,
        )
        .await
        .body;
    assert_eq!(can["status"]["allowed"], false);
    audiences(&server, &admin, &caller, &token).await;
    let body = json!({"gracePeriodSeconds": 0}).to_string().into_bytes();
    admin
        .send(
            "DELETE",
            &format!("{DEFAULT}/pods/p"),
            "application/json",
            body,
        )
        .await;
    assert_eq!(caller.get("/version").await.code, 401);
    server.stop().await;
}

#[tokio::test]
async fn components_have_their_part() {
    let server = Server::start().await;
    let admin = server.admin().await;
    admin.account("default").await;
    secret(&admin, "s").await;
    admin.post(&format!("{DEFAULT}/pods"), json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}})).await;
    let scheduler = server.caller(Identity::Scheduler).await;
    let controllers = server.caller(Identity::Controllers).await;
    for (path, for_scheduler, for_controllers) in [
        ("/api/v1/pods", 200, 200),
        ("/api/v1/nodes", 200, 200),
        ("/api/v1/secrets", 403, 200),
        ("/api/v1/namespaces/default/configmaps", 403, 200),
        ("/apis/apps/v1/replicasets", 200, 200),
        ("/metrics", 403, 403),
        ("/api/v1/namespaces/default/pods/p/log", 403, 403),
    ] {
        assert_eq!(scheduler.get(path).await.code, for_scheduler, "{path}");
        assert_eq!(controllers.get(path).await.code, for_controllers, "{path}");
    }
    let binding = json!({"target": {"kind": "Node", "name": "n"}});
    let path = format!("{DEFAULT}/pods/p/binding");
    assert_eq!(controllers.post(&path, binding.clone()).await.code, 403);
    assert_eq!(scheduler.post(&path, binding).await.code, 201);
    assert_eq!(
        scheduler
            .post(
                &format!("{DEFAULT}/pods"),
                json!({"metadata": {"name": "q"}})
            )
            .await
            .code,
        403
    );
    assert_eq!(
        controllers
            .post(
                &format!("{DEFAULT}/serviceaccounts"),
                json!({"metadata": {"name": "bot"}})
            )
            .await
            .code,
        201
    );
    assert_eq!(
        controllers
            .post(&format!("{DEFAULT}/serviceaccounts/bot/token"), json!({}))
            .await
            .code,
        403
    );
    server.stop().await;
}

/// A token is good for its audiences alone, and only who may ask is told.
async fn audiences(server: &Server, admin: &Caller, caller: &Caller, token: &str) {
    let path = format!("{DEFAULT}/serviceaccounts/default/token");
    let review =
        |token: &str, audience: &str| json!({"spec": {"token": token, "audiences": [audience]}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    assert_eq!(caller.post(reviews, review(token, "x")).await.code, 403);
    let node = server.caller(Identity::Node("n1".to_owned())).await;
    let api = "https://kubernetes.default.svc.cluster.local";
    assert_eq!(
        node.post(reviews, review(token, api)).await.body["status"]["authenticated"],
        true
    );
    assert_eq!(
        node.post(reviews, review(token, "other")).await.body["status"]["authenticated"],
        false
    );
    // A token for another audience does not open this API.
    let other = json!({"spec": {"audiences": ["vault"]}});
    let other = admin.post(&path, other).await.body["status"]["token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        server.bearer(Some(&other)).await.get("/version").await.code,
        401
    );
    assert_eq!(
        node.post(reviews, review(&other, "vault")).await.body["status"]["audiences"],
        json!(["vault"])
    );
}
