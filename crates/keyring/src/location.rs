//! Whether a configured location matches an image: the kubelet's rules, and the reason when it does not.
//!
//! A location is a key below `auths`: `https://index.docker.io/v1/`, `reg.example:5000`, `*.example/team`. Its scheme is
//! dropped, a leading `/v1/` or `/v2/` is dropped, ports have to be textually equal, hosts match label by label with
//! shell patterns, and the path is a plain string prefix of the repository.

use towline_oci::Reference;

/// The host under which docker stores the login of Docker Hub.
pub(crate) const HUB_KEY: &str = "index.docker.io";
/// The registry of names without one.
const HUB: &str = "docker.io";
/// The host that serves Docker Hub's API; nobody's login is stored under it, and it matches nothing.
const HUB_API: &str = "registry-1.docker.io";

/// A location or an image name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Host without port; a pattern in a location.
    pub(crate) host: String,
    /// Port as written; empty when absent.
    pub(crate) port: String,
    /// Path with its leading slash; empty when absent.
    pub(crate) path: String,
}

impl Place {
    /// Reads a location. `None` for one that is no address at all, which the kubelet skips silently.
    pub(crate) fn location(text: &str) -> Option<Self> {
        let rest = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"))
            .unwrap_or(text);
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = split_path(rest);
        if authority
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == '%' || c == '\\')
        {
            return None;
        }
        // A user name before the host is dropped, as a URL parser does.
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let (host, port) = split_port(authority)?;
        let path = match path
            .strip_prefix("/v1/")
            .or_else(|| path.strip_prefix("/v2/"))
        {
            Some(_) => &path[3..],
            None => path,
        };
        let path = if path == "/" { "" } else { path };
        Some(Self {
            host: host.to_owned(),
            port: port.to_owned(),
            path: path.to_owned(),
        })
    }

    /// The image's normalised repository.
    pub(crate) fn image(image: &Reference) -> Self {
        Self::repository(&format!("{}/{}", image.registry(), image.repository()))
    }

    /// A repository name with its host, such as `docker.io/library/nginx`, without tag and digest.
    pub(crate) fn repository(name: &str) -> Self {
        let (authority, path) = split_path(name);
        let (host, port) = split_port(authority).unwrap_or((authority, ""));
        Self {
            host: host.to_owned(),
            port: port.to_owned(),
            path: path.to_owned(),
        }
    }

    /// The key under which the kubelet files a location; sorting these in reverse gives its order.
    pub(crate) fn key(&self) -> String {
        if self.port.is_empty() {
            format!("{}{}", self.host, self.path)
        } else {
            format!("{}:{}{}", self.host, self.port, self.path)
        }
    }

    /// True when this location matches that image.
    pub(crate) fn matches(&self, image: &Self) -> bool {
        self.port == image.port
            && hosts_match(&self.host, &image.host)
            && image.path.starts_with(&self.path)
    }

    /// True for an image on the registry of names without one.
    pub(crate) fn is_hub(&self) -> bool {
        self.port.is_empty() && (self.host == HUB || self.host == HUB_KEY)
            || (self.port.is_empty() && !self.host.contains('.'))
    }
}

fn split_path(text: &str) -> (&str, &str) {
    text.find('/')
        .map_or((text, ""), |slash| text.split_at(slash))
}

/// Host and port. `None` when the port is no number.
fn split_port(authority: &str) -> Option<(&str, &str)> {
    let colon = if authority.starts_with('[') {
        let close = authority.find(']')?;
        authority[close..].find(':').map(|at| close + at)
    } else {
        authority.rfind(':')
    };
    let (host, port) = match colon {
        None => (authority, ""),
        Some(at) => (&authority[..at], &authority[at + 1..]),
    };
    port.bytes()
        .all(|b| b.is_ascii_digit())
        .then_some((host.trim_start_matches('[').trim_end_matches(']'), port))
}

fn hosts_match(pattern: &str, host: &str) -> bool {
    let mut patterns = pattern.split('.');
    let mut labels = host.split('.');
    loop {
        match (patterns.next(), labels.next()) {
            (None, None) => return true,
            (Some(pattern), Some(label)) if label_matches(pattern.as_bytes(), label.as_bytes()) => {
            }
            _ => return false,
        }
    }
}

