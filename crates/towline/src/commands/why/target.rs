//! What a person writes behind `why`, read.

use towline_explain::scan::{Ask, Workload};

use crate::exit::Usage;

/// What is asked about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Objects of a cluster.
    Cluster(Vec<Ask>),
    /// Image references, without a cluster.
    Images(Vec<String>),
}

/// What the targets are read with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place<'a> {
    /// The namespace that was given, or that of the context.
    pub(super) namespace: &'a str,
    /// Whether it was given.
    pub(super) given: bool,
    /// `-A`.
    pub(super) all: bool,
    /// `--from-node`: then a namespace is told of images too, for the pod that looks.
    pub(super) from_node: bool,
}

/// Reads the targets as kubectl does: `KIND/NAME ...`, `KIND NAME ...`, `KIND` for all of that kind, `pods`; or images; nothing but a namespace or `-A` for all that
/// is in it. With a namespace a bare word is a pod's name.
pub(super) fn read(words: &[String], place: Place<'_>) -> Result<Asked, Usage> {
    if place.all {
        return match words {
            [] => Ok(Asked::Cluster(vec![Ask::Cluster])),
            [kind] if is_pod(kind) => Ok(Asked::Cluster(vec![Ask::Cluster])),
            [kind] if Workload::parse(kind).is_some() => Ok(all_of(kind, None)),
            _ => Err(Usage(
                "-A asks about every pod, or every workload of a kind: name no target".to_owned(),
            )),
        };
    }
    let whole = || Asked::Cluster(vec![Ask::Namespace(place.namespace.to_owned())]);
    match words {
        [] if place.given => Ok(whole()),
        [] => Err(Usage(
            "name what does not pull: pod/NAME, deployment/NAME, ..., an image, -n NAMESPACE or -A for all".to_owned(),
        )),
        [kind] if is_pod(kind) && !kind.eq_ignore_ascii_case("pod") => Ok(whole()),
        [kind] if Workload::parse(kind).is_some() => Ok(all_of(kind, Some(place.namespace))),
        [kind] if is_kind(kind) => Err(alone(kind)),
        [kind, names @ ..] if is_kind(kind) && !names.iter().any(|name| name.contains('/')) => {
            let ask = |name: &String| object(kind, name, place.namespace);
            names.iter().map(ask).collect::<Result<_, _>>().map(Asked::Cluster)
        }
        _ => several(words, place),
    }
}

fn several(words: &[String], place: Place<'_>) -> Result<Asked, Usage> {
    let (mut asks, mut images) = (Vec::new(), Vec::new());
    for word in words {
        match word.split_once('/') {
            Some((kind, name)) if is_kind(kind) && is_name(name) => {
                asks.push(object(kind, name, place.namespace)?);
            }
            Some((kind, name)) if is_name(name) => match other_kind(kind) {
                Some(other) => return Err(no_images(word, other)),
                None => images.push(word.clone()),
            },
            None if word.is_empty() => {
                return Err(Usage("name a pod (pod/NAME) or an image".to_owned()));
            }
            None if place.given && !place.from_node && is_name(word) => {
                asks.push(object("pod", word, place.namespace)?);
            }
            _ => images.push(word.clone()),
        }
    }
    match (asks.is_empty(), images.first()) {
        (_, None) => Ok(Asked::Cluster(asks)),
        (true, Some(image)) if place.given && !place.from_node => Err(Usage(format!(
            "{image:?} is an image, which is asked about without a cluster: leave -n out, or name an object of the namespace (pod/NAME, deployment/NAME)"
        ))),
        (true, Some(_)) => Ok(Asked::Images(images)),
        _ => Err(Usage(
            "ask about objects of the cluster or about images, not about both at once".to_owned(),
        )),
    }
}

/// Every workload of a kind.
fn all_of(kind: &str, namespace: Option<&str>) -> Asked {
    let kind = Workload::parse(kind);
    let asks = kind.map(|kind| Ask::Workloads {
        kind,
        namespace: namespace.map(str::to_owned),
    });
    Asked::Cluster(asks.into_iter().collect())
}

/// Whether a word may be an object's name: an image's tag or digest is not.
fn is_name(word: &str) -> bool {
    !word.contains(['/', ':', '@'])
}

/// A kind without a name.
fn alone(kind: &str) -> Usage {
    let kind = kind.to_ascii_lowercase();
    Usage(format!(
        "name the {kind} that is meant: {kind}/NAME; pods, or -n NAMESPACE alone, asks about all pods of a namespace"
    ))
}

/// Kinds of objects that kubectl knows and that name no image: what people write when they mean what stands behind them.
fn other_kind(word: &str) -> Option<&'static str> {
    let known: [(&str, &[&str]); 10] = [
        ("service", &["services", "svc"]),
        ("node", &["nodes", "no"]),
        ("configmap", &["configmaps", "cm"]),
        ("secret", &["secrets"]),
        ("serviceaccount", &["serviceaccounts", "sa"]),
        ("ingress", &["ingresses", "ing"]),
        ("endpoints", &["ep"]),
        ("event", &["events", "ev"]),
        ("persistentvolumeclaim", &["persistentvolumeclaims", "pvc"]),
        (
            "horizontalpodautoscaler",
            &["horizontalpodautoscalers", "hpa"],
        ),
    ];
    let word = word.to_ascii_lowercase();
    let found = known
        .iter()
        .find(|(kind, more)| *kind == word || more.contains(&word.as_str()));
    found.map(|(kind, _)| *kind)
}

fn no_images(word: &str, kind: &str) -> Usage {
    Usage(format!(
        "a {kind} names no image: ask about a pod or what makes it (pod/NAME, deployment/NAME, ...); the image of this name is docker.io/{word}"
    ))
}

