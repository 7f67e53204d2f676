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

/// Reads the targets: `KIND/NAME ...`, `KIND NAME`, images; nothing but a namespace or `-A` for all that is in it.
pub(super) fn read(
    words: &[String],
    namespace: &str,
    namespace_given: bool,
    all: bool,
) -> Result<Asked, Usage> {
    if all {
        return match words {
            [] => Ok(Asked::Cluster(vec![Ask::Cluster])),
            _ => Err(Usage("-A asks about every pod: name no target".to_owned())),
        };
    }
    match words {
        [] if namespace_given => Ok(Asked::Cluster(vec![Ask::Namespace(namespace.to_owned())])),
        [] => Err(Usage(
            "name what does not pull: pod/NAME, deployment/NAME, ..., an image, -n NAMESPACE or -A for all".to_owned(),
        )),
        [kind, name] if is_kind(kind) && !name.contains('/') => {
            let ask = object(kind, name, namespace).ok_or_else(|| unknown(kind))?;
            Ok(Asked::Cluster(vec![ask]))
        }
        _ => several(words, namespace),
    }
}

fn several(words: &[String], namespace: &str) -> Result<Asked, Usage> {
    let (mut asks, mut images) = (Vec::new(), Vec::new());
    for word in words {
        match word.split_once('/') {
            Some((kind, name)) if is_kind(kind) && !name.contains('/') => {
                asks.push(object(kind, name, namespace).ok_or_else(|| unknown(kind))?);
            }
            _ if word.is_empty() => {
                return Err(Usage("name a pod (pod/NAME) or an image".to_owned()));
            }
            _ => images.push(word.clone()),
        }
    }
    match (asks.is_empty(), images.is_empty()) {
        (_, true) => Ok(Asked::Cluster(asks)),
        (true, _) => Ok(Asked::Images(images)),
        _ => Err(Usage(
            "ask about objects of the cluster or about images, not about both at once".to_owned(),
        )),
    }
}

fn unknown(kind: &str) -> Usage {
    Usage(format!("name the {kind} that is meant: {kind}/NAME"))
}

fn is_pod(word: &str) -> bool {
    matches!(word, "pod" | "pods" | "po")
}

fn is_namespace(word: &str) -> bool {
    matches!(word, "namespace" | "namespaces" | "ns")
}

fn is_kind(word: &str) -> bool {
    is_pod(word) || is_namespace(word) || Workload::parse(word).is_some()
}

fn object(kind: &str, name: &str, namespace: &str) -> Option<Ask> {
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    if name.is_empty() {
        return None;
    }
    if is_namespace(kind) {
        return Some(Ask::Namespace(name));
    }
    if is_pod(kind) {
        return Some(Ask::Pod { namespace, name });
    }
    Workload::parse(kind).map(|kind| Ask::Workload {
        kind,
        namespace,
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_words(words: &[&str]) -> Result<Asked, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        read(&words, "shop", false, false).map_err(|usage| usage.0)
    }

    #[test]
    fn objects_are_named_as_for_kubectl() {
        let pod = |name: &str| Ask::Pod {
            namespace: "shop".into(),
            name: name.into(),
        };
        let deployment = Ask::Workload {
            kind: Workload::Deployment,
            namespace: "shop".into(),
            name: "web".into(),
        };
        for (words, want) in [
            (&["pod/a"][..], vec![pod("a")]),
            (&["po", "a"], vec![pod("a")]),
            (&["pod/a", "pods/b"], vec![pod("a"), pod("b")]),
            (&["deploy/web"], vec![deployment.clone()]),
            (&["deployment.apps", "web"], vec![deployment]),
            (&["ns/other"], vec![Ask::Namespace("other".into())]),
        ] {
            assert_eq!(read_words(words), Ok(Asked::Cluster(want)), "{words:?}");
        }
    }

    #[test]
    fn everything_else_is_an_image() {
        for image in [
            "nginx",
            "ghcr.io/team/app:v1",
            "127.0.0.1:5000/pod/app",
            "job/team/app",
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
        let all = |given, all| read(&[], "shop", given, all).map_err(|usage| usage.0);
        let namespace = vec![Ask::Namespace("shop".into())];
        assert_eq!(all(true, false), Ok(Asked::Cluster(namespace)));
        assert_eq!(all(false, true), Ok(Asked::Cluster(vec![Ask::Cluster])));
        assert!(all(false, false).is_err());
    }
}
