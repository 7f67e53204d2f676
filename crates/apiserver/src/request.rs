//! A request's path, query and headers, understood.

use http::{HeaderMap, Method, header};

use crate::auth::authorize::Attributes;
use crate::error::{ApiError, ApiResult};
use crate::kinds::Kind;

/// Query parameters, decoded, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = bytes
                    .get(at + 1..at + 3)
                    .and_then(|pair| std::str::from_utf8(pair).ok());
                if let Some(byte) = digits.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
                    out.push(byte);
                    at += 2;
                } else {
                    out.push(b'%');
                }
            }
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Query {
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let pairs = text
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (percent_decode(key), percent_decode(value))
                })
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|(key, value)| key == name && matches!(value.as_str(), "" | "true" | "1" | "True"))
    }

    pub(crate) fn number(&self, name: &str) -> ApiResult<Option<u64>> {
        self.get(name)
            .map(|text| {
                text.parse()
                    .map_err(|_| ApiError::bad_request(format!("invalid value {text:?} of {name}")))
            })
            .transpose()
    }

    /// The pairs whose names are in `names`, encoded again.
    pub(crate) fn forward(&self, names: &[&str]) -> String {
        let encode = |text: &str| {
            text.bytes().fold(String::new(), |mut out, byte| {
                if byte.is_ascii_alphanumeric() || b"-_.~:".contains(&byte) {
                    out.push(char::from(byte));
                } else {
                    use std::fmt::Write as _;
                    write!(out, "%{byte:02X}").ok();
                }
                out
            })
        };
        let pairs: Vec<String> = self
            .0
            .iter()
            .filter(|(key, _)| names.contains(&key.as_str()))
            .map(|(key, value)| format!("{key}={}", encode(value)))
            .collect();
        pairs.join("&")
    }
}

/// An object or a collection of a stored kind.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
    /// What follows `proxy`: a path of whoever is behind it.
    pub(crate) path: Option<String>,
}

/// Where a path leads.
#[derive(Debug, Clone)]
pub(crate) enum Route {
    Resource(Target),
    /// A resource that only answers: group, resource, namespace.
    Virtual {
        group: String,
        resource: String,
        namespace: Option<String>,
    },
    /// Anything else, by its path.
    Path(String),
}

const VIRTUAL: &[(&str, &str)] = &[
    ("authentication.k8s.io", "tokenreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("", "bindings"),
];

impl Route {
    pub(crate) fn parse(path: &str) -> ApiResult<Self> {
        let segments: Vec<String> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(percent_decode_path)
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return Ok(Self::Path(path.to_owned())),
        };
        let (namespace, rest) = match rest {
            ["namespaces", name] => {
                return Self::resource(group, version, None, &["namespaces", name]);
            }
            ["namespaces", name, sub @ ("status" | "finalize")] => {
                return Self::resource(group, version, None, &["namespaces", name, sub]);
            }
            ["namespaces", namespace, rest @ ..] => (Some((*namespace).to_owned()), rest),
            rest => (None, rest),
        };
        Self::resource(group, version, namespace, rest)
    }

    fn resource(
        group: &str,
        version: &str,
        namespace: Option<String>,
        rest: &[&str],
    ) -> ApiResult<Self> {
        if let ["nodes", name, "proxy", path @ ..] = rest
            && !path.is_empty()
        {
            let mut target = Self::resource(group, version, namespace, &["nodes", name, "proxy"])?;
            if let Self::Resource(target) = &mut target {
                target.path = Some(behind_proxy(path)?);
            }
            return Ok(target);
        }
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, None, None),
            [plural, name] => (*plural, Some(*name), None),
            [plural, name, subresource] => (*plural, Some(*name), Some(*subresource)),
            _ => return Err(ApiError::no_such_path()),
        };
        if version == "v1" && VIRTUAL.contains(&(group, plural)) && name.is_none() {
            return Ok(Self::Virtual {
                group: group.to_owned(),
                resource: plural.to_owned(),
                namespace,
            });
        }
        let kind = Kind::find(group, version, plural).ok_or_else(ApiError::no_such_path)?;
        let scope_fits = if kind.namespaced {
            namespace.is_some() || name.is_none()
        } else {
            namespace.is_none()
        };
        if !scope_fits {
            return Err(ApiError::no_such_path());
        }
        Ok(Self::Resource(Target {
            kind,
            namespace,
            name: name.map(str::to_owned),
            subresource: subresource.map(str::to_owned),
            path: None,
        }))
    }

    /// What the authorizer is asked. Fields of the selectors are added by lists and watches.
    pub(crate) fn attributes(&self, method: &Method, query: &Query) -> Attributes {
        match self {
            Self::Path(path) => Attributes {
                verb: method.as_str().to_lowercase(),
                path: Some(path.clone()),
                ..Attributes::default()
            },
            Self::Virtual {
                group,
                resource,
                namespace,
            } => Attributes {
                verb: "create".to_owned(),
                group: group.clone(),
                resource: resource.clone(),
                namespace: namespace.clone().unwrap_or_default(),
                ..Attributes::default()
            },
            Self::Resource(target) => {
                let collection = target.name.is_none();
                let verb = match *method {
                    Method::GET | Method::HEAD if query.flag("watch") => "watch",
                    Method::GET | Method::HEAD if collection => "list",
                    Method::GET | Method::HEAD => "get",
                    Method::POST => "create",
                    Method::PUT => "update",
                    Method::PATCH => "patch",
                    Method::DELETE if collection => "deletecollection",
                    Method::DELETE => "delete",
                    _ => "unknown",
                };
                Attributes {
                    verb: verb.to_owned(),
                    group: target.kind.group.to_owned(),
                    resource: target.kind.plural.to_owned(),
                    subresource: target.subresource.clone().unwrap_or_default(),
                    namespace: target.namespace.clone().unwrap_or_default(),
                    name: target.name.clone().unwrap_or_default(),
                    ..Attributes::default()
                }
            }
        }
    }
}

