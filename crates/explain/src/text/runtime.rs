//! Which runtime speaks in a text: what is to be changed on its node is written in its form.

/// The runtime of the first text that bears the marks of one, in the words of a node: `containerd://2`.
pub(super) fn of<'a>(mut texts: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    texts.find_map(one)
}

fn one(text: &str) -> Option<&'static str> {
    let marks = [
        ("Error response from daemon: ", "docker://"),
        // The pull of containerd 2 by its transfer service.
        ("\": failed to resolve image: ", "containerd://2"),
        ("failed to pull and unpack image \"", "containerd://"),
        ("failed to get sandbox image \"", "containerd://"),
        ("initializing source docker://", "cri-o://"),
        ("pinging container registry ", "cri-o://"),
    ];
    let found = marks.iter().find(|(mark, _)| text.contains(mark));
    found.map(|(_, runtime)| *runtime)
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
            assert_eq!(of([text].into_iter()), want, "{text}");
        }
        assert_eq!(of(["nothing", old].into_iter()), Some("containerd://"));
    }
}
