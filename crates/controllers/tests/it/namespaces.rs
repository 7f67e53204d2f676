//! What every namespace has, and how one goes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, PostParams};

use crate::cluster::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_gets_what_all_have_and_takes_what_it_holds() {
    let cluster = Cluster::start().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let metadata = |name: &str| ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    };
    let team = Namespace {
        metadata: metadata("team"),
        ..Namespace::default()
    };
    namespaces
        .create(&PostParams::default(), &team)
        .await
        .unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), "team");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "team");
    eventually("the service account", async || {
        accounts
            .get("default")
            .await
            .map_err(|error| error.to_string())
    })
    .await;
    let root = eventually("the authority", async || {
        maps.get("kube-root-ca.crt")
            .await
            .map_err(|error| error.to_string())
    })
    .await;
    assert!(root.data.unwrap()["ca.crt"].starts_with("-----BEGIN CERTIFICATE-----"));

    let data = Some(BTreeMap::from([("k".to_owned(), "v".to_owned())]));
    let own = ConfigMap {
        metadata: metadata("own"),
        data,
        ..ConfigMap::default()
    };
    maps.create(&PostParams::default(), &own).await.unwrap();
    maps.delete("kube-root-ca.crt", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the authority again", async || {
        maps.get("kube-root-ca.crt")
            .await
            .map_err(|error| error.to_string())
    })
    .await;
    namespaces
        .delete("team", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the namespace is gone", async || {
        match namespaces.get_opt("team").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(maps.get_opt("own").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_namespaces_than_are_emptied_at_once_all_go() {
    let cluster = Cluster::start().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let names: Vec<String> = (0..24).map(|number| format!("team-{number}")).collect();
    for name in &names {
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
    }
    for name in &names {
        namespaces
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }
    for name in &names {
        eventually("the namespace is gone", async || {
            match namespaces.get_opt(name).await {
                Ok(None) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}
