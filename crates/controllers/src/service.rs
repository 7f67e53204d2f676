//! The service: every controller is a task of its own.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use kube::{Client, Config};
use tokio::sync::Notify;
use towline_sys::task::{Kind, Supervisor};

use crate::{gc, namespaces, nodes, workloads};

/// What the controllers are told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster's API.
    pub kube: Config,
    /// The certificate authority that pods get in `kube-root-ca.crt`, PEM; without it, the one of `kube`.
    pub ca_pem: Option<String>,
}

impl Options {
    /// All controllers, for one cluster.
    pub fn new(kube: Config) -> Self {
        Self { kube, ca_pem: None }
    }
}

/// Why the controllers do not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client cannot be made.
    #[error("make a client for the cluster's API")]
    Client(#[source] Box<kube::Error>),
}

/// The controllers.
#[derive(Debug)]
pub struct Service;

/// Controllers that run.
#[derive(Debug)]
pub struct Handle {
    tasks: Supervisor,
}

impl Service {
    /// Starts the controllers.
    pub fn start(options: Options) -> Result<Handle, Error> {
        let ca = options
            .ca_pem
            .unwrap_or_else(|| pem(options.kube.root_cert.as_deref().unwrap_or_default()));
        let client =
            Client::try_from(options.kube).map_err(|source| Error::Client(Box::new(source)))?;
        let tasks = Supervisor::new();
        let stop = tasks.token();
        let litter = Arc::new(Notify::new());
        let workloads = workloads::run(client.clone(), Arc::clone(&litter), stop.clone());
        tasks.spawn("workload controllers", Kind::Critical, workloads);
        tasks.spawn(
            "garbage collector",
            Kind::Critical,
            gc::run(client.clone(), litter, stop.clone()),
        );
        tasks.spawn(
            "node lifecycle",
            Kind::Critical,
            nodes::run(client.clone(), stop.clone()),
        );
        tasks.spawn(
            "namespace controller",
            Kind::Critical,
            namespaces::run(client, ca, stop),
        );
        Ok(Handle { tasks })
    }
}

impl Handle {
    /// Waits until a controller ends of its own accord, and says why.
    pub async fn ended(&self) -> String {
        self.tasks.stopping().await.to_string()
    }

    /// Stops; gives the tasks that did not end in time.
    pub async fn shutdown(&self, deadline: Duration) -> Vec<String> {
        self.tasks.shutdown("asked to stop");
        self.tasks.finish(deadline).await.unfinished
    }
}

/// Certificates as PEM.
fn pem(certificates: &[Vec<u8>]) -> String {
    let mut out = String::new();
    for certificate in certificates {
        out.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = base64::engine::general_purpose::STANDARD.encode(certificate);
        for line in encoded.as_bytes().chunks(64) {
            out.push_str(&String::from_utf8_lossy(line));
            out.push('\n');
        }
        out.push_str("-----END CERTIFICATE-----\n");
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn certificates_are_wrapped() {
        let text = super::pem(&[vec![0; 60]]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[1].len(), lines[2].len()), (4, 64, 16));
    }
}
