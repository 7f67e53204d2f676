//! The image reference: the name that a person writes.
//!
//! Grammar and normalisation are those of Docker's and containerd's reference package, which the kubelet and the runtimes share.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Digest;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_REGISTRY_API: &str = "registry-1.docker.io";
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A parsed and normalised image reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
    explicit: bool,
}

/// What is wrong with a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Nothing was given.
    Empty,
    /// A scheme such as `https://` stands in front.
    Scheme,
    /// White space or a control character.
    Space,
    /// A template placeholder that was never filled in, such as `${TAG}` or `{{ .tag }}`.
    Placeholder,
    /// The registry part does not parse.
    Registry,
    /// A repository part holds an upper-case letter.
    Uppercase,
    /// The repository does not parse.
    Repository,
    /// The tag is empty.
    EmptyTag,
    /// The tag does not parse.
    Tag,
    /// The tag is longer than 128 characters.
    LongTag,
    /// The digest does not parse.
    Digest,
    /// Registry and repository together are longer than 255 characters.
    TooLong,
    /// 64 hex digits: an image id, not a name.
    ImageId,
}

impl Problem {
    fn text(self) -> &'static str {
        match self {
            Self::Empty => "the image name is empty",
            Self::Scheme => "an image name has no scheme; leave out \"https://\"",
            Self::Space => "white space is not allowed",
            Self::Placeholder => "a template placeholder was not filled in",
            Self::Registry => "not a registry host[:port]",
            Self::Uppercase => "a repository is written in lower case",
            Self::Repository => {
                "not a repository: use a-z, 0-9 and single separators (. _ __ -) between them"
            }
            Self::EmptyTag => "the tag after \":\" is empty",
            Self::Tag => "not a tag: use letters, digits, _ . - and start with none of . -",
            Self::LongTag => "a tag has at most 128 characters",
            Self::Digest => "not a digest: sha256: and 64 hex digits",
            Self::TooLong => "registry and repository have more than 255 characters",
            Self::ImageId => "64 hex digits are an image id, not a name that can be pulled",
        }
    }
}

/// A reference that does not parse: the problem and where it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceError {
    /// What is wrong.
    pub problem: Problem,
    /// Byte offset in the text at which the wrong part starts.
    pub at: usize,
    /// The text, cut at 300 characters.
    pub text: String,
}

impl fmt::Display for ReferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not an image reference: {} (at character {})",
            self.text,
            self.problem.text(),
            self.at + 1
        )
    }
}

impl std::error::Error for ReferenceError {}

impl Reference {
    /// Reads a reference as Docker and Kubernetes do: `nginx` becomes `docker.io/library/nginx`, without a tag.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let fail = |problem, at| {
            Err(ReferenceError {
                problem,
                at,
                text: text.chars().take(300).collect(),
            })
        };
        if let Some((problem, at)) = obvious(text) {
            return fail(problem, at);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => match Digest::parse(digest) {
                Ok(digest) => (rest, Some(digest)),
                Err(_) => return fail(Problem::Digest, rest.len() + 1),
            },
            None => (text, None),
        };
        let (registry, path, path_at) = split_registry(rest);
        let (path, tag) = match path.split_once(':') {
            Some((path, tag)) => {
                if let Some(problem) = tag_problem(tag) {
                    return fail(problem, path_at + path.len() + 1);
                }
                (path, Some(tag.to_owned()))
            }
            None => (path, None),
        };
        if let Some(registry) = registry.filter(|registry| !is_registry(registry)) {
            let problem = if registry.is_empty() {
                Problem::Repository
            } else {
                Problem::Registry
            };
            return fail(problem, 0);
        }
        if let Some((problem, at)) = repository_problem(path) {
            return fail(problem, path_at + at);
        }
        let explicit = registry.is_some();
        let (registry, repository) = normalise(registry, path);
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return fail(Problem::TooLong, 0);
        }
        Ok(Self {
            registry,
            repository,
            tag,
            digest,
            explicit,
        })
    }

    /// The registry as named: `docker.io`, `ghcr.io`, `127.0.0.1:5000`, `[::1]:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository inside the registry: `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Registry and repository: the key of Kubernetes' credential lookup, such as `docker.io/library/nginx`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The tag, where one is written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, where one is written.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether the registry was written out (and not filled in as `docker.io`).
    pub fn names_registry(&self) -> bool {
        self.explicit
    }

    /// Host and port that speak the registry API: `registry-1.docker.io` for `docker.io`, else the registry.
    pub fn api_host(&self) -> &str {
        if self.registry == DEFAULT_REGISTRY {
            DEFAULT_REGISTRY_API
        } else {
            &self.registry
        }
    }

    /// The host without port and brackets.
    pub fn host(&self) -> &str {
        split_port(&self.registry)
            .0
            .trim_start_matches('[')
            .trim_end_matches(']')
    }

    /// The port, where one is written.
    pub fn port(&self) -> Option<u16> {
        split_port(&self.registry)
            .1
            .and_then(|port| port.parse().ok())
    }

    /// Whether the registry is this machine: `localhost`, 127.0.0.0/8 or `::1`.
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        host.eq_ignore_ascii_case("localhost")
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }

    /// What a manifest request asks for: the digest if there is one, else the tag, else `latest`.
    pub fn target(&self) -> String {
        match &self.digest {
            Some(digest) => digest.to_string(),
            None => self.tag.clone().unwrap_or_else(|| "latest".to_owned()),
        }
    }

    /// The same with tag `latest` where neither tag nor digest is written.
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// The same with another tag and no digest; `None` if that is not a tag.
    pub fn with_tag(&self, tag: &str) -> Option<Self> {
        tag_problem(tag).is_none().then(|| Self {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        })
    }

    /// The same with a digest and no tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }
}

