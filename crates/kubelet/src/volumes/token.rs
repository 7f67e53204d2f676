//! Service account tokens of pods, asked for when needed and again before they run out.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::{Api, PostParams};
use towline_keyring::Secret;

use crate::clock::{after, between};
use crate::view;

const DEFAULT_SECONDS: i64 = 3600;
const REFRESH_AT_THE_LATEST: Duration = Duration::from_secs(24 * 3600);

/// Tokens by pod, audience and lifetime.
pub(crate) struct Tokens {
    client: Option<kube::Client>,
    held: Mutex<HashMap<Key, Held>>,
}

type Key = (String, String, i64);

#[derive(Debug, Clone)]
struct Held {
    token: Secret,
    refresh: Timestamp,
    expires: Timestamp,
}

impl Tokens {
    /// Tokens from the API server.
    pub(crate) fn new(client: Option<kube::Client>) -> Self {
        Self {
            client,
            held: Mutex::default(),
        }
    }

    /// The token for a projection of the pod.
    pub(super) async fn get(
        &self,
        pod: &Pod,
        projection: &ServiceAccountTokenProjection,
        now: Timestamp,
    ) -> Result<Secret, String> {
        let audience = projection.audience.clone().unwrap_or_default();
        let seconds = projection.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
        let key = (view::uid(pod).to_owned(), audience.clone(), seconds);
        let held = self.lock().get(&key).cloned();
        if let Some(held) = &held
            && now < held.refresh
        {
            return Ok(held.token.clone());
        }
        match self.request(pod, audience, seconds).await {
            Ok((token, expires)) => {
                let lifetime = between(now, expires);
                let refresh = after(now, (lifetime * 4 / 5).min(REFRESH_AT_THE_LATEST));
                let fresh = Held {
                    token: token.clone(),
                    refresh,
                    expires,
                };
                self.lock().insert(key, fresh);
                Ok(token)
            }
            // The old one still works for a while.
            Err(error) => match held {
                Some(held) if now < held.expires => Ok(held.token),
                _ => Err(error),
            },
        }
    }

    async fn request(
        &self,
        pod: &Pod,
        audience: String,
        seconds: i64,
    ) -> Result<(Secret, Timestamp), String> {
        let Some(client) = &self.client else {
            return Err("no API server to ask for a token".to_owned());
        };
        let account = pod
            .spec
            .as_ref()
            .and_then(|s| s.service_account_name.clone());
        let account = account
            .filter(|a| !a.is_empty())
            .unwrap_or_else(|| "default".to_owned());
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: (!audience.is_empty()).then(|| vec![audience]),
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            }),
            ..TokenRequest::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(client.clone(), view::namespace(pod));
        let answer = api
            .create_token_request(&account, &PostParams::default(), &request)
            .await
            .map_err(|error| format!("failed to fetch token: {error}"))?;
        let status = answer
            .status
            .ok_or("failed to fetch token: the answer has no status")?;
        match (status.token, status.expiration_timestamp) {
            (Some(token), Some(expires)) => Ok((Secret::new(token), expires.0)),
            _ => Err("failed to fetch token: the answer holds none".to_owned()),
        }
    }

    /// Forgets a pod's tokens.
    pub(super) fn forget(&self, uid: &str) {
        self.lock().retain(|(pod, _, _), _| pod != uid);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
