//! The images that manifests name, with file, line, object and container.

use serde::Serialize;
use serde_json::Value;

/// The deepest nesting that is searched.
const MAX_DEPTH: usize = 64;

/// An image and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// The file, as given.
    pub file: String,
    /// Line of the image, from 1; 0 where it could not be told (flow style, anchors).
    pub line: usize,
    /// `Deployment/web`.
    pub object: String,
    /// Namespace that the object names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The container.
    pub container: String,
    /// The image.
    pub image: String,
    /// `imagePullPolicy`, where it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// Why a file cannot be searched.
#[derive(Debug, thiserror::Error)]
#[error("{file} is not YAML that can be read")]
pub struct FindError {
    /// The file, as given.
    pub file: String,
    /// What is wrong, with line and column.
    #[source]
    pub source: Box<serde_saphyr::Error>,
}

/// Every container image of a file's documents, in order; lists are searched too.
pub fn images(file: &str, text: &str) -> Result<Vec<Found>, FindError> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|source| FindError {
        file: file.to_owned(),
        source: Box::new(source),
    })?;
    let mut search = Search {
        file,
        lines: Lines::of(text),
        found: Vec::new(),
    };
    for document in &documents {
        search.object(document);
    }
    Ok(search.found)
}

struct Search<'a> {
    file: &'a str,
    lines: Lines<'a>,
    found: Vec<Found>,
}

impl Search<'_> {
    fn object(&mut self, document: &Value) {
        if let Some(items) = document["items"].as_array() {
            for item in items {
                self.object(item);
            }
            return;
        }
        let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let metadata = &document["metadata"];
        let object = format!("{}/{}", word(&document["kind"]), word(&metadata["name"]));
        let namespace = metadata["namespace"].as_str().map(str::to_owned);
        self.walk(document, &object, namespace.as_ref(), 0);
    }

    /// Containers are found wherever a pod template may lie: under `containers`, `initContainers` or `ephemeralContainers`.
    fn walk(&mut self, value: &Value, object: &str, namespace: Option<&String>, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        match value {
            Value::Object(fields) => {
                for (key, inner) in fields {
                    if matches!(
                        key.as_str(),
                        "containers" | "initContainers" | "ephemeralContainers"
                    ) {
                        self.containers(inner, object, namespace);
                    } else {
                        self.walk(inner, object, namespace, depth + 1);
                    }
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.walk(item, object, namespace, depth + 1);
                }
            }
            _ => {}
        }
    }

    fn containers(&mut self, list: &Value, object: &str, namespace: Option<&String>) {
        for container in list.as_array().into_iter().flatten() {
            let Some(image) = container["image"].as_str() else {
                continue;
            };
            self.found.push(Found {
                file: self.file.to_owned(),
                line: self.lines.of_image(image),
                object: object.to_owned(),
                namespace: namespace.cloned(),
                container: container["name"].as_str().unwrap_or("-").to_owned(),
                image: image.to_owned(),
                policy: container["imagePullPolicy"].as_str().map(str::to_owned),
            });
        }
    }
}

/// Lines that hold `image:`, each given out once.
struct Lines<'a> {
    open: Vec<(usize, &'a str)>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let open = text.lines().enumerate().filter_map(|(number, line)| {
            let line = line.trim_start().trim_start_matches("- ").trim_start();
            let value = line
                .strip_prefix("image:")
                .or_else(|| line.strip_prefix("\"image\":"))?;
            Some((
                number + 1,
                value
                    .split(" #")
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .trim_end_matches(','),
            ))
        });
        Self {
            open: open.collect(),
        }
    }

    fn of_image(&mut self, image: &str) -> usize {
        let unquoted = |value: &str| value.trim_matches(['"', '\'']).to_owned();
        let at = self
            .open
            .iter()
            .position(|(_, value)| unquoted(value) == image);
        at.map_or(0, |at| self.open.remove(at).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_with_their_place() {
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec:\n  template:\n    spec:\n      initContainers:\n      - name: wait\n        image: a/b:1\n      containers:\n      - image: \"c/d:2\" # main\n        name: app\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: x, image: e}]}\n";
        let found = images("x.yaml", text).unwrap();
        let seen: Vec<_> = found
            .iter()
            .map(|f| {
                (
                    f.line,
                    f.object.as_str(),
                    f.container.as_str(),
                    f.image.as_str(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                (9, "Deployment/web", "wait", "a/b:1"),
                (11, "Deployment/web", "app", "c/d:2"),
                (0, "Pod/p", "x", "e")
            ]
        );
        assert_eq!(found[0].namespace.as_deref(), Some("shop"));
        assert!(images("x.yaml", "a: [").is_err());
    }
}