/// Mistakes that deserve their own words, found before the grammar is asked.
fn obvious(text: &str) -> Option<(Problem, usize)> {
    if text.is_empty() {
        return Some((Problem::Empty, 0));
    }
    if let Some(at) = ["${", "{{", "$(", "<"]
        .iter()
        .filter_map(|mark| text.find(mark))
        .min()
    {
        return Some((Problem::Placeholder, at));
    }
    if let Some((at, _)) = text
        .char_indices()
        .find(|(_, c)| c.is_whitespace() || c.is_control())
    {
        return Some((Problem::Space, at));
    }
    if let Some(at) = text.find("://") {
        return Some((
            Problem::Scheme,
            text[..at].rfind('/').map_or(0, |slash| slash + 1),
        ));
    }
    if text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    {
        return Some((Problem::ImageId, 0));
    }
    None
}

/// Splits off the registry: the part before the first `/`, if it holds a `.`, a `:` or an upper-case letter, or is `localhost`.
fn split_registry(text: &str) -> (Option<&str>, &str, usize) {
    let Some((first, rest)) = text.split_once('/') else {
        return (None, text, 0);
    };
    let is_host = first.contains(['.', ':'])
        || first == "localhost"
        || first.is_empty()
        || first.chars().any(|c| c.is_ascii_uppercase());
    if is_host {
        (Some(first), rest, first.len() + 1)
    } else {
        (None, text, 0)
    }
}

fn normalise(registry: Option<&str>, path: &str) -> (String, String) {
    let registry = match registry {
        None | Some("index.docker.io") => DEFAULT_REGISTRY,
        Some(registry) => registry,
    };
    if registry == DEFAULT_REGISTRY && !path.contains('/') {
        return (registry.to_owned(), format!("library/{path}"));
    }
    (registry.to_owned(), path.to_owned())
}

fn split_port(registry: &str) -> (&str, Option<&str>) {
    match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    }
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = split_port(registry);
    if port.is_some_and(|port| port.is_empty() || port.len() > 5 || port.parse::<u16>().is_err()) {
        return false;
    }
    if let Some(inner) = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    !host.is_empty() && host.split('.').all(is_domain_label)
}

fn is_domain_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn tag_problem(tag: &str) -> Option<Problem> {
    if tag.is_empty() {
        return Some(Problem::EmptyTag);
    }
    if tag.len() > MAX_TAG {
        return Some(Problem::LongTag);
    }
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = tag
        .bytes()
        .enumerate()
        .all(|(i, b)| word(b) || (i > 0 && (b == b'.' || b == b'-')));
    (!good).then_some(Problem::Tag)
}

