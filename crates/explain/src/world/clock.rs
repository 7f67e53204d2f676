//! A node's clock: it writes the time into its lease every few seconds, and the API server says its own with the answer.

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use serde_json::Value;

use super::Answer;
use crate::decide::Stands;

/// Most bytes of a lease that are read.
const MAX_LEASE: usize = 64 << 10;
/// Seconds that are nothing: a lease is renewed every 10 s, or for some nodes every 40.
const MEANS_NOTHING: i64 = 120;

/// How a node's clock stands to the API server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeClock {
    /// Seconds by which the node is ahead; negative where it is behind.
    ahead: i64,
    lease: Timestamp,
    server: Timestamp,
}

impl NodeClock {
    /// How the two stand to each other, where it is more than certificates and tokens allow for.
    pub(crate) fn stands(&self) -> Stands {
        match self.ahead {
            ahead if ahead > MEANS_NOTHING => Stands::Ahead,
            ahead if ahead < -MEANS_NOTHING => Stands::Behind,
            _ => Stands::Agrees,
        }
    }

    /// A node that has died renews its lease no more, which looks like a clock that is behind.
    pub(super) fn of_the_living(self, ready: bool) -> Answer<Self> {
        if self.stands() == Stands::Behind && !ready {
            return Err(format!(
                "it was last renewed at {}, and the node is not known to be ready: it may renew its lease no more",
                self.lease
            ));
        }
        Ok(self)
    }

    /// What that is, for people.
    pub(crate) fn words(&self, node: &str) -> String {
        let (lease, server) = (self.lease, self.server);
        if self.stands() == Stands::Agrees {
            format!("the clock of node {node} agrees with the API server's ({server})")
        } else {
            format!(
                "node {node} dates its lease {lease} while the API server's clock says {server}"
            )
        }
    }
}

pub(super) async fn read(client: &Client, node: &str) -> Answer<NodeClock> {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}");
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    let answer = client
        .send(request)
        .await
        .map_err(|error| error.to_string())?;
    let status = answer.status();
    if status != StatusCode::OK {
        return Err(status.to_string());
    }
    let date = answer.headers().get(header::DATE);
    let server = date
        .and_then(|date| date.to_str().ok())
        .and_then(|date| jiff::fmt::rfc2822::parse(date).ok())
        .map(|time| time.timestamp())
        .ok_or("the API server says no date")?;
    let body = Limited::new(answer.into_body(), MAX_LEASE).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    of(&body, server)
}

fn of(lease: &[u8], server: Timestamp) -> Answer<NodeClock> {
    let lease: Value = serde_json::from_slice(lease).map_err(|error| error.to_string())?;
    let renewed = lease["spec"]["renewTime"].as_str();
    let lease: Timestamp = renewed
        .and_then(|time| time.parse().ok())
        .ok_or("its lease holds no time")?;
    Ok(NodeClock {
        ahead: lease.as_second() - server.as_second(),
        lease,
        server,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_tells_the_nodes_time() {
        let server: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        let clock = |time: &str| {
            let lease = serde_json::json!({"spec": {"renewTime": time}});
            of(lease.to_string().as_bytes(), server)
        };
        let well = clock("2026-11-30T11:59:51.123456Z").unwrap();
        assert_eq!(well.stands(), Stands::Agrees);
        assert!(well.words("a").contains("agrees"));
        for (time, stands) in [
            ("2026-11-30T15:00:00.000000Z", Stands::Ahead),
            ("2024-11-30T12:00:00Z", Stands::Behind),
        ] {
            let wrong = clock(time).unwrap();
            assert_eq!(wrong.stands(), stands, "{wrong:?}");
            assert!(wrong.words("a").starts_with("node a dates its lease 20"));
            // Only what is alive says what time it has, and nothing dead writes ahead of time.
            assert!(wrong.clone().of_the_living(true).is_ok());
            let dead = wrong.of_the_living(false);
            assert_eq!(dead.is_err(), stands == Stands::Behind, "{dead:?}");
            if let Err(why) = dead {
                assert!(why.contains("renew its lease no more"), "{why}");
            }
        }
        assert!(well.of_the_living(false).is_ok());
        assert!(clock("soon").is_err());
        assert!(of(b"no lease", server).is_err());
    }
}
