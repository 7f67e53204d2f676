//! Watches: order, selectors, bookmarks, compaction, ends.

use std::time::Duration;

use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use towline_apiserver::LogLimits;

use crate::server::{Caller, Server};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct Events {
    stream: http_body_util::BodyDataStream<Body>,
    rest: Vec<u8>,
}

async fn watch(caller: &Caller, query: &str) -> Events {
    let uri = format!("{CONFIG_MAPS}?watch=true&{query}");
    let request = http::Request::get(uri).body(Body::empty()).unwrap();
    let response = caller.0.send(request).await.unwrap();
    assert_eq!(response.status(), 200);
    Events {
        stream: response.into_body().into_data_stream(),
        rest: Vec::new(),
    }
}

impl Events {
    /// The next event; `None` when the stream has ended.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=at).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let chunk = tokio::time::timeout(Duration::from_secs(10), self.stream.next())
                .await
                .expect("no event");
            self.rest.extend_from_slice(&chunk?.unwrap());
        }
    }

    async fn expect(&mut self, kind: &str, name: &str) -> Value {
        let event = self.next().await.expect("the watch ended");
        assert_eq!(
            (
                event["type"].as_str(),
                event["object"]["metadata"]["name"].as_str()
            ),
            (Some(kind), Some(name)),
            "{event}"
        );
        event["object"].clone()
    }
}

async fn make(caller: &Caller, name: &str, labels: Value) -> Value {
    let body = json!({"metadata": {"name": name, "labels": labels}});
    let made = caller.post(CONFIG_MAPS, body).await;
    assert_eq!(made.code, 201, "{made:?}");
    made.body
}

#[tokio::test]
async fn a_watch_list_gives_the_state_its_end_and_then_changes() {
    let server = Server::start().await;
    let admin = server.admin().await;
    make(&admin, "a", json!({})).await;
    make(&admin, "b", json!({})).await;
    let options =
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = watch(
        &admin,
        &format!("{options}&fieldSelector=metadata.name%3Da"),
    )
    .await;
    events.expect("ADDED", "a").await;
    let bookmark = events.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    admin
        .patch(&format!("{CONFIG_MAPS}/b"), json!({"data": {"x": "1"}}))
        .await;
    admin
        .patch(&format!("{CONFIG_MAPS}/a"), json!({"data": {"x": "1"}}))
        .await;
    events.expect("MODIFIED", "a").await;
    admin.delete(&format!("{CONFIG_MAPS}/a")).await;
    events.expect("DELETED", "a").await;
    server.stop().await;
}

#[tokio::test]
async fn a_selector_turns_changes_into_coming_and_going() {
    let server = Server::start().await;
    let admin = server.admin().await;
    let first = make(&admin, "a", json!({"on": "yes"})).await;
    let from = first["metadata"]["resourceVersion"].as_str().unwrap();
    let mut events = watch(
        &admin,
        &format!("labelSelector=on%3Dyes&resourceVersion={from}"),
    )
    .await;
    make(&admin, "other", json!({})).await;
    let off = admin
        .patch(
            &format!("{CONFIG_MAPS}/a"),
            json!({"metadata": {"labels": {"on": "no"}}}),
        )
        .await
        .body;
    let left = events.expect("DELETED", "a").await;
    assert_eq!(
        left["metadata"]["labels"]["on"], "yes",
        "the state inside the selection"
    );
    assert_eq!(
        left["metadata"]["resourceVersion"],
        off["metadata"]["resourceVersion"]
    );
    admin
        .patch(
            &format!("{CONFIG_MAPS}/a"),
            json!({"metadata": {"labels": {"on": "yes"}}}),
        )
        .await;
    events.expect("ADDED", "a").await;
    server.stop().await;
}

#[tokio::test]
async fn what_was_compacted_is_gone_and_the_future_is_not_there_yet() {
    let server = Server::with(|options| {
        options.log = LogLimits {
            events: 3,
            bytes: 1 << 20,
        }
    })
    .await;
    let admin = server.admin().await;
    let first = make(&admin, "a", json!({})).await;
    let from = first["metadata"]["resourceVersion"].as_str().unwrap();
    for name in ["b", "c", "d", "e"] {
        make(&admin, name, json!({})).await;
    }
    let mut events = watch(&admin, &format!("resourceVersion={from}")).await;
    let error = events.next().await.unwrap();
    assert_eq!(
        (error["type"].as_str(), error["object"]["code"].as_i64()),
        (Some("ERROR"), Some(410))
    );
    assert_eq!(error["object"]["reason"], "Expired");
    assert!(
        error["object"]["message"]
            .as_str()
            .unwrap()
            .starts_with(&format!("too old resource version: {from} ("))
    );
    assert!(events.next().await.is_none(), "the stream ends");
    let early = admin
        .get(&format!("{CONFIG_MAPS}?watch=true&resourceVersion=99999"))
        .await;
    assert_eq!(
        (
            early.code,
            early.body["details"]["causes"][0]["reason"].as_str()
        ),
        (504, Some("ResourceVersionTooLarge"))
    );
    let list = admin
        .get(&format!(
            "{CONFIG_MAPS}?resourceVersion={from}&resourceVersionMatch=Exact"
        ))
        .await;
    assert_eq!(list.code, 410);
    let silent = admin
        .get(&format!("{CONFIG_MAPS}?watch=true&sendInitialEvents=true"))
        .await;
    assert_eq!(silent.code, 422);
    server.stop().await;
}

#[tokio::test]
async fn bookmarks_move_on_and_a_timeout_or_a_stop_ends_the_stream() {
    let server = Server::with(|options| options.limits.bookmark = Duration::from_millis(50)).await;
    let admin = server.admin().await;
    let made = make(&admin, "a", json!({})).await;
    let from: u64 = made["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let mut events = watch(
        &admin,
        &format!("resourceVersion={from}&allowWatchBookmarks=true"),
    )
    .await;
    // Writes elsewhere move the bookmark of a quiet watch.
    admin
        .post(
            "/api/v1/namespaces/default/secrets",
            json!({"metadata": {"name": "s"}}),
        )
        .await;
    loop {
        let bookmark = events.next().await.unwrap();
        assert_eq!(bookmark["type"], "BOOKMARK");
        if bookmark["object"]["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > from
        {
            break;
        }
    }
    let mut short = watch(&admin, "timeoutSeconds=1").await;
    short.expect("ADDED", "a").await;
    assert!(short.next().await.is_none());
    let mut open = watch(&admin, "").await;
    open.expect("ADDED", "a").await;
    server.stop().await;
    assert!(open.next().await.is_none(), "a stop ends the watch cleanly");
}

#[tokio::test]
async fn a_watch_of_tables_sends_columns_once() {
    let server = Server::start().await;
    let admin = server.admin().await;
    make(&admin, "a", json!({})).await;
    make(&admin, "b", json!({})).await;
    let request = http::Request::get(format!("{CONFIG_MAPS}?watch=true&timeoutSeconds=1"))
        .header(
            "accept",
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        )
        .body(Body::empty())
        .unwrap();
    let body = admin.0.send(request).await.unwrap().into_body();
    let mut events = Events {
        stream: body.into_data_stream(),
        rest: Vec::new(),
    };
    let (first, second) = (events.next().await.unwrap(), events.next().await.unwrap());
    assert_eq!(first["object"]["kind"], "Table");
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    assert_eq!(second["object"]["columnDefinitions"], json!([]));
    server.stop().await;
}
