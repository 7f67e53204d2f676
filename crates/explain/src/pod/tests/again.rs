//! A replay that the network stops for a moment, beside a node that got further.

use serde_json::json;
use towline_cause::{Cause, Step};
use towline_distribution::{Client, Options, PlainHttp, Resolver};
use towline_lab::dns::{self, Answer, Table};

use super::bench::{Cluster, Door, registry};
use super::{backoff, pod};
use crate::StepOutcome;

#[tokio::test]
async fn a_look_up_that_fails_once_leaves_nothing_open_where_the_node_got_further() {
    let host = registry(Door::Full).await;
    let (_, port) = host.rsplit_once(':').unwrap();
    let image = format!("registry.test:{port}/team/app:v1");
    let full = backoff(
        &image,
        &format!(
            "failed to pull and unpack image \"{image}\": failed to extract layer sha256:{}: write /x: no space left on device",
            "a".repeat(64)
        ),
    );
    let early = json!({"reason": "ErrImagePull", "message": format!("failed to resolve reference \"{image}\": dial tcp: lookup registry.test: server misbehaving")});
    let right = Answer::Addresses(vec!["127.0.0.1".parse().unwrap()]);
    // A look-up asks twice.
    let turns: Vec<Answer> = vec![Answer::ServFail; 2]
        .into_iter()
        .chain([right])
        .collect();
    for (waiting, again) in [(full, true), (early, false)] {
        let names = Answer::InTurn(turns.clone());
        let names = dns::Server::start(dns::Options {
            table: Table::new().with("registry.test", names),
            ..dns::Options::default()
        })
        .await
        .unwrap();
        let cluster = Cluster::default().pod(&pod(&image, &waiting, &[]), &[]);
        let mut context = cluster.context();
        context.registry = Client::new(Options {
            system_roots: false,
            resolver: Resolver::Servers(vec![names.local_addr()]),
            plain_http: PlainHttp::Hosts(vec!["registry.test".to_owned()]),
            ..Options::default()
        })
        .unwrap();
        let mut told = crate::pod::explain(&context, "shop", "web").await.unwrap();
        let told = told.remove(0);
        let want = if again {
            Cause::NoSpaceLeft
        } else {
            Cause::DnsFailed
        };
        assert_eq!(told.cause, Some(want), "{told:?}");
        assert!(
            !told.alternatives.contains(&Cause::DnsFailed) || !again,
            "{told:?}"
        );
        let fetched = told
            .steps
            .iter()
            .any(|step| step.step == Step::Fetch && step.outcome == StepOutcome::Ok);
        assert_eq!(fetched, again, "{:?}", told.steps);
    }
}
