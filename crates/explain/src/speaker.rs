//! Who says a sentence about a pull: the kubelet itself, or the runtime whose words it hands on.

/// How sentences begin, or what stands in them, that are the kubelet's own.
const KUBELET: [&str; 12] = [
    "Back-off pulling image",
    "Container image \"",
    "Error: ErrImage",
    "Error: ImagePull",
    "Error: ImageInspect",
    "Failed to apply default image tag",
    "Failed to inspect image",
    "Unable to retrieve some image pull secrets",
    "Pulling image \"",
    "Successfully pulled image \"",
    "pull QPS exceeded",
    "couldn't parse image",
];

/// What only one runtime says.
const RUNTIMES: [(&str, &str); 12] = [
    (" [towline: ", "towline"),
    ("failed to pull and unpack image", "containerd"),
    ("failed to resolve reference", "containerd"),
    ("failed to resolve image", "containerd"),
    ("PullImage \"", "containerd"),
    ("Error response from daemon", "docker"),
    ("initializing source docker://", "CRI-O"),
    ("copying system image from manifest list", "CRI-O"),
    ("pinging container registry", "CRI-O"),
    ("reading manifest ", "CRI-O"),
    ("unable to pull image or OCI artifact", "CRI-O"),
    ("short-name ", "CRI-O"),
];

/// The speaker of a sentence that a kubelet showed; `runtime` is what the node pulls with, where that is known: `containerd://2.1.9`.
pub(crate) fn of(text: &str, runtime: Option<&str>) -> String {
    if is_kubelets(text) {
        return "kubelet".to_owned();
    }
    let known = runtime.map(|runtime| runtime.split_once("://").unwrap_or((runtime, "")));
    match known {
        // Its version is that of this program, which need not be told.
        Some(("towline", _)) => "runtime".to_owned(),
        Some(("cri-o", version)) => format!("CRI-O {version}"),
        Some((name, version)) => format!("{name} {version}").trim_end().to_owned(),
        None => by_words(text).unwrap_or("runtime").to_owned(),
    }
}

/// The speaker of a sentence that somebody pasted, as far as its words tell.
pub(crate) fn of_pasted(text: &str) -> String {
    if is_kubelets(text) {
        return "kubelet".to_owned();
    }
    let from_kubelet = text.contains("Failed to pull image \"") || text.contains("rpc error: ");
    match by_words(text) {
        // The same library says the same in other programs, which no kubelet hands on.
        Some("CRI-O") if !from_kubelet => "podman, skopeo or CRI-O".to_owned(),
        Some(name) => name.to_owned(),
        None if from_kubelet => "runtime".to_owned(),
        None => "its writer".to_owned(),
    }
}

fn by_words(text: &str) -> Option<&'static str> {
    let found = RUNTIMES.iter().find(|(words, _)| text.contains(words));
    found.map(|(_, name)| *name)
}

/// Whether nobody but the kubelet has a word in it. From 1.32 on its back-off tells the runtime's last words too.
fn is_kubelets(text: &str) -> bool {
    // What the kubelet says of a runtime that does not answer.
    let of_the_call = text.contains("code = Unavailable desc = connection error")
        || text.ends_with("code = DeadlineExceeded desc = context deadline exceeded");
    let own = KUBELET.iter().any(|words| text.starts_with(words));
    let handed_on = text.contains("rpc error: ") || by_words(text).is_some();
    of_the_call || (own && !handed_on) || crate::text::is_pull_reason(text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_spoke_is_named() {
        let pulled = "Failed to pull image \"a:1\": rpc error: code = NotFound desc = failed to pull and unpack image \"a:1\": not found";
        let backoff = "Back-off pulling image \"a:1\"";
        let of_library = "initializing source docker://a:1: reading manifest 1 in docker.io/library/a: manifest unknown";
        for (text, runtime, shown, pasted) in [
            (
                pulled,
                Some("containerd://2.1.9"),
                "containerd 2.1.9",
                "containerd",
            ),
            (pulled, None, "containerd", "containerd"),
            (pulled, Some("towline://0.1.0"), "runtime", "containerd"),
            (backoff, Some("containerd://2.1.9"), "kubelet", "kubelet"),
            (
                &format!("{backoff}: ErrImagePull: rpc error: code = Unknown desc = boom"),
                Some("cri-o://1.31.0"),
                "CRI-O 1.31.0",
                "runtime",
            ),
            (of_library, None, "CRI-O", "podman, skopeo or CRI-O"),
            ("ErrImagePull", None, "kubelet", "kubelet"),
            ("it is broken", None, "runtime", "its writer"),
            (
                "rpc error: code = DeadlineExceeded desc = context deadline exceeded",
                Some("containerd://2.1.9"),
                "kubelet",
                "kubelet",
            ),
        ] {
            assert_eq!(of(text, runtime), shown, "{text}");
            assert_eq!(of_pasted(text), pasted, "{text}");
        }
    }
}
