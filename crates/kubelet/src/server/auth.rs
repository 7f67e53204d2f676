//! Who asks, and whether they may: a client certificate of the configured authority, or a token that the API server knows.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};
use tracing::debug;

/// A caller that showed a certificate which the server's TLS layer has verified: who it is by that.
#[derive(Debug, Clone, Default)]
pub(super) struct Certified(pub(super) Option<UserInfo>);

impl Certified {
    /// Reads user (common name) and groups (organizations) of a certificate, as Kubernetes does. The authority that signed it
    /// may have signed others, so this says who asks and not yet what they may.
    pub(super) fn of(certificate: &[u8]) -> Self {
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else {
            return Self(None);
        };
        let subject = certificate.subject();
        let words = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            attribute.as_str().ok().map(str::to_owned)
        };
        let username = subject.iter_common_name().next().and_then(words);
        let groups: Vec<String> = subject.iter_organization().filter_map(words).collect();
        Self(username.map(|username| UserInfo {
            username: Some(username),
            groups: Some(groups),
            ..UserInfo::default()
        }))
    }
}

/// Answers about callers.
#[derive(Clone)]
pub(super) struct Authorizer {
    pub(super) client: kube::Client,
    pub(super) node: String,
}

/// The verb of a request's method, as a kubelet asks about it.
pub(super) fn verb(method: &http::Method) -> &'static str {
    match *method {
        http::Method::POST => "create",
        http::Method::PUT => "update",
        http::Method::PATCH => "patch",
        http::Method::DELETE => "delete",
        _ => "get",
    }
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
    /// Whether the caller may use a sub-resource of the node (`log`, `proxy`, `metrics`) by this verb.
    pub(super) async fn check(
        &self,
        certified: Certified,
        token: Option<&str>,
        (verb, subresource): (&str, &str),
    ) -> Access {
        let user = match certified.0 {
            Some(user) => Some(user),
            None => self.user_of(token).await,
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
                    verb: Some(verb.to_owned()),
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

    /// Who shows this token, by the API server's word.
    async fn user_of(&self, token: Option<&str>) -> Option<UserInfo> {
        let token = token.filter(|t| !t.is_empty() && t.len() < 16 * 1024)?;
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: None,
            },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &review).await {
            Ok(answer) => answer
                .status
                .filter(|status| status.authenticated == Some(true))
                .and_then(|status| status.user),
            Err(error) => {
                debug!(%error, "a token cannot be reviewed");
                None
            }
        }
    }
}
