//! Who asks, and whether they may: a client certificate of the configured authority, or a token that the API server knows.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};
use tracing::debug;

/// A caller that showed a certificate which the server's TLS layer has verified.
#[derive(Debug, Clone, Copy)]
pub(super) struct Certified(pub(super) bool);

/// Answers about callers.
#[derive(Clone)]
pub(super) struct Authorizer {
    pub(super) client: kube::Client,
    pub(super) node: String,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Allowed,
    /// Nobody knows who this is.
    Unauthorized,
    /// Known, and not allowed.
    Forbidden,
}

impl Authorizer {
    /// Whether the caller may use a sub-resource of the node (`log`, `proxy`, `metrics`).
    pub(super) async fn check(
        &self,
        certified: Certified,
        token: Option<&str>,
        subresource: &str,
    ) -> Access {
        if certified.0 {
            return Access::Allowed;
        }
        let Some(token) = token.filter(|t| !t.is_empty() && t.len() < 16 * 1024) else {
            return Access::Unauthorized;
        };
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: None,
            },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let user = match api.create(&PostParams::default(), &review).await {
            Ok(answer) => answer
                .status
                .filter(|status| status.authenticated == Some(true))
                .and_then(|status| status.user),
            Err(error) => {
                debug!(%error, "a token cannot be reviewed");
                None
            }
        };
        let Some(user) = user else {
            return Access::Unauthorized;
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username,
                groups: user.groups,
                uid: user.uid,
                extra: user.extra,
                resource_attributes: Some(ResourceAttributes {
                    verb: Some("get".to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(self.node.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &review).await {
            Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => {
                Access::Allowed
            }
            Ok(_) => Access::Forbidden,
            Err(error) => {
                debug!(%error, "access cannot be reviewed");
                Access::Forbidden
            }
        }
    }
}
