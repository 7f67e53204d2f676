//! A pull by the node that runs: over CRI, as its kubelet would ask.

use std::time::Duration;

use tokio::sync::watch;
use towline_cause::{Cause, suffix};
use towline_cri::v1;
use towline_images::{LayerPhase, Phase, Plan, Progress, PullRequest};
use towline_keyring::Credential;
use towline_runtime::control::{Answer, ControlError, Login, Question};

use super::{Args, Pulled};
use crate::commands::store::Owner;
use crate::exit::Usage;

/// How often it is asked how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// A node pulls for its own platform, with the name servers and authorities that it was told. What only the environment says is meant for
/// whoever pulls; here that is the node.
pub(super) fn refuse_what_it_decides(args: &Args, owner: &Owner) -> anyhow::Result<()> {
    let registry = &args.registry;
    let mut node_has = vec![
        ("--ca", !registry.ca.is_empty()),
        ("--resolver", !registry.resolver.is_empty()),
        ("--hosts-dir", registry.mirrors.gives_hosts_dir()),
        (
            "--registries-conf",
            registry.mirrors.gives_registries_conf(),
        ),
        ("--ceiling", args.ceilings.is_given()),
    ];
    node_has.extend(registry.way.given());
    node_has.extend(args.spools.given());
    let node_lacks = [
        ("--platform", args.platform.is_some()),
        ("--plain-http", registry.plain_http),
        // Of a pull that is not done it is but a figure to count with.
        ("--limit-rate", args.limit_rate.is_some() && !args.dry_run),
        ("--min-rate", args.min_rate.is_some()),
        ("--connections", args.connections.is_some()),
    ];
    let given = |options: &[(&'static str, bool)]| {
        let found = options.iter().find(|(_, given)| *given);
        found.map(|(option, _)| *option)
    };
    let name = &owner.name;
    let advice = match (given(&node_has), given(&node_lacks)) {
        (Some(option), _) => format!(
            "{option} is decided by {name}, which pulls here: give it to `towline up` (or `towline runtime`), or pull into another --data-dir"
        ),
        (None, Some(option)) => format!(
            "{name} pulls here, and takes no {option}: pull into another --data-dir, or stop it first"
        ),
        (None, None) => return Ok(()),
    };
    Err(anyhow::Error::new(Usage(advice)))
}

/// Asks the owner's runtime for an image, and tells `progress` how far it is.
pub(super) async fn pull(
    owner: &Owner,
    name: &str,
    request: PullRequest,
    progress: watch::Sender<Progress>,
) -> Pulled {
    let pulling = asked(owner, name, &request.credential);
    let image = request.image.with_default_tag().to_string();
    let pulled = tokio::select! {
        pulled = pulling => pulled,
        never = follow(owner, &image, &progress) => match never {},
    };
    if pulled.id.is_some() {
        progress.send_modify(|progress| {
            progress.phase = Phase::Done;
            for layer in &mut progress.layers {
                layer.phase = LayerPhase::Done;
                layer.bytes = layer.total;
            }
        });
    }
    pulled
}

/// Passes on how far the pull of an image is, as long as it is asked; never ends. An owner of an earlier version, or a foreign runtime, does
/// not tell.
async fn follow(
    owner: &Owner,
    image: &str,
    progress: &watch::Sender<Progress>,
) -> std::convert::Infallible {
    while let Ok(Answer::Running(running)) = owner.ask(&Question::Running).await {
        let found = running.into_iter().find(|(name, _)| name == image);
        if let Some((_, now)) = found {
            progress.send_if_modified(|before| {
                let moved = *before != now;
                *before = now;
                moved
            });
        }
        tokio::time::sleep(LOOK).await;
    }
    std::future::pending().await
}

async fn asked(owner: &Owner, name: &str, credential: &Credential) -> Pulled {
    let endpoint = format!("unix://{}", owner.cri.display());
    let channel = match towline_cri::client::connect(&endpoint).await {
        Ok(channel) => channel,
        Err(error) => {
            let error = anyhow::Error::new(error);
            let words = format!("{} does not answer at {endpoint}: {error:#}", owner.name);
            return Pulled::failed(name, Cause::RuntimeUnavailable, None, words);
        }
    };
    let mut client = v1::image_service_client::ImageServiceClient::new(channel);
    let request = v1::PullImageRequest {
        image: Some(v1::ImageSpec {
            image: name.to_owned(),
            ..v1::ImageSpec::default()
        }),
        auth: as_auth(credential.clone()),
        sandbox_config: None,
    };
    match client.pull_image(request).await {
        Ok(answer) => {
            let id = answer.into_inner().image_ref;
            let request = v1::ImageStatusRequest {
                image: Some(v1::ImageSpec {
                    image: id.clone(),
                    ..v1::ImageSpec::default()
                }),
                verbose: false,
            };
            let status = client.image_status(request).await.ok();
            let image = status.and_then(|status| status.into_inner().image);
            Pulled::well(name, id, image.map_or(0, |image| image.size))
        }
        Err(status) => {
            let details = towline_cri::error::read(&status);
            let cause = details
                .as_ref()
                .map_or(Cause::Unknown, |details| details.cause.cause());
            let step = details.and_then(|details| details.step);
            // The suffix is for programs.
            Pulled::failed(name, cause, step, suffix::without(status.message()))
        }
    }
}

/// What a pull would do, as the owner sees it.
pub(super) async fn plan(
    owner: &Owner,
    name: &str,
    credential: &Credential,
) -> Result<Plan, Pulled> {
    let question = Question::Plan(name.to_owned(), Login::of(credential));
    match owner.ask(&question).await {
        Ok(Answer::Plan(plan)) => Ok(plan),
        Ok(_) => Err(Pulled::failed(
            name,
            Cause::RuntimeUnavailable,
            None,
            format!("{} answers something else than was asked", owner.name),
        )),
        Err(ControlError::Store { words, cause, step }) => {
            Err(Pulled::failed(name, cause, step, words))
        }
        Err(error) => {
            let words = format!("{}: {:#}", owner.name, anyhow::Error::new(error));
            Err(Pulled::failed(name, Cause::RuntimeUnavailable, None, words))
        }
    }
}

/// The login for an image as the node's runtime takes it.
pub(crate) async fn auth(
    registry: &crate::registry_client::RegistryArgs,
    name: &str,
) -> anyhow::Result<Option<v1::AuthConfig>> {
    let candidates = registry.candidates(name, &registry.client()?).await?;
    let candidate = candidates.into_iter().next();
    Ok(candidate.and_then(|candidate| as_auth(candidate.credential)))
}

/// A login as CRI has it.
fn as_auth(credential: Credential) -> Option<v1::AuthConfig> {
    match credential {
        Credential::Basic { username, password } => Some(v1::AuthConfig {
            username,
            password: password.expose().to_owned(),
            ..v1::AuthConfig::default()
        }),
        Credential::IdentityToken(token) => Some(v1::AuthConfig {
            identity_token: token.expose().to_owned(),
            ..v1::AuthConfig::default()
        }),
        Credential::RegistryToken(token) => Some(v1::AuthConfig {
            registry_token: token.expose().to_owned(),
            ..v1::AuthConfig::default()
        }),
        Credential::Anonymous => None,
    }
}