/// A shell pattern on one label: `*`, `?` and plain characters.
///
/// Walks back to the last `*` only, so a hostile pattern costs at most the product of both lengths.
fn label_matches(pattern: &[u8], label: &[u8]) -> bool {
    let (mut p, mut l) = (0, 0);
    let mut star = None;
    while l < label.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, l));
                p += 1;
            }
            Some(b) if *b == b'?' || *b == label[l] => {
                p += 1;
                l += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    l = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// Why a location does not match an image. Each variant holds what has to be compared, so that a sentence can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// It does match, directly or as Docker Hub's fallback.
    None,
    /// The location is no address at all; the kubelet skips it.
    Unreadable,
    /// The location has a scheme other than `http` and `https`; the kubelet takes it for a part of the host.
    Scheme {
        /// The scheme as written.
        scheme: String,
    },
    /// Docker Hub under a name that the kubelet does not match: `registry-1.docker.io`, `hub.docker.com` and the like.
    HubAlias {
        /// The host as written.
        host: String,
    },
    /// Another host.
    Host {
        /// The location's host or pattern.
        location: String,
        /// The image's host.
        image: String,
    },
    /// A pattern with the wrong number of labels: `*.io` does not match `a.b.io`.
    Labels {
        /// The location's pattern.
        location: String,
        /// The image's host.
        image: String,
    },
    /// The same host with another port, or with one where the other has none (empty).
    Port {
        /// The location's port; empty when absent.
        location: String,
        /// The image's port; empty when absent.
        image: String,
    },
    /// Host and port are right, and the location is for another part of the registry.
    Path {
        /// The location's path.
        location: String,
        /// The image's repository.
        image: String,
    },
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("it matches"),
            Self::Unreadable => f.write_str("it is not an address"),
            Self::Scheme { scheme } => write!(f, "the scheme {scheme}:// is not understood"),
            Self::HubAlias { host } => {
                write!(
                    f,
                    "{host} is not matched for Docker Hub; the key is https://{HUB_KEY}/v1/ or {HUB}"
                )
            }
            Self::Host { location, image } => {
                write!(f, "it is for host {location}, the image is on {image}")
            }
            Self::Labels { location, image } => {
                write!(
                    f,
                    "a pattern matches label by label, and {location} has not as many labels as {image}"
                )
            }
            Self::Port { location, image } => match (location.as_str(), image.as_str()) {
                ("", image) => write!(f, "it has no port, the image has port {image}"),
                (location, "") => write!(f, "it is for port {location}, the image has no port"),
                (location, image) => {
                    write!(f, "it is for port {location}, the image has port {image}")
                }
            },
            Self::Path { location, image } => {
                write!(f, "it is for {location}, the image is {image}")
            }
        }
    }
}

/// Says why the kubelet does not use the credential stored under `location` for `image`.
///
/// The answer is about this location alone: whether Docker Hub's fallback applies also depends on the others, here it is
/// taken to apply.
pub fn explain_mismatch(location: &str, image: &Reference) -> Mismatch {
    let image = Place::image(image);
    if let Some((scheme, _)) = location.split_once("://")
        && scheme != "http"
        && scheme != "https"
    {
        return Mismatch::Scheme {
            scheme: scheme.to_owned(),
        };
    }
    let Some(place) = Place::location(location) else {
        return Mismatch::Unreadable;
    };
    if place.matches(&image) || (place.key() == HUB_KEY && image.is_hub()) {
        return Mismatch::None;
    }
    let hosts = || (place.host.clone(), image.host.clone());
    if hosts_match(&place.host, &image.host) {
        if place.port == image.port {
            return Mismatch::Path {
                location: place.path,
                image: image.path,
            };
        }
        return Mismatch::Port {
            location: place.port,
            image: image.port,
        };
    }
    if image.is_hub()
        && [
            HUB_API,
            HUB_KEY,
            "hub.docker.com",
            "registry.hub.docker.com",
        ]
        .contains(&place.host.as_str())
    {
        return Mismatch::HubAlias { host: place.key() };
    }
    let (location, image_host) = hosts();
    if location.contains('*') && location.split('.').count() != image_host.split('.').count() {
        return Mismatch::Labels {
            location,
            image: image_host,
        };
    }
    Mismatch::Host {
        location,
        image: image_host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mismatches_are_explained() {
        let s = |text: &str| text.to_owned();
        let host = |location: &str, image: &str| Mismatch::Host {
            location: s(location),
            image: s(image),
        };
        for (location, image, expected) in [
            ("https://index.docker.io/v1/", "nginx", Mismatch::None),
            ("docker.io", "nginx", Mismatch::None),
            ("reg.io/team", "reg.io/team/app", Mismatch::None),
            (
                "registry-1.docker.io",
                "nginx",
                Mismatch::HubAlias {
                    host: s("registry-1.docker.io"),
                },
            ),
            (
                "https://index.docker.io/v1/bob",
                "nginx",
                Mismatch::HubAlias {
                    host: s("index.docker.io/bob"),
                },
            ),
            (
                "oci://reg.io",
                "reg.io/app",
                Mismatch::Scheme { scheme: s("oci") },
            ),
            ("reg io", "reg.io/app", Mismatch::Unreadable),
            ("reg.io:port", "reg.io/app", Mismatch::Unreadable),
            ("ghcr.io", "reg.io/app", host("ghcr.io", "reg.io")),
            (
                "*.io",
                "a.b.io/app",
                Mismatch::Labels {
                    location: s("*.io"),
                    image: s("a.b.io"),
                },
            ),
            (
                "reg.io",
                "reg.io:5000/app",
                Mismatch::Port {
                    location: s(""),
                    image: s("5000"),
                },
            ),
            (
                "reg.io:443",
                "reg.io/app",
                Mismatch::Port {
                    location: s("443"),
                    image: s(""),
                },
            ),
            (
                "reg.io/other",
                "reg.io/team/app",
                Mismatch::Path {
                    location: s("/other"),
                    image: s("/team/app"),
                },
            ),
        ] {
            let image = Reference::parse(image).unwrap();
            assert_eq!(
                explain_mismatch(location, &image),
                expected,
                "{location} for {image}"
            );
        }
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, label, matches) in [
            ("*", "", true),
            ("*", "abc", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*b*c", "aXbYbc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("abc", "abcd", false),
            ("", "a", false),
        ] {
            assert_eq!(
                label_matches(pattern.as_bytes(), label.as_bytes()),
                matches,
                "{pattern} {label}"
            );
        }
    }
}
