//! What `kubectl logs` is told about a container that has no log yet.

/// The text of the 400 answer for a waiting container.
pub fn waiting_text(container: &str, pod: &str, reason: &str) -> String {
    let why = match reason {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        other => other,
    };
    format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (reason, text) in [
            (
                "ErrImagePull",
                r#"container "c" in pod "p" is waiting to start: image can't be pulled"#,
            ),
            (
                "ImagePullBackOff",
                r#"container "c" in pod "p" is waiting to start: trying and failing to pull image"#,
            ),
            (
                "ContainerCreating",
                r#"container "c" in pod "p" is waiting to start: ContainerCreating"#,
            ),
        ] {
            assert_eq!(waiting_text("c", "p", reason), text);
        }
    }
}
