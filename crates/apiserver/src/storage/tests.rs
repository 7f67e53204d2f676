//! Revisions, conflicts, watches and restarts of the store.

use super::*;
use serde_json::json;

fn object(n: u32) -> Value {
    json!({"metadata": {"name": "x"}, "n": n})
}

fn small() -> LogLimits {
    LogLimits {
        events: 4,
        bytes: 1 << 20,
    }
}

#[tokio::test]
async fn writes_are_ordered_and_conflicts_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("db"), small()).unwrap();
    let key: Arc<str> = Arc::from("core/pods/a/x");
    let first = store
        .put(key.clone(), Expect::Absent, object(1))
        .await
        .unwrap();
    assert!(matches!(
        store.put(key.clone(), Expect::Absent, object(2)).await,
        Err(WriteError::Conflict)
    ));
    let second = store
        .put(key.clone(), Expect::Revision(first.revision), object(2))
        .await
        .unwrap();
    assert_eq!(second.revision, first.revision + 1);
    assert_eq!(
        second.value["metadata"]["resourceVersion"],
        json!(second.revision.to_string())
    );
    let stale = store
        .put(key.clone(), Expect::Revision(first.revision), object(3))
        .await;
    assert!(matches!(stale, Err(WriteError::Conflict)));
    let gone = store
        .delete(key.clone(), Expect::Revision(second.revision))
        .await
        .unwrap();
    assert_eq!(gone.value["n"], 2);
    assert_eq!(gone.revision, second.revision + 1);
    assert!(store.get(&key).is_none());
}

#[tokio::test]
async fn an_older_revision_can_be_listed_until_it_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("db"), small()).unwrap();
    let key: Arc<str> = Arc::from("core/pods/a/x");
    let mut last = store
        .put(key.clone(), Expect::Absent, object(0))
        .await
        .unwrap();
    let then = last.revision;
    for n in 1..4 {
        last = store
            .put(key.clone(), Expect::Revision(last.revision), object(n))
            .await
            .unwrap();
    }
    let (objects, at) = store.list("core/pods/", Some(then)).unwrap();
    assert_eq!((objects[0].1.value["n"].clone(), at), (json!(0), then));
    let (events, complete) = store.changes("core/pods/", then, 100).unwrap();
    assert_eq!(
        events
            .iter()
            .map(|e| e.value["n"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(complete, last.revision);
    let (events, complete) = store.changes("core/pods/", then, 2).unwrap();
    assert_eq!((events.len(), complete), (2, then + 2));
    for n in 4..8 {
        last = store
            .put(key.clone(), Expect::Revision(last.revision), object(n))
            .await
            .unwrap();
    }
    let oldest = last.revision - 4;
    assert_eq!(
        store.changes("core/pods/", then, 100).unwrap_err(),
        Expired { oldest }
    );
    assert_eq!(
        store.list("core/pods/", Some(then)).unwrap_err(),
        Expired { oldest }
    );
    assert_eq!(store.changes("core/pods/", oldest, 100).unwrap().0.len(), 4);
}

#[tokio::test]
async fn a_restart_keeps_objects_revisions_and_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let key: Arc<str> = Arc::from("core/pods/a/x");
    let store = Store::open(&path, small()).unwrap();
    let first = store
        .put(key.clone(), Expect::Absent, object(1))
        .await
        .unwrap();
    let second = store
        .put(key.clone(), Expect::Revision(first.revision), object(2))
        .await
        .unwrap();
    tokio::task::spawn_blocking(move || store.close())
        .await
        .unwrap();
    let store = Store::open(&path, small()).unwrap();
    assert_eq!(store.revision(), second.revision);
    assert_eq!(store.get(&key).unwrap().value["n"], 2);
    let (events, _) = store.changes("core/", first.revision, 10).unwrap();
    assert_eq!(events[0].previous.as_ref().unwrap().value["n"], 1);
    let third = store
        .put(key, Expect::Revision(second.revision), object(3))
        .await
        .unwrap();
    assert_eq!(third.revision, second.revision + 1);
}

#[tokio::test]
async fn a_file_of_a_newer_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    {
        let database = redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let table: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
        transaction
            .open_table(table)
            .unwrap()
            .insert("format", 99)
            .unwrap();
        transaction.commit().unwrap();
    }
    assert!(matches!(
        Store::open(&path, small()),
        Err(StoreError::Newer { found: 99, .. })
    ));
}
