//! Images and indexes out of layers and a configuration.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::blob::{Blob, sha256};
use super::layer::{Compression, Layer};

/// Whose media types an image uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// `application/vnd.oci.image.*`.
    #[default]
    Oci,
    /// `application/vnd.docker.*`.
    Docker,
}

impl Dialect {
    fn manifest(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    fn index(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.index.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.config.v1+json",
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    fn layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Self::Oci, Compression::None) => "application/vnd.oci.image.layer.v1.tar",
            (Self::Oci, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Self::Oci, Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (Self::Docker, Compression::None) => "application/vnd.docker.image.rootfs.diff.tar",
            (Self::Docker, Compression::Gzip) => {
                "application/vnd.docker.image.rootfs.diff.tar.gzip"
            }
            (Self::Docker, Compression::Zstd) => {
                "application/vnd.docker.image.rootfs.diff.tar.zstd"
            }
        }
    }
}

/// The platform of an image, in Go's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`, `windows`, ...
    pub os: String,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `v8`, `v7`, ...
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on an architecture.
    pub fn linux(architecture: &str) -> Self {
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: None,
        }
    }

    /// The platform of this machine.
    pub fn host() -> Self {
        Self::linux(match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        })
    }

    fn descriptor(&self) -> Value {
        let mut out = json!({"architecture": self.architecture, "os": self.os});
        if let Some(variant) = &self.variant {
            out["variant"] = json!(variant);
        }
        out
    }
}

/// An image under construction; [`Builder::build`] ends it.
#[derive(Clone, Debug)]
pub struct Builder {
    dialect: Dialect,
    platform: Platform,
    layers: Vec<Layer>,
    config: Map<String, Value>,
    environment: Vec<String>,
    labels: Map<String, Value>,
    annotations: Map<String, Value>,
    raw_config: Option<Bytes>,
    diff_ids: Option<Vec<String>>,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// An OCI image of this machine's platform, without layers.
    pub fn new() -> Self {
        Self {
            dialect: Dialect::Oci,
            platform: Platform::host(),
            layers: Vec::new(),
            config: Map::new(),
            environment: Vec::new(),
            labels: Map::new(),
            annotations: Map::new(),
            raw_config: None,
            diff_ids: None,
        }
    }

    /// Adds a layer above the ones before.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// Uses Docker's or OCI's media types.
    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// Says for which platform the image is.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// Sets the entry point.
    #[must_use]
    pub fn entrypoint<S: Into<String>>(self, words: impl IntoIterator<Item = S>) -> Self {
        self.words("Entrypoint", words)
    }

    /// Sets the command.
    #[must_use]
    pub fn cmd<S: Into<String>>(self, words: impl IntoIterator<Item = S>) -> Self {
        self.words("Cmd", words)
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("{name}={value}"));
        self
    }

    /// Sets the user (`1000`, `user`, `1000:1000`, `user:group`).
    #[must_use]
    pub fn user(self, user: &str) -> Self {
        self.config_field("User", json!(user))
    }

    /// Sets the working directory.
    #[must_use]
    pub fn working_dir(self, path: &str) -> Self {
        self.config_field("WorkingDir", json!(path))
    }

    /// Sets the signal that stops a container.
    #[must_use]
    pub fn stop_signal(self, signal: &str) -> Self {
        self.config_field("StopSignal", json!(signal))
    }

    /// Declares a volume.
    #[must_use]
    pub fn volume(mut self, path: &str) -> Self {
        let volumes = self.config.entry("Volumes").or_insert_with(|| json!({}));
        volumes[path] = json!({});
        self
    }

    /// Adds a label to the configuration.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), json!(value));
        self
    }

    /// Adds an annotation to the manifest.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), json!(value));
        self
    }

    /// Sets any field of the configuration's `config` object.
    #[must_use]
    pub fn config_field(mut self, name: &str, value: Value) -> Self {
        self.config.insert(name.to_owned(), value);
        self
    }

    /// Uses these bytes as the whole configuration document (a broken one, for instance).
    #[must_use]
    pub fn raw_config(mut self, bytes: impl Into<Bytes>) -> Self {
        self.raw_config = Some(bytes.into());
        self
    }

    /// States other diffIDs than the layers have.
    #[must_use]
    pub fn diff_ids<S: Into<String>>(mut self, digests: impl IntoIterator<Item = S>) -> Self {
        self.diff_ids = Some(digests.into_iter().map(Into::into).collect());
        self
    }

    fn words<S: Into<String>>(self, field: &str, words: impl IntoIterator<Item = S>) -> Self {
        let words: Vec<String> = words.into_iter().map(Into::into).collect();
        self.config_field(field, json!(words))
    }

    fn document(&self, diff_ids: &[String]) -> Value {
        let mut config = self.config.clone();
        if !self.environment.is_empty() {
            config.insert("Env".to_owned(), json!(self.environment));
        }
        if !self.labels.is_empty() {
            config.insert("Labels".to_owned(), Value::Object(self.labels.clone()));
        }
        let mut document = json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": self.platform.architecture,
            "os": self.platform.os,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": diff_ids.iter().map(|_| json!({"created_by": "lab"})).collect::<Vec<_>>(),
        });
        if let Some(variant) = &self.platform.variant {
            document["variant"] = json!(variant);
        }
        document
    }

    /// The image's blobs and manifest.
    pub fn build(&self) -> Image {
        let diff_ids: Vec<String> = match &self.diff_ids {
            Some(stated) => stated.clone(),
            None => self
                .layers
                .iter()
                .map(|layer| sha256(&layer.archive()))
                .collect(),
        };
        let layers: Vec<Blob> = self
            .layers
            .iter()
            .map(|layer| {
                Blob::new(
                    self.dialect.layer(layer.chosen_compression()),
                    layer.compressed(),
                )
            })
            .collect();
        let config = match &self.raw_config {
            Some(raw) => raw.clone(),
            None => self.document(&diff_ids).to_string().into(),
        };
        let config = Blob::new(self.dialect.config(), config);
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": self.dialect.manifest(),
            "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        if !self.annotations.is_empty() {
            manifest["annotations"] = Value::Object(self.annotations.clone());
        }
        let manifest = Blob::new(self.dialect.manifest(), manifest.to_string());
        let config_digest = config.digest.clone();
        let blobs = layers.into_iter().chain([config]).collect();
        Image {
            manifest,
            children: Vec::new(),
            blobs,
            diff_ids,
            config_digest,
            platform: self.platform.clone(),
        }
    }
}

