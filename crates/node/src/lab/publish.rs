//! The images of the scenarios, built from what ships in the binary and pushed like anyone's.

use std::net::SocketAddr;

use serde_json::Value;
use towline_lab::image::{self, Blob, Builder, Image, Layer, Platform, PushError};
use towline_lab::scenario::{Published, Scenario};

use super::{Account, Scene};

/// Bytes of the layer of a large image.
const LARGE: usize = 24 << 20;

/// Files of an image that has many.
const FILES: usize = 5000;

/// More layers than can be stacked.
const LAYERS: usize = 600;

/// An image of a scenario could not be pushed.
#[derive(Debug, thiserror::Error)]
#[error("cannot push the image of scenario {scenario:?} to {registry}")]
pub struct PublishError {
    /// The scenario.
    pub scenario: String,
    /// The registry.
    pub registry: SocketAddr,
    /// Why not.
    #[source]
    pub source: PushError,
}

/// Pushes what the registry must hold for this scenario: the image that is meant, or what stands in its place.
pub(crate) async fn publish(
    scenario: &Scenario,
    scene: &Scene,
    account: &Account,
) -> Result<(), PublishError> {
    if scenario.published == Published::Nothing {
        return Ok(());
    }
    push(scenario, scene, account, built).await
}

/// Pushes an image that runs, whatever the scenario had there.
pub(super) async fn republish(
    scenario: &Scenario,
    scene: &Scene,
    account: &Account,
) -> Result<(), PublishError> {
    push(scenario, scene, account, |scenario| good(scenario).build()).await
}

/// Builds apart from the threads that serve: large images take a while, and name server and registries of the lab would stand still.
async fn push(
    scenario: &Scenario,
    scene: &Scene,
    account: &Account,
    build: impl FnOnce(&Scenario) -> Image + Send + 'static,
) -> Result<(), PublishError> {
    let of = scenario.clone();
    let image = towline_sys::task::blocking("build an image", move || build(&of)).await;
    let meant = scenario.right_image();
    let path = meant.split_once('/').map_or(meant, |(_, path)| path);
    let (repository, tag) = path.rsplit_once(':').unwrap_or((path, "latest"));
    let login = Some((account.username.as_str(), account.password.as_str()));
    let pushed = image.push(scene.registry, repository, tag, login).await;
    pushed.map_err(|source| PublishError {
        scenario: scenario.name.clone(),
        registry: scene.registry,
        source,
    })
}

/// Pushes the image of a foreign runtime's sandboxes.
pub(super) async fn pause(registry: SocketAddr, account: &Account) -> Result<(), PublishError> {
    let (repository, tag) = super::containerd::PAUSE;
    let login = Some((account.username.as_str(), account.password.as_str()));
    let build = || image::guest().cmd(["sleep", "infinity"]).build();
    let image = towline_sys::task::blocking("build an image", build).await;
    let pushed = image.push(registry, repository, tag, login).await;
    pushed.map_err(|source| PublishError {
        scenario: "the sandboxes".to_owned(),
        registry,
        source,
    })
}

/// An image that runs. Its last layer is like no other scenario's, so that none is on the node already.
fn good(scenario: &Scenario) -> Builder {
    image::guest()
        .cmd(["hello", &format!("hello from {}", scenario.name)])
        .layer(Layer::new().file("etc/scenario", &scenario.name))
}

fn built(scenario: &Scenario) -> Image {
    match scenario.published {
        Published::Public | Published::Private | Published::Nothing => good(scenario).build(),
        Published::OtherPlatform => image::Index::new().image(other_platform(scenario)).build(),
        Published::OtherPlatformAlone => other_platform(scenario),
        Published::Chart => edited(&good(scenario).build(), |manifest| {
            manifest["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into();
        }),
        Published::ManyLayers => {
            let thin = Layer::new().file("etc/scenario", &scenario.name);
            let all = std::iter::repeat_n(thin, LAYERS);
            all.fold(good(scenario), Builder::layer).build()
        }
        Published::Encrypted => edited(&good(scenario).build(), |manifest| {
            manifest["layers"][0]["mediaType"] =
                "application/vnd.oci.image.layer.v1.tar+gzip+encrypted".into();
        }),
        Published::OddLayer => edited(&good(scenario).build(), |manifest| {
            manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+xz".into();
        }),
        Published::BrokenLayer => {
            let junk = format!("this is no archive: {}", scenario.name).repeat(64);
            good(scenario).layer(Layer::from_archive(junk)).build()
        }
        Published::TooFewLayers => good(scenario).diff_ids([image::sha256(b"one")]).build(),
        Published::WrongLayer => good(scenario)
            .diff_ids([image::sha256(b"one"), image::sha256(b"two")])
            .build(),
        Published::ManyFiles => {
            let files = (0..FILES).map(|number| format!("data/{number:04}"));
            let layer = files.fold(Layer::new(), |layer, file| layer.file(&file, "x"));
            good(scenario).layer(layer).build()
        }
        Published::Large => good(scenario)
            .layer(Layer::new().file("data/noise", noise(LARGE)))
            .build(),
    }
}

fn other_platform(scenario: &Scenario) -> Image {
    let other = if cfg!(target_arch = "x86_64") {
        "arm64"
    } else {
        "amd64"
    };
    good(scenario).platform(Platform::linux(other)).build()
}

/// The same image with a manifest that says something else.
fn edited(image: &Image, edit: impl FnOnce(&mut Value)) -> Image {
    let mut manifest: Value = serde_json::from_slice(&image.manifest.bytes).unwrap_or_default();
    edit(&mut manifest);
    Image {
        manifest: Blob::new(image.manifest.media_type.clone(), manifest.to_string()),
        ..image.clone()
    }
}

/// Bytes that cannot be compressed, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}
