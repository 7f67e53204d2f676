//! `GET /containerLogs/NAMESPACE/POD/CONTAINER`.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::mpsc;

use super::cri_log::{Renderer, View};
use crate::agent::Agent;
use crate::view::{self, Role, State};

/// Longest line of a log file; a runtime cuts at 16 KiB.
const MAX_LINE: usize = 256 * 1024;
const PIECE: usize = 64 * 1024;
const POLL: Duration = Duration::from_millis(200);

/// What can be asked for, as the API server passes it on.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Query {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail_lines: Option<u64>,
    since_seconds: Option<i64>,
    since_time: Option<Timestamp>,
    limit_bytes: Option<u64>,
}

impl Query {
    /// Whether the instance before the last one is asked for.
    pub(super) fn is_previous(&self) -> bool {
        self.previous
    }
}

/// The log file of a container, or the text of a 400 answer.
pub(super) fn file(
    agent: &Agent,
    pod: &Pod,
    container: &str,
    previous: bool,
) -> Result<(PathBuf, String), String> {
    let name = view::name(pod);
    if view::container(pod, container).is_none() {
        return Err(format!("container {container} is not valid for pod {name}"));
    }
    let view = agent.pleg.view(view::uid(pod));
    let mut instances = view.all(container);
    let latest = instances.next();
    let older = instances.next();
    // While a container waits for its restart, the one that ended is both the last and the previous one.
    let waits = agent.troubles.get(view::uid(pod), container).is_some();
    let chosen = match (previous, latest) {
        (false, Some(latest)) if latest.state != State::Created => Some(latest),
        (true, Some(latest)) if latest.state == State::Exited && waits => Some(latest),
        (true, _) => older,
        _ => None,
    };
    if let Some(chosen) = chosen.filter(|c| !c.log_path.is_empty()) {
        return Ok((PathBuf::from(&chosen.log_path), chosen.id.clone()));
    }
    if previous {
        return Err(format!(
            "previous terminated container {container:?} in pod {name:?} not found"
        ));
    }
    let status = agent.status.get(pod);
    let lists = [
        status.container_statuses,
        status.init_container_statuses,
        status.ephemeral_container_statuses,
    ];
    let status = lists
        .into_iter()
        .flatten()
        .flatten()
        .find(|s| s.name == container);
    let waiting = status.and_then(|s| s.state).and_then(|s| s.waiting);
    let reason = waiting
        .and_then(|w| w.reason)
        .unwrap_or_else(|| "ContainerCreating".to_owned());
    Err(towline_pod::logs::waiting_text(container, name, &reason))
}

/// Sends what the query shows of the file, and goes on while the container runs where it follows.
pub(super) async fn send(
    agent: Arc<Agent>,
    pod: Arc<Pod>,
    container: String,
    (path, id): (PathBuf, String),
    query: Query,
    sender: mpsc::Sender<io::Result<Bytes>>,
) {
    let now = agent.clock.now();
    let since = query.since_seconds.map(|seconds| {
        let back = jiff::SignedDuration::from_secs(seconds.max(0));
        now.saturating_sub(back).unwrap_or(Timestamp::MIN)
    });
    let view = View {
        since: query.since_time.or(since),
        timestamps: query.timestamps,
        limit: query.limit_bytes,
    };
    let running = || {
        let view = agent.pleg.view(view::uid(&pod));
        let found = view.containers.iter().find(|c| c.id == id);
        found.is_some_and(|c| c.state == State::Running)
            && view::container(&pod, &container).is_some()
    };
    let follow = query.follow && !query.previous;
    if let Err(error) = copy(&path, query.tail_lines, view, follow, running, &sender).await {
        // The reader may be gone already.
        drop(sender.send(Err(error)).await);
    }
}

async fn copy(
    path: &Path,
    tail: Option<u64>,
    view: View,
    follow: bool,
    running: impl Fn() -> bool,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut file = File::open(path).await?;
    if let Some(lines) = tail {
        let start = tail_start(&mut file, lines).await?;
        file.seek(SeekFrom::Start(start)).await?;
    }
    let mut renderer = Renderer::new(view);
    let mut pending = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        let alive = follow && running();
        let read = file.read(&mut piece).await?;
        if read == 0 {
            if !alive || sender.is_closed() {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
            continue;
        }
        pending.extend_from_slice(&piece[..read]);
        let mut out = Vec::new();
        let mut used = 0;
        let mut more = true;
        while let Some(end) = pending[used..].iter().position(|b| *b == b'\n') {
            more = renderer.push(&pending[used..=used + end], &mut out);
            used += end + 1;
            if !more {
                break;
            }
        }
        pending.drain(..used);
        if pending.len() > MAX_LINE {
            pending.clear();
        }
        let sent = out.is_empty() || sender.send(Ok(Bytes::from(out))).await.is_ok();
        if !sent || !more {
            return Ok(());
        }
    }
}

/// Where the last `lines` lines of the file begin.
async fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0)).await?;
    let mut at = end;
    let mut found = 0;
    let mut piece = vec![0; PIECE];
    while at > 0 {
        let size = (PIECE as u64).min(at);
        at -= size;
        file.seek(SeekFrom::Start(at)).await?;
        let piece = &mut piece[..usize::try_from(size).unwrap_or(PIECE)];
        file.read_exact(piece).await?;
        for (index, byte) in piece.iter().enumerate().rev() {
            // The last line feed of the file ends its last line.
            let position = at + index as u64;
            if *byte == b'\n' && position + 1 < end {
                found += 1;
                if found == lines {
                    return Ok(position + 1);
                }
            }
        }
    }
    Ok(if lines == 0 { end } else { 0 })
}

/// The container that a request without a name means.
pub(super) fn default_container(pod: &Pod) -> Option<String> {
    let annotations = pod.metadata.annotations.as_ref();
    let named = annotations
        .and_then(|a| a.get("kubectl.kubernetes.io/default-container"))
        .cloned();
    named.or_else(|| {
        let containers = view::containers(pod);
        let main = containers.into_iter().find(|(role, _)| *role == Role::Main);
        main.map(|(_, container)| container.name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shown(content: &str, tail: Option<u64>, view: View) -> String {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("0.log");
        std::fs::write(&path, content).unwrap();
        let (sender, mut receiver) = mpsc::channel(16);
        copy(&path, tail, view, false, || false, &sender)
            .await
            .unwrap();
        drop(sender);
        let mut text = Vec::new();
        while let Some(piece) = receiver.recv().await {
            text.extend_from_slice(&piece.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stdout F two\n2026-01-01T00:00:03Z stderr F three\n";

    #[tokio::test]
    async fn the_last_lines() {
        let all = "one\ntwo\nthree\n";
        for (tail, text) in [
            (None, all),
            (Some(3), all),
            (Some(9), all),
            (Some(1), "three\n"),
            (Some(0), ""),
        ] {
            assert_eq!(shown(LOG, tail, View::default()).await, text, "{tail:?}");
        }
    }

    #[tokio::test]
    async fn an_unfinished_line_is_not_shown() {
        assert_eq!(
            shown(&LOG[..LOG.len() - 1], None, View::default()).await,
            "one\ntwo\n"
        );
    }
}
