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

/// What only one runtime says, and that runtime in the words of a node; what says more stands first.
const RUNTIMES: [(&str, &str); 14] = [
    (" [towline: ", "towline://"),
    // The pull of containerd 2 by its transfer service.
    ("\": failed to resolve image: ", "containerd://2"),
    ("failed to pull and unpack image", "containerd://"),
    ("failed to resolve reference", "containerd://"),
    ("failed to resolve image", "containerd://"),
    ("failed to get sandbox image \"", "containerd://"),
    ("PullImage \"", "containerd://"),
    ("Error response from daemon", "docker://"),
    ("initializing source docker://", "cri-o://"),
    ("copying system image from manifest list", "cri-o://"),
    ("pinging container registry", "cri-o://"),
    ("reading manifest ", "cri-o://"),
    ("unable to pull image or OCI artifact", "cri-o://"),
    ("short-name ", "cri-o://"),
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
    let runtime = runtime_of(text)?;
    let (name, _) = runtime.split_once("://")?;
    Some(if name == "cri-o" { "CRI-O" } else { name })
}

/// The runtime whose marks a sentence bears, in the words of a node: `containerd://2`.
pub(crate) fn runtime_of(text: &str) -> Option<&'static str> {
    let found = RUNTIMES.iter().find(|(words, _)| text.contains(words));
    found.map(|(_, runtime)| *runtime)
}

/// Whether nobody but the kubelet has a word in it. From 1.32 on its back-off tells the runtime's last words too.
fn is_kubelets(text: &str) -> bool {
    let text = without_frame(text);
    // What the kubelet says of a runtime that does not answer.
    let of_the_call = text.contains("code = Unavailable desc = connection error")
        || text.ends_with("code = DeadlineExceeded desc = context deadline exceeded");
    let own = KUBELET.iter().any(|words| text.starts_with(words));
    let handed_on = text.contains("rpc error: ") || by_words(text).is_some();
    of_the_call || (own && !handed_on) || crate::text::is_pull_reason(text.trim())
}

/// What the event of a failed pull says after the image: the runtime's words, or the kubelet's where it did not ask.
fn without_frame(text: &str) -> &str {
    let image = text.strip_prefix("Failed to pull image \"");
    let rest = image.and_then(|image| image.split_once("\": "));
    rest.map_or(text, |(_, words)| words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_known_by_its_frame() {
        let new = "failed to pull and unpack image \"r.test/a:1\": failed to resolve image: r.test/a:1: not found";
        let old = "failed to pull and unpack image \"r.test/a:1\": failed to resolve reference \"r.test/a:1\": x";
        for (text, want) in [
            (new, Some("containerd://2")),
            (old, Some("containerd://")),
            (
                "Error response from daemon: manifest unknown",
                Some("docker://"),
            ),
            (
                "initializing source docker://r.test/a:1: x",
                Some("cri-o://"),
            ),
            ("Back-off pulling image \"containerd/docker:1\"", None),
        ] {
            assert_eq!(runtime_of(text), want, "{text}");
        }
    }

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
            (
                "Failed to pull image \"a:1\": pull QPS exceeded",
                Some("containerd://2.1.9"),
                "kubelet",
                "kubelet",
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
