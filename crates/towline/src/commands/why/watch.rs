//! `towline why --watch`: a new answer whenever it is another one.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher;
use towline_explain::pod::Context;
use towline_explain::scan::Ask;

use super::answer::{Answer, Style};
use crate::output::{self, DIM, line, styled};

/// Changes come in bursts: one answer for all of them.
const SETTLE: Duration = Duration::from_secs(1);
/// Between two looks where pods may be read and not watched.
const PAUSE: Duration = Duration::from_secs(5);

/// Prints each new answer until the person ends it; gives the last one.
pub(super) async fn run(
    context: &Context,
    asks: &[Ask],
    style: Style,
    first: Answer,
) -> anyhow::Result<Answer> {
    let mut told = pin!(crate::commands::until_told());
    let mut changes = pin!(watcher(pods(context, asks), config(asks)));
    let mut shown = first;
    loop {
        tokio::select! {
            done = &mut told => {
                done?;
                return Ok(shown);
            }
            () = change(&mut changes) => {}
        }
        match super::of_cluster(context, asks).await {
            Ok(answer) if answer.essence() != shown.essence() => {
                if style == Style::Text {
                    line("")?;
                    let now = jiff::Timestamp::now().strftime("%H:%M:%SZ");
                    line(styled(DIM, format!("--- {now}")))?;
                } else if style == Style::Yaml {
                    line("---")?;
                }
                answer.print(style)?;
                shown = answer;
            }
            Ok(_) => {}
            // What is watched may be gone for a moment, and the API too.
            Err(error) => output::note(format!("{error:#}")),
        }
    }
}

/// Waits for a change and for the burst that it belongs to, or for a while where changes are not told.
async fn change(
    changes: &mut std::pin::Pin<
        &mut impl futures::Stream<Item = watcher::Result<watcher::Event<Pod>>>,
    >,
) {
    match changes.next().await {
        Some(Ok(_)) => {
            let burst = async { while let Some(Ok(_)) = changes.next().await {} };
            // The burst need not end: a busy namespace is looked at once in a while.
            drop(tokio::time::timeout(SETTLE, burst).await);
        }
        Some(Err(_)) | None => tokio::time::sleep(PAUSE).await,
    }
}

fn pods(context: &Context, asks: &[Ask]) -> Api<Pod> {
    let namespace = |ask: &Ask| match ask {
        Ask::Pod { namespace, .. }
        | Ask::Workload { namespace, .. }
        | Ask::Namespace(namespace) => Some(namespace.clone()),
        Ask::Cluster => None,
    };
    let mut namespaces: Vec<Option<String>> = asks.iter().map(namespace).collect();
    namespaces.dedup();
    match &namespaces[..] {
        [Some(one)] => Api::namespaced(context.kube.clone(), one),
        _ => Api::all(context.kube.clone()),
    }
}

fn config(asks: &[Ask]) -> watcher::Config {
    match asks {
        [Ask::Pod { name, .. }] => {
            watcher::Config::default().fields(&format!("metadata.name={name}"))
        }
        _ => watcher::Config::default(),
    }
}