fn is_pod(word: &str) -> bool {
    ["pod", "pods", "po"]
        .iter()
        .any(|name| word.eq_ignore_ascii_case(name))
}

fn is_namespace(word: &str) -> bool {
    let names = ["namespace", "namespaces", "ns"];
    names.iter().any(|name| word.eq_ignore_ascii_case(name))
}

fn is_kind(word: &str) -> bool {
    is_pod(word) || is_namespace(word) || Workload::parse(word).is_some()
}

fn object(kind: &str, name: &str, namespace: &str) -> Result<Ask, Usage> {
    let missing = || alone(kind);
    if name.is_empty() {
        return Err(missing());
    }
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    if is_namespace(kind) {
        return Ok(Ask::Namespace(name));
    }
    if is_pod(kind) {
        return Ok(Ask::Pod { namespace, name });
    }
    let kind = Workload::parse(kind).ok_or_else(missing)?;
    Ok(Ask::Workload {
        kind,
        namespace,
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn read_words(words: &[&str]) -> Result<Asked, String> {
        let place = Place {
            namespace: "shop",
            ..Place::default()
        };
        read(&words_of(words), place).map_err(|usage| usage.0)
    }

    /// With `-n shop`.
    fn read_given(words: &[&str]) -> Result<Asked, String> {
        let place = Place {
            namespace: "shop",
            given: true,
            ..Place::default()
        };
        read(&words_of(words), place).map_err(|usage| usage.0)
    }

    fn pod(name: &str) -> Ask {
        Ask::Pod {
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    #[test]
    fn objects_are_named_as_for_kubectl() {
        let deployment = |name: &str| Ask::Workload {
            kind: Workload::Deployment,
            namespace: "shop".into(),
            name: name.into(),
        };
        let all_of = |namespace: Option<&str>| Ask::Workloads {
            kind: Workload::Deployment,
            namespace: namespace.map(str::to_owned),
        };
        let everywhere = Place {
            all: true,
            ..Place::default()
        };
        assert_eq!(
            read(&words_of(&["deploy"]), everywhere).map_err(|usage| usage.0),
            Ok(Asked::Cluster(vec![all_of(None)]))
        );
        for (words, want) in [
            (&["pod/a"][..], vec![pod("a")]),
            (&["po", "a"], vec![pod("a")]),
            (&["Pod/a"], vec![pod("a")]),
            (&["pods", "a", "b"], vec![pod("a"), pod("b")]),
            (&["pod", "a", "b"], vec![pod("a"), pod("b")]),
            (&["pod/a", "pods/b"], vec![pod("a"), pod("b")]),
            (&["deploy/web"], vec![deployment("web")]),
            (&["deployment.apps", "web"], vec![deployment("web")]),
            (
                &["Deployments", "web", "api"],
                vec![deployment("web"), deployment("api")],
            ),
            (&["ns/other"], vec![Ask::Namespace("other".into())]),
            (&["NS", "other"], vec![Ask::Namespace("other".into())]),
            (&["pods"], vec![Ask::Namespace("shop".into())]),
            (&["po"], vec![Ask::Namespace("shop".into())]),
            (&["deployments"], vec![all_of(Some("shop"))]),
            (&["deploy"], vec![all_of(Some("shop"))]),
        ] {
            assert_eq!(
                read_words(words),
                Ok(Asked::Cluster(want.clone())),
                "{words:?}"
            );
            assert_eq!(read_given(words), Ok(Asked::Cluster(want)), "{words:?}");
        }
    }

    #[test]
    fn with_a_namespace_a_bare_word_is_a_pod() {
        for words in [&["a"][..], &["a", "b"]] {
            let want = words.iter().map(|name| pod(name)).collect();
            assert_eq!(read_given(words), Ok(Asked::Cluster(want)));
        }
        for image in ["ghcr.io/team/app:v1", "nginx:1.25", "team/app"] {
            let told = read_given(&[image]).unwrap_err();
            assert!(told.contains("leave -n out"), "{told}");
        }
    }

    #[test]
    fn what_names_no_image_is_told_so_and_is_never_looked_for_at_docker_hub() {
        for (word, kind) in [
            ("svc/web", "service"),
            ("node/n1", "node"),
            ("Secret/x", "secret"),
        ] {
            for read in [read_words, read_given] {
                let told = read(&[word]).unwrap_err();
                assert!(told.contains(&format!("a {kind} names no image")), "{told}");
            }
        }
        for word in ["pod", "ns"] {
            for read in [read_words, read_given] {
                let told = read(&[word]).unwrap_err();
                assert!(told.contains("/NAME"), "{told}");
            }
        }
    }

    #[test]
    fn everything_else_is_an_image() {
        for image in [
            "nginx",
            "ghcr.io/team/app:v1",
            "127.0.0.1:5000/pod/app",
            "job/team/app",
            "job/app:v1",
            "svc/web:v1",
        ] {
            assert_eq!(
                read_words(&[image]),
                Ok(Asked::Images(vec![image.to_owned()]))
            );
        }
        assert!(read_words(&["nginx", "pod/a"]).is_err());
        assert!(read_words(&[]).is_err());
        assert!(read_words(&["pod/"]).is_err());
    }

    #[test]
    fn a_namespace_alone_means_all_that_is_in_it() {
        let all = |given, all| {
            let place = Place {
                namespace: "shop",
                given,
                all,
                from_node: false,
            };
            read(&[], place).map_err(|usage| usage.0)
        };
        let namespace = vec![Ask::Namespace("shop".into())];
        assert_eq!(all(true, false), Ok(Asked::Cluster(namespace)));
        assert_eq!(all(false, true), Ok(Asked::Cluster(vec![Ask::Cluster])));
        assert!(all(false, false).is_err());
    }
}