/// A path to pass on. What it holds was decoded, so only what needs no encoding is taken.
fn behind_proxy(segments: &[&str]) -> ApiResult<String> {
    let plain = |segment: &&str| {
        !matches!(*segment, "." | "..")
            && segment
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))
    };
    if segments.iter().all(plain) {
        Ok(format!("/{}", segments.join("/")))
    } else {
        Err(ApiError::bad_request(
            "a path behind a proxy may hold letters, digits and -_.~ only",
        ))
    }
}

fn percent_decode_path(segment: &str) -> String {
    // In a path a plus is a plus.
    percent_decode(&segment.replace('+', "%2B"))
}

/// The form an answer is wanted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Table,
    /// Metadata only.
    Partial,
    /// Aggregated discovery, `v2` or `v2beta1`.
    Discovery(&'static str),
}

/// The first acceptable form of an `Accept` header.
pub(crate) fn accepted(headers: &HeaderMap) -> ApiResult<Form> {
    let Some(accept) = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
    else {
        return Ok(Form::Json);
    };
    for choice in accept.split(',') {
        let mut parts = choice.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        if !matches!(media, "application/json" | "*/*" | "application/*" | "") {
            continue;
        }
        let (mut wanted, mut version) = (None, None);
        for part in parts {
            match part.split_once('=') {
                Some(("as", value)) => wanted = Some(value),
                Some(("v", value)) => version = Some(value),
                _ => {}
            }
        }
        match (wanted, version) {
            (None, _) => return Ok(Form::Json),
            (Some("Table"), Some("v1" | "v1beta1")) => return Ok(Form::Table),
            (
                Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
                Some("v1" | "v1beta1"),
            ) => {
                return Ok(Form::Partial);
            }
            (Some("APIGroupDiscoveryList"), Some("v2")) => return Ok(Form::Discovery("v2")),
            _ => {}
        }
    }
    Err(ApiError::new(
        406,
        "NotAcceptable",
        "only the following media types are accepted: application/json, application/json;as=Table;v=v1;g=meta.k8s.io",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_resources() {
        for (path, expected) in [
            ("/api/v1/pods", "pods - - -"),
            ("/api/v1/namespaces", "namespaces - - -"),
            ("/api/v1/namespaces/a", "namespaces - a -"),
            ("/api/v1/namespaces/a/finalize", "namespaces - a finalize"),
            ("/api/v1/namespaces/a/pods", "pods a - -"),
            ("/api/v1/namespaces/a/pods/p/log", "pods a p log"),
            (
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "deployments a d scale",
            ),
            ("/api/v1/nodes/n", "nodes - n -"),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Afoo",
                "clusterroles - system:foo -",
            ),
        ] {
            let Route::Resource(target) = Route::parse(path).unwrap() else {
                panic!("{path}")
            };
            let part = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            let got = format!(
                "{} {} {} {}",
                target.kind.plural,
                part(&target.namespace),
                part(&target.name),
                part(&target.subresource)
            );
            assert_eq!(got, expected, "{path}");
        }
        for path in [
            "/api/v1/pods/p",
            "/api/v1/bogus",
            "/api/v1/namespaces/a/nodes",
            "/apis/x/v1/y",
            "/api/v1/a/b/c/d",
        ] {
            assert!(Route::parse(path).is_err(), "{path}");
        }
        assert!(matches!(Route::parse("/api/v1").unwrap(), Route::Path(_)));
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse(Some(
            "fieldSelector=a%3Db%2Cc&watch=true&x=1+2&bad=%zz&end=%4",
        ));
        assert_eq!(query.get("fieldSelector"), Some("a=b,c"));
        assert!(query.flag("watch"));
        assert_eq!(query.get("x"), Some("1 2"));
        assert_eq!(query.get("bad"), Some("%zz"));
        assert_eq!(query.get("end"), Some("%4"));
        assert_eq!(query.forward(&["x"]), "x=1%202");
    }

    #[test]
    fn accept_headers() {
        for (accept, expected) in [
            ("application/json, */*", Some(Form::Json)),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                Some(Form::Table),
            ),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Some(Form::Json),
            ),
            ("application/vnd.kubernetes.protobuf", None),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                Some(Form::Discovery("v2")),
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Some(Form::Partial),
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(accepted(&headers).ok(), expected, "{accept}");
        }
    }
}
