//! The images of the demo, built from what ships in the binary and pushed like anyone's.

use std::net::SocketAddr;

use towline_lab::image::{self, Image, Platform, PushError};
use towline_lab::scenario::{Published, Scenario};

/// The registry's only user in the demo.
#[derive(Debug, Clone)]
pub struct Login {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

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

/// Pushes what the registry must hold for this scenario: the image that is meant, or one for another platform.
pub async fn publish(
    scenario: &Scenario,
    registry: SocketAddr,
    login: &Login,
) -> Result<(), PublishError> {
    if scenario.published == Published::Nothing {
        return Ok(());
    }
    let meant = scenario.meant.as_ref().unwrap_or(&scenario.image);
    let path = meant.trim_start_matches("{registry}/");
    let (repository, tag) = path.rsplit_once(':').unwrap_or((path, "latest"));
    let user = Some((login.username.as_str(), login.password.as_str()));
    let pushed = built(scenario).push(registry, repository, tag, user).await;
    pushed.map_err(|source| PublishError {
        scenario: scenario.name.clone(),
        registry,
        source,
    })
}

fn built(scenario: &Scenario) -> Image {
    let guest = image::guest().cmd(["hello", &format!("hello from {}", scenario.name)]);
    if scenario.published != Published::OtherPlatform {
        return guest.build();
    }
    let other = if cfg!(target_arch = "x86_64") {
        "arm64"
    } else {
        "amd64"
    };
    let image = guest.platform(Platform::linux(other)).build();
    image::Index::new().image(image).build()
}
