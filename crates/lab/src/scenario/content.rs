//! What is published is no image that can be run.

use towline_cause::{Cause, Confidence, Step};

use super::{Published, Scenario};

pub(super) fn scenarios() -> Vec<Scenario> {
    let content = |name: &str, story: &str, cause: Cause, step: Step, published: Published| {
        Scenario::new(name, story, cause, step)
            .published(published)
            .repaired("publish an image under the same tag")
    };
    vec![
        content(
            "chart",
            "The reference names a Helm chart.",
            Cause::NotAnImage,
            Step::Resolve,
            Published::Chart,
        )
        .ours_alone(),
        content(
            "layers-not-described",
            "The image's configuration describes another number of layers.",
            Cause::NotAnImage,
            Step::Resolve,
            Published::TooFewLayers,
        ),
        content(
            "too-many-layers",
            "The image has more layers than can be stacked.",
            Cause::TooManyLayers,
            Step::Resolve,
            Published::ManyLayers,
        )
        .ours_alone(),
        content(
            "encrypted",
            "The layers are encrypted and the node has no key.",
            Cause::EncryptedImage,
            Step::Unpack,
            Published::Encrypted,
        )
        .ours_alone(),
        content(
            "odd-layer",
            "A layer is compressed in a way that the runtime does not know.",
            Cause::UnsupportedLayer,
            Step::Unpack,
            Published::OddLayer,
        )
        .ours_alone(),
        content(
            "broken-layer",
            "A layer is not an archive.",
            Cause::LayerExtractFailed,
            Step::Unpack,
            Published::BrokenLayer,
        )
        .at_least(Confidence::Stated),
        content(
            "other-layer",
            "A layer holds other files than the image's configuration says.",
            Cause::DigestMismatch,
            Step::Verify,
            Published::WrongLayer,
        )
        .at_least(Confidence::Stated),
    ]
}
