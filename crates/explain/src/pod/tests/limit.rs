//! Rate limits: for whom, until when, and what is known of that from where.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use towline_cause::Cause;

use super::bench::{Cluster, Door, counting, registry};
use super::{backoff, facts, pod};
use crate::Diagnosis;
use crate::scan::{self, Ask, Memory};

#[tokio::test]
async fn a_rate_limit_says_for_whom_and_until_when() {
    let host = registry(Door::Busy).await;
    let image = format!("{host}/team/app:v1");
    let node = json!({
        "metadata": {"name": "n1"},
        "status": {"nodeInfo": {
            "architecture": "amd64", "operatingSystem": "linux", "bootID": "b", "machineID": "", "systemUUID": "",
            "kernelVersion": "", "osImage": "", "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": "",
        }},
    });
    let cluster = Cluster::default()
        .pod(&pod(&image, &backoff(&image, "boom"), &[]), &[])
        .with("/api/v1/nodes/n1", node);
    let explain = async |boot_id: Option<&str>| -> Diagnosis {
        let mut context = cluster.context();
        context.boot_id = boot_id.map(str::to_owned);
        let mut all = crate::pod::explain(&context, "shop", "web").await.unwrap();
        all.remove(0)
    };
    let said = "0 of 100 in 6 h are left for address 203.0.113.7, it may be asked again from ";
    // From another machine: the node has another address, and another count.
    let told = explain(None).await;
    assert_eq!(told.cause, Some(Cause::RateLimited), "{told:?}");
    let limit = told.rate_limit.as_ref().unwrap();
    assert_eq!(
        (&limit.registry, &limit.charged, &limit.resets),
        (&host, &None, &None)
    );
    assert!(facts(&told).contains(said), "{}", facts(&told));
    assert!(facts(&told).contains("counted apart"));
    // From the node itself it is the pod's.
    let told = explain(Some("b")).await;
    let limit = told.rate_limit.as_ref().unwrap();
    assert_eq!(limit.charged.as_deref(), Some("address 203.0.113.7"));
    assert_eq!(limit.remaining, Some(0));
    let resets: jiff::Timestamp = limit.resets.as_ref().unwrap().parse().unwrap();
    let ahead = resets.as_second() - jiff::Timestamp::now().as_second();
    assert!((3600..=3900).contains(&ahead), "{ahead}");
    assert!(!facts(&told).contains("counted apart"));
    assert!(told.retry.unwrap().waiting_helps);
}

#[tokio::test]
async fn what_a_registry_said_before_it_was_asked_too_often_counts_until_it_may_be_asked_again() {
    let (host, asked) = counting(Door::BusyForOthers).await;
    let asks = [Ask::Namespace("shop".to_owned())];
    let of = |name: &str| {
        let image = format!("{host}/team/{name}:v1");
        Cluster::default()
            .pod(&pod(&image, &backoff(&image, "boom"), &[]), &[])
            .context()
    };
    let (app, other) = (of("app"), of("other"));
    let memory = Memory::new(&app);
    let look = async |context: &crate::pod::Context, want: Cause| {
        let scan = scan::explain_again(context, &asks, &memory).await.unwrap();
        assert_eq!(scan.items[0].cause, Some(want), "{scan:?}");
        asked.load(Ordering::Relaxed)
    };
    look(&app, Cause::TagNotFound).await;
    let said = Instant::now();
    // So that a moment lies between what the two live for, however slow this machine is.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let all = look(&other, Cause::RateLimited).await;
    memory.forget(said + Duration::from_millis(300_010));
    assert_eq!(look(&app, Cause::TagNotFound).await, all);
}