/// What a registry holds of an image or an index.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest, or the index.
    pub manifest: Blob,
    /// An index's manifests; empty for an image.
    pub children: Vec<Blob>,
    /// Layers from the lowest up, then the configuration; an index's images one after the other.
    pub blobs: Vec<Blob>,
    /// The layers' diffIDs from the lowest up; empty for an index.
    pub diff_ids: Vec<String>,
    /// The image ID: the digest of the configuration; empty for an index.
    pub config_digest: String,
    /// The platform; an index has its first image's.
    pub platform: Platform,
}

impl Image {
    /// The digest that a reference `name@digest` takes.
    pub fn digest(&self) -> &str {
        &self.manifest.digest
    }

    /// The layers from the lowest up; for an index those of all its images.
    pub fn layers(&self) -> impl Iterator<Item = &Blob> {
        self.blobs
            .iter()
            .filter(|blob| blob.media_type.contains("layer") || blob.media_type.contains("rootfs"))
    }
}

/// An index under construction.
#[derive(Clone, Debug, Default)]
pub struct Index {
    dialect: Dialect,
    images: Vec<Image>,
}

impl Index {
    /// An index without images.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an image under its own platform.
    #[must_use]
    pub fn image(mut self, image: Image) -> Self {
        self.images.push(image);
        self
    }

    /// Uses Docker's or OCI's media types.
    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// The index with all that it names.
    pub fn build(&self) -> Image {
        let entries: Vec<Value> = self
            .images
            .iter()
            .map(|image| {
                let mut entry = image.manifest.descriptor();
                entry["platform"] = image.platform.descriptor();
                entry
            })
            .collect();
        let document =
            json!({"schemaVersion": 2, "mediaType": self.dialect.index(), "manifests": entries});
        Image {
            manifest: Blob::new(self.dialect.index(), document.to_string()),
            children: self
                .images
                .iter()
                .map(|image| image.manifest.clone())
                .collect(),
            blobs: self
                .images
                .iter()
                .flat_map(|image| image.blobs.clone())
                .collect(),
            diff_ids: Vec::new(),
            config_digest: String::new(),
            platform: self
                .images
                .first()
                .map_or_else(Platform::host, |image| image.platform.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_deterministic_and_names_its_parts() {
        let image = crate::image::guest().label("a", "b").build();
        let again = crate::image::guest().label("a", "b").build();
        assert_eq!(image.digest(), again.digest());
        let manifest: Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
        assert_eq!(manifest["config"]["digest"], image.config_digest);
        assert_eq!(manifest["layers"][0]["digest"], image.blobs[0].digest);
        assert_eq!(manifest["layers"][0]["size"], image.blobs[0].bytes.len());
        let config: Value = serde_json::from_slice(&image.blobs[1].bytes).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!(image.diff_ids));
        assert_eq!(config["config"]["Labels"]["a"], "b");
    }

    #[test]
    fn an_index_names_platforms() {
        let arm = Builder::new()
            .platform(Platform::linux("arm64"))
            .layer(Layer::new().file("a", "1"))
            .build();
        let index = Index::new()
            .image(arm.clone())
            .dialect(Dialect::Docker)
            .build();
        let document: Value = serde_json::from_slice(&index.manifest.bytes).unwrap();
        assert_eq!(document["manifests"][0]["digest"], arm.digest());
        assert_eq!(
            document["manifests"][0]["platform"]["architecture"],
            "arm64"
        );
        assert_eq!(index.children, [arm.manifest]);
    }
}
