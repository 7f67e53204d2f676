//! Keys, and the keyring that finds the candidates of an image in the kubelet's order.

use std::collections::BTreeMap;
use std::path::PathBuf;

use towline_oci::Reference;

use crate::entry::Entry;
use crate::location::{HUB_KEY, Place};
use crate::{Candidate, Credential, Origin};

/// One credential and the location it is stored under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    location: String,
    credential: Credential,
}

impl Key {
    /// A credential for a location written as below `auths`.
    pub fn new(location: impl Into<String>, credential: Credential) -> Self {
        Self {
            location: location.into(),
            credential,
        }
    }

    pub(crate) fn from_entry(location: &str, entry: Entry) -> Self {
        Self::new(
            location,
            Credential::Basic {
                username: entry.username,
                password: entry.password,
            },
        )
    }

    /// The location as written.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// True when the entry holds neither user name nor password.
    pub fn is_empty(&self) -> bool {
        matches!(&self.credential, Credential::Basic { username, password } if username.is_empty() && password.is_empty())
    }
}

/// The credentials of one secret or file, in the order in which they are written.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Keys {
    keys: Vec<Key>,
}

impl Keys {
    /// Takes keys in their order.
    pub fn new(keys: Vec<Key>) -> Self {
        Self { keys }
    }

    /// The locations as written, for diagnosis; no value is reachable through them.
    pub fn hosts(&self) -> Vec<&str> {
        self.keys.iter().map(Key::location).collect()
    }

    /// The keys themselves.
    pub fn iter(&self) -> std::slice::Iter<'_, Key> {
        self.keys.iter()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True when there is none: the secret was skipped or holds no entry.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl<'a> IntoIterator for &'a Keys {
    type Item = &'a Key;
    type IntoIter = std::slice::Iter<'a, Key>;

    fn into_iter(self) -> Self::IntoIter {
        self.keys.iter()
    }
}

/// Where keys come from. Also their rank: pod secrets first, then the node's files, then the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A pull secret of the pod.
    PodSecret {
        /// The pod's namespace.
        namespace: String,
        /// The secret's name.
        name: String,
    },
    /// A credential file of the node.
    NodeFile(PathBuf),
    /// Given on the command line.
    CommandLine,
    /// A login file of docker or podman.
    AuthFile(PathBuf),
    /// Came with a CRI request.
    Cri,
}

impl Source {
    fn rank(&self) -> u8 {
        match self {
            Self::PodSecret { .. } => 0,
            Self::NodeFile(_) => 1,
            Self::CommandLine | Self::AuthFile(_) | Self::Cri => 2,
        }
    }

    fn origin(&self, key: &str) -> Origin {
        match self {
            Self::PodSecret { namespace, name } => Origin::PodSecret {
                namespace: namespace.clone(),
                name: name.clone(),
                key: key.to_owned(),
            },
            Self::NodeFile(path) => Origin::NodeFile(path.clone()),
            Self::CommandLine => Origin::CommandLine,
            Self::AuthFile(path) => Origin::AuthFile(path.clone()),
            Self::Cri => Origin::Cri,
        }
    }
}

/// Every credential that a pull may use.
///
/// Secrets of the pod form one ring, the node's files another, anything else a third; each ring is searched by the
/// kubelet's rules and their results follow each other.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    rings: [BTreeMap<String, Filed>; 3],
}

/// What is filed under one key.
#[derive(Clone, Debug)]
struct Filed {
    place: Place,
    candidates: Vec<Candidate>,
}

impl Keyring {
    /// An empty keyring.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the keys of one source. The order of calls is the order in which equal locations are tried. A location that
    /// is no address is skipped, as the kubelet does.
    pub fn add(&mut self, keys: &Keys, source: &Source) {
        let ring = &mut self.rings[usize::from(source.rank())];
        for key in keys {
            let Some(place) = Place::location(&key.location) else {
                continue;
            };
            let candidate = Candidate {
                credential: key.credential.clone(),
                origin: source.origin(&key.location),
            };
            ring.entry(place.key())
                .or_insert_with(|| Filed {
                    place,
                    candidates: Vec::new(),
                })
                .candidates
                .push(candidate);
        }
    }

    /// The candidates for an image, in the order in which the kubelet tries them. Empty when nothing matches: then one
    /// attempt without a credential is made; otherwise there is none.
    pub fn lookup(&self, image: &Reference) -> Vec<Candidate> {
        self.find(&Place::image(image))
    }

    fn find(&self, image: &Place) -> Vec<Candidate> {
        self.rings
            .iter()
            .flat_map(|ring| find_in(ring, image))
            .collect()
    }

    /// True when no credential was added at all.
    pub fn is_empty(&self) -> bool {
        self.rings.iter().all(BTreeMap::is_empty)
    }
}