fn repository_problem(path: &str) -> Option<(Problem, usize)> {
    let mut at = 0;
    for component in path.split('/') {
        if let Some(offset) = component.find(|c: char| c.is_ascii_uppercase()) {
            return Some((Problem::Uppercase, at + offset));
        }
        if let Some(offset) = bad_component(component) {
            return Some((Problem::Repository, at + offset));
        }
        at += component.len() + 1;
    }
    None
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`; where it first differs.
fn bad_component(component: &str) -> Option<usize> {
    let bytes = component.as_bytes();
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut i = 0;
    loop {
        let start = i;
        while i < bytes.len() && alnum(bytes[i]) {
            i += 1;
        }
        if i == start {
            return Some(start.min(bytes.len()));
        }
        if i == bytes.len() {
            return None;
        }
        let separator = i;
        while i < bytes.len() && bytes[i] == bytes[separator] && !alnum(bytes[i]) {
            i += 1;
        }
        let allowed = match bytes[separator] {
            b'.' => i - separator == 1,
            b'_' => i - separator <= 2,
            b'-' => true,
            _ => false,
        };
        if !allowed {
            return Some(separator);
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_expanded_as_docker_does() {
        let digest = format!("ghcr.io/o/r:v1@sha256:{HEX}");
        for (text, want) in [
            ("nginx", "docker.io/library/nginx"),
            ("nginx:1.25", "docker.io/library/nginx:1.25"),
            ("library/nginx", "docker.io/library/nginx"),
            ("team/app:v1", "docker.io/team/app:v1"),
            ("index.docker.io/team/app", "docker.io/team/app"),
            ("docker.io/nginx", "docker.io/library/nginx"),
            ("localhost/app", "localhost/app"),
            ("127.0.0.1:5000/a/b:x", "127.0.0.1:5000/a/b:x"),
            ("[::1]:5000/a", "[::1]:5000/a"),
            ("UPPER/x", "UPPER/x"),
            ("a__b/c--d.e:T_1.x-y", "docker.io/a__b/c--d.e:T_1.x-y"),
            (&digest, &digest),
        ] {
            let reference = Reference::parse(text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(reference.to_string(), want);
            assert_eq!(Reference::parse(want).unwrap().to_string(), want);
        }
    }

    #[test]
    fn problems_are_named_with_their_place() {
        let long_tag = format!("a:{}", "x".repeat(129));
        let long = format!("{}/a", ["a"; 150].join("/"));
        for (text, problem, at) in [
            ("", Problem::Empty, 0),
            ("https://ghcr.io/a", Problem::Scheme, 0),
            ("ghcr.io/https://ghcr.io/a", Problem::Scheme, 8),
            ("nginx: latest", Problem::Space, 6),
            ("app:${TAG}", Problem::Placeholder, 4),
            ("repo/App:v1", Problem::Uppercase, 5),
            ("nginx:", Problem::EmptyTag, 6),
            ("nginx:-x", Problem::Tag, 6),
            ("nginx:a:b", Problem::Tag, 6),
            (&long_tag, Problem::LongTag, 2),
            ("nginx@sha256:abc", Problem::Digest, 6),
            ("a..b", Problem::Repository, 1),
            ("a/", Problem::Repository, 2),
            ("/a", Problem::Repository, 0),
            ("a//b", Problem::Repository, 2),
            ("a___b", Problem::Repository, 1),
            ("-bad.host/a", Problem::Registry, 0),
            ("host:port/a", Problem::Registry, 0),
            ("host:99999/a", Problem::Registry, 0),
            (HEX, Problem::ImageId, 0),
            (&long, Problem::TooLong, 0),
        ] {
            let error = Reference::parse(text).expect_err(text);
            assert_eq!((error.problem, error.at), (problem, at), "{text}: {error}");
        }
    }

    #[test]
    fn parts_can_be_asked_for() {
        let reference = Reference::parse("127.0.0.1:5000/a/b").unwrap();
        assert_eq!(
            (reference.host(), reference.port()),
            ("127.0.0.1", Some(5000))
        );
        assert!(reference.is_loopback() && reference.names_registry());
        assert_eq!(reference.target(), "latest");
        assert_eq!(reference.clone().with_default_tag().tag(), Some("latest"));
        assert_eq!(reference.with_tag("v 1"), None);
        let hub = Reference::parse("nginx").unwrap();
        assert_eq!(
            (hub.api_host(), hub.name().as_str()),
            ("registry-1.docker.io", "docker.io/library/nginx")
        );
        assert_eq!(Reference::parse("[::1]:5000/a").unwrap().host(), "::1");
        assert!(!hub.names_registry());
    }
}
