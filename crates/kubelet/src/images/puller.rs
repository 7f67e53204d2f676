//! Whose turn it is to pull: one after another, or some at a time; and the node's limit of starts per second.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use towline_cri::v1::{self, PodSandboxConfig};
use towline_keyring::{Candidate, Credential};

use crate::bucket::Bucket;
use crate::clock::Clock;
use crate::cri::{Cri, CriError};
use crate::trace::Trace;

/// What to pull.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) spec: v1::ImageSpec,
    /// Empty for one attempt without a credential.
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) sandbox: Option<PodSandboxConfig>,
    pub(crate) trace: Trace,
}

/// A pull that succeeded.
#[derive(Debug, Clone)]
pub(crate) struct Pulled {
    pub(crate) image_ref: String,
    /// Bytes, 0 where the runtime did not tell.
    pub(crate) size: u64,
    /// Time in the runtime, without waiting for the turn.
    pub(crate) took: Duration,
}

/// Why a pull failed.
#[derive(Debug, Clone)]
pub(crate) enum PullError {
    /// More pulls began than the node allows in this time.
    QpsExceeded,
    /// The runtime's answers, one a credential, in the order of trying.
    Runtime(Vec<CriError>),
}

impl PullError {
    /// The error's text.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::QpsExceeded => "pull QPS exceeded".to_owned(),
            Self::Runtime(errors) => {
                let texts: Vec<String> = errors.iter().map(CriError::pull_text).collect();
                towline_pod::pull::aggregate(&texts)
            }
        }
    }
}

/// Pulls in turn.
#[derive(Debug)]
pub(crate) struct Puller {
    cri: Cri,
    turns: Option<Semaphore>,
    starts: Mutex<Option<Bucket>>,
    clock: Clock,
}

impl Puller {
    /// `parallel` pulls at a time, all where it is `None`; `qps` starts a second with a burst, all where `qps` is 0.
    pub(crate) fn new(
        cri: Cri,
        parallel: Option<u32>,
        qps: f64,
        burst: u32,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self {
            cri,
            turns: parallel.map(|n| Semaphore::new(n.max(1) as usize)),
            starts: Mutex::new((qps > 0.0).then(|| Bucket::new(qps, burst))),
            clock,
        })
    }

    /// Waits for its turn, pulls with each credential until one works, and asks for the size.
    pub(crate) async fn pull(&self, order: Order) -> Result<Pulled, PullError> {
        let turn = match &self.turns {
            Some(turns) => turns.acquire().await.ok(),
            None => None,
        };
        let start = tokio::time::Instant::now();
        let image_ref = self.try_all(&order).await?;
        let size = match self.cri.image(order.spec).await {
            Ok(Some(image)) => image.size,
            _ => 0,
        };
        drop(turn);
        Ok(Pulled {
            image_ref,
            size,
            took: start.elapsed(),
        })
    }

    async fn try_all(&self, order: &Order) -> Result<String, PullError> {
        let accepted = self
            .starts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .is_none_or(|bucket| bucket.accept(self.clock.now()));
        if !accepted {
            return Err(PullError::QpsExceeded);
        }
        let anonymous = [Candidate::anonymous()];
        let candidates = if order.candidates.is_empty() {
            &anonymous[..]
        } else {
            &order.candidates
        };
        let mut errors = Vec::new();
        for candidate in candidates {
            let request = v1::PullImageRequest {
                image: Some(order.spec.clone()),
                auth: auth(&candidate.credential),
                sandbox_config: order.sandbox.clone(),
            };
            match self.cri.pull(request, &order.trace).await {
                Ok(image_ref) => return Ok(image_ref),
                Err(error) => errors.push(error),
            }
        }
        Err(PullError::Runtime(errors))
    }
}

fn auth(credential: &Credential) -> Option<v1::AuthConfig> {
    match credential {
        Credential::Anonymous => None,
        Credential::Basic { username, password } => Some(v1::AuthConfig {
            username: username.clone(),
            password: password.expose().to_owned(),
            ..v1::AuthConfig::default()
        }),
        Credential::IdentityToken(token) => Some(v1::AuthConfig {
            identity_token: token.expose().to_owned(),
            ..v1::AuthConfig::default()
        }),
        Credential::RegistryToken(token) => Some(v1::AuthConfig {
            registry_token: token.expose().to_owned(),
            ..v1::AuthConfig::default()
        }),
    }
}
