//! What a manifest and a config must be for a node to run the image. Decided before a layer is asked for.

use towline_cause::{Cause, Failure, Step};
use towline_oci::{Digest, ImageConfig, Manifest, Platform, media_type};

use crate::Ceilings;

/// Whether this manifest is one of an image that can be unpacked here.
pub(crate) fn manifest(
    digest: &Digest,
    manifest: &Manifest,
    ceilings: &Ceilings,
) -> Result<(), Failure> {
    let config = media_type::essence(&manifest.config.media_type);
    if !media_type::is_image_config(&config) {
        let what = manifest.artifact_type.as_deref().unwrap_or(&config);
        return Err(Failure::new(
            Cause::NotAnImage,
            Step::Resolve,
            format!("{digest} is no container image but an artifact of type {what:?}"),
        ));
    }
    if manifest.layers.len() > ceilings.layers {
        return Err(Failure::new(
            Cause::TooManyLayers,
            Step::Resolve,
            format!(
                "the image has {} layers, the node can stack {}",
                manifest.layers.len(),
                ceilings.layers
            ),
        ));
    }
    for layer in &manifest.layers {
        let kind = media_type::essence(&layer.media_type);
        if media_type::layer_compression(&kind).is_some() {
            continue;
        }
        let cause = if kind.contains("+encrypted") {
            Cause::EncryptedImage
        } else {
            Cause::UnsupportedLayer
        };
        let detail = format!("layer {} has media type {kind:?}", layer.digest);
        return Err(Failure::new(cause, Step::Unpack, detail));
    }
    let sizes = manifest.layers.iter().map(|layer| layer.size);
    let total = sizes.fold(0, u64::saturating_add);
    if total > ceilings.image_bytes {
        return Err(Failure::new(
            Cause::ImageTooLarge,
            Step::Resolve,
            format!(
                "the layers have {total} bytes, more than the ceiling of {}; --ceiling image-bytes=NUMBER raises it",
                ceilings.image_bytes
            ),
        ));
    }
    Ok(())
}

/// Whether this config belongs to this manifest and to a node of this platform.
pub(crate) fn config(
    config: &ImageConfig,
    manifest: &Manifest,
    platform: &Platform,
) -> Result<(), Failure> {
    if !platform.matches(&config.platform) {
        return Err(Failure::new(
            Cause::PlatformMismatch,
            Step::Platform,
            format!(
                "the image is not built for {platform}; it is built for {}",
                config.platform
            ),
        ));
    }
    let (layers, described) = (manifest.layers.len(), config.diff_ids().len());
    if layers != described {
        return Err(Failure::new(
            Cause::NotAnImage,
            Step::Resolve,
            format!("the manifest has {layers} layers, the image config describes {described}"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use towline_oci::Descriptor;

    fn image(config_type: &str, layer_type: &str, size: u64) -> Manifest {
        let text = serde_json::json!({
            "schemaVersion": 2,
            "config": Descriptor::of(config_type, b"{}"),
            "layers": [Descriptor::new(layer_type, Digest::of(b"x"), size)],
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn what_cannot_run_is_named() {
        let ceilings = Ceilings {
            image_bytes: 100,
            ..Ceilings::default()
        };
        let encrypted = format!("{}+encrypted", media_type::OCI_LAYER_GZIP);
        for (config, layer, size, want) in [
            (media_type::OCI_CONFIG, media_type::OCI_LAYER_GZIP, 1, None),
            (
                media_type::DOCKER_CONFIG,
                media_type::DOCKER_LAYER_GZIP,
                1,
                None,
            ),
            (
                "application/vnd.cncf.helm.config.v1+json",
                "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
                1,
                Some(Cause::NotAnImage),
            ),
            (
                media_type::EMPTY,
                media_type::OCI_LAYER,
                1,
                Some(Cause::NotAnImage),
            ),
            (
                media_type::OCI_CONFIG,
                &encrypted,
                1,
                Some(Cause::EncryptedImage),
            ),
            (
                media_type::OCI_CONFIG,
                "application/wasm",
                1,
                Some(Cause::UnsupportedLayer),
            ),
            (
                media_type::OCI_CONFIG,
                media_type::OCI_LAYER,
                101,
                Some(Cause::ImageTooLarge),
            ),
        ] {
            let checked = manifest(&Digest::of(b"m"), &image(config, layer, size), &ceilings);
            assert_eq!(
                checked.err().map(|failure| failure.cause()),
                want,
                "{config} {layer}"
            );
        }
    }

    #[test]
    fn a_config_describes_every_layer_for_this_platform() {
        let of = |text: &str| ImageConfig::parse(text.as_bytes()).unwrap();
        let found = image(media_type::OCI_CONFIG, media_type::OCI_LAYER, 1);
        let node = Platform::new("linux", "amd64");
        let none =
            of(r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#);
        assert_eq!(
            config(&none, &found, &node).unwrap_err().cause(),
            Cause::NotAnImage
        );
        let other =
            of(r#"{"os":"linux","architecture":"arm64","rootfs":{"type":"layers","diff_ids":[]}}"#);
        let failure = config(&other, &found, &node).unwrap_err();
        assert_eq!(failure.cause(), Cause::PlatformMismatch);
        assert!(failure.detail().contains("linux/arm64"));
    }
}
