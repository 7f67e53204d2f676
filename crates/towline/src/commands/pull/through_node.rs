//! A pull by the node that runs: over CRI, as its kubelet would ask.

use anyhow::Context as _;
use tokio::time::Instant;
use towline_cri::v1;
use towline_keyring::Credential;
use towline_node::Facts;

use super::{Args, Pulled, say};
use crate::exit::Usage;
use crate::output::{self, Format};

/// A node pulls for its own platform, with the name servers and authorities that it was told.
pub(super) fn refuse_what_it_decides(args: &Args) -> anyhow::Result<()> {
    let registry = &args.registry;
    let given = [
        ("--platform", args.platform.is_some()),
        ("--plain-http", registry.plain_http),
        ("--ca", !registry.ca.is_empty()),
        ("--resolver", !registry.resolver.is_empty()),
        ("--hosts-dir", !registry.mirrors.hosts_dir.is_empty()),
        (
            "--registries-conf",
            registry.mirrors.registries_conf.is_some(),
        ),
        ("--dry-run", args.dry_run),
        ("--limit-rate", args.limit_rate.is_some()),
        ("--min-rate", args.min_rate.is_some()),
        ("--connections", args.connections.is_some()),
        ("--ceiling", !args.ceilings.is_empty()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((option, _)) => Err(anyhow::Error::new(Usage(format!(
            "{option} is the running node's to decide: give it to `towline up`, or pull into another --data-dir"
        )))),
    }
}

/// Asks the node's runtime for an image.
pub(super) async fn pull(facts: &Facts, args: &Args, name: &str) -> anyhow::Result<Pulled> {
    let mut pulled = Pulled {
        image: name.to_owned(),
        id: None,
        size: None,
        cause: None,
        step: None,
        error: None,
    };
    let endpoint = format!("unix://{}", facts.cri.display());
    let channel = towline_cri::client::connect(&endpoint)
        .await
        .context("reach the node's runtime")?;
    let mut client = v1::image_service_client::ImageServiceClient::new(channel);
    let spec = v1::ImageSpec {
        image: name.to_owned(),
        ..v1::ImageSpec::default()
    };
    let request = v1::PullImageRequest {
        image: Some(spec.clone()),
        auth: auth(&args.registry, name)?,
        sandbox_config: None,
    };
    let started = Instant::now();
    match client.pull_image(request).await {
        Ok(answer) => {
            let id = answer.into_inner().image_ref;
            let status = client
                .image_status(v1::ImageStatusRequest {
                    image: Some(spec),
                    verbose: false,
                })
                .await;
            let image = status.ok().and_then(|status| status.into_inner().image);
            pulled.size = image.map(|image| image.size);
            if args.output == Format::Text {
                output::line(format!(
                    "{name} {id} {} in {:.1} s",
                    output::size(pulled.size.unwrap_or(0)),
                    started.elapsed().as_secs_f64()
                ))?;
            }
            pulled.id = Some(id);
        }
        Err(status) => {
            let details = towline_cri::error::read(&status);
            let cause = details
                .as_ref()
                .map_or(towline_cause::Cause::Unknown, |details| {
                    details.cause.cause()
                });
            pulled.cause = Some(cause);
            pulled.step = details.and_then(|details| details.step);
            pulled.error = Some(status.message().to_owned());
            say(args, status.message());
            say(
                args,
                &format!(
                    "hint: {}; `towline why {name}` shows each step",
                    cause.fix()
                ),
            );
        }
    }
    Ok(pulled)
}

/// The login for an image as the node's runtime takes it.
pub(crate) fn auth(
    registry: &crate::registry_client::RegistryArgs,
    name: &str,
) -> anyhow::Result<Option<v1::AuthConfig>> {
    let candidate = registry.candidates(name)?.into_iter().next();
    Ok(candidate.and_then(|candidate| match candidate.credential {
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
    }))
}