/// One ring: matches in reverse lexicographic order of their keys; Docker Hub's own key only when nothing matched.
fn find_in(ring: &BTreeMap<String, Filed>, image: &Place) -> Vec<Candidate> {
    let matched: Vec<Candidate> = ring
        .values()
        .rev()
        .filter(|filed| filed.place.matches(image))
        .flat_map(|filed| filed.candidates.iter().cloned())
        .collect();
    if matched.is_empty() && image.is_hub() {
        return ring
            .get(HUB_KEY)
            .map(|filed| filed.candidates.clone())
            .unwrap_or_default();
    }
    matched
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(locations: &[&str]) -> Keyring {
        let keys = locations
            .iter()
            .map(|at| Key::new(*at, Credential::basic(*at, "pw")))
            .collect();
        let mut ring = Keyring::new();
        ring.add(
            &Keys::new(keys),
            &Source::PodSecret {
                namespace: "ns".into(),
                name: "s".into(),
            },
        );
        ring
    }

    fn users(ring: &Keyring, image: &str) -> Vec<String> {
        ring.find(&Place::repository(image))
            .into_iter()
            .map(|candidate| match candidate.credential {
                Credential::Basic { username, .. } => username,
                other => panic!("{other}"),
            })
            .collect()
    }

    #[test]
    fn matches_by_the_rules_of_the_kubelet() {
        for (location, image, matches) in [
            ("ghcr.io", "ghcr.io/o/r", true),
            ("https://ghcr.io", "ghcr.io/o/r", true),
            ("http://ghcr.io/", "ghcr.io/o/r", true),
            ("ghcr.io/v1/", "ghcr.io/o/r", true),
            ("ghcr.io/v2/", "ghcr.io/o/r", true),
            ("ghcr.io/v2", "ghcr.io/o/r", false),
            ("ghcr.io/v2/o", "ghcr.io/o/r", true),
            ("ghcr.io/o", "ghcr.io/o/r", true),
            ("reg.io/foo", "reg.io/foobar/x", true),
            ("reg.io/foo/", "reg.io/foobar/x", false),
            ("*.io", "a.b.io/x", false),
            ("*.*.io", "a.b.io/x", true),
            ("*.b.io", "a.b.io/x", true),
            ("a*.b.io", "abc.b.io/x", true),
            (
                "*.dkr.ecr.*.amazonaws.com",
                "1.dkr.ecr.eu-west-1.amazonaws.com/x",
                true,
            ),
            ("reg.io/*", "reg.io/x", false),
            ("localhost", "localhost:5000/x", false),
            ("localhost:5000", "localhost:5000/x", true),
            ("localhost:*", "localhost:5000/x", false),
            ("reg.io:443", "reg.io/x", false),
            ("docker.io", "docker.io/library/nginx", true),
            (
                "https://index.docker.io/v1/",
                "docker.io/library/nginx",
                true,
            ),
            ("index.docker.io", "docker.io/library/nginx", true),
            (
                "https://index.docker.io/v2/",
                "docker.io/library/nginx",
                true,
            ),
            ("index.docker.io/library", "docker.io/library/nginx", false),
            ("registry-1.docker.io", "docker.io/library/nginx", false),
            ("hub.docker.com", "docker.io/library/nginx", false),
            ("GHCR.io", "ghcr.io/o/r", false),
            ("[::1]:5000", "[::1]:5000/x", true),
        ] {
            assert_eq!(
                !users(&ring(&[location]), image).is_empty(),
                matches,
                "{location} for {image}"
            );
        }
    }

    #[test]
    fn order_is_reverse_lexicographic_then_as_added() {
        let both = ring(&["*.io", "reg.io", "reg.io/team/app", "reg.io/team"]);
        assert_eq!(
            users(&both, "reg.io/team/app"),
            ["reg.io/team/app", "reg.io/team", "reg.io", "*.io"]
        );
        let same = ring(&["https://reg.io", "reg.io", "http://reg.io/v1/"]);
        assert_eq!(
            users(&same, "reg.io/x"),
            ["https://reg.io", "reg.io", "http://reg.io/v1/"]
        );
    }

    #[test]
    fn docker_hub_falls_back_only_when_nothing_matches() {
        let both = ring(&["docker.io", "https://index.docker.io/v1/"]);
        assert_eq!(users(&both, "docker.io/library/nginx"), ["docker.io"]);
    }

    #[test]
    fn secrets_come_before_node_files_whatever_was_added_first() {
        let mut ring = Keyring::new();
        let key = |user: &str| Keys::new(vec![Key::new("reg.io", Credential::basic(user, "pw"))]);
        ring.add(
            &key("node"),
            &Source::NodeFile("/var/lib/kubelet/config.json".into()),
        );
        ring.add(
            &key("pod"),
            &Source::PodSecret {
                namespace: "ns".into(),
                name: "s".into(),
            },
        );
        assert_eq!(users(&ring, "reg.io/x"), ["pod", "node"]);
    }
}
