//! A pull by the node that runs: over CRI, as its kubelet would ask.

use towline_cause::{Cause, suffix};
use towline_cri::v1;
use towline_keyring::Credential;
use towline_node::Facts;

use super::{Args, Pulled};
use crate::exit::Usage;

/// A node pulls for its own platform, with the name servers and authorities that it was told. What only the environment says is meant for
/// whoever pulls; here that is the node.
pub(super) fn refuse_what_it_decides(args: &Args) -> anyhow::Result<()> {
    let registry = &args.registry;
    let node_has = [
        ("--ca", !registry.ca.is_empty()),
        ("--resolver", !registry.resolver.is_empty()),
        ("--hosts-dir", registry.mirrors.gives_hosts_dir()),
        (
            "--registries-conf",
            registry.mirrors.gives_registries_conf(),
        ),
        ("--trust-realm or --registry-proxy", registry.way.is_given()),
        ("--ceiling", args.ceilings.is_given()),
        ("--spool-age and --spool-bytes", !args.spools.is_empty()),
    ];
    let node_lacks = [
        ("--platform", args.platform.is_some()),
        ("--plain-http", registry.plain_http),
        ("--dry-run", args.dry_run),
        ("--limit-rate", args.limit_rate.is_some()),
        ("--min-rate", args.min_rate.is_some()),
        ("--connections", args.connections.is_some()),
    ];
    let given = |options: &[(&'static str, bool)]| {
        let found = options.iter().find(|(_, given)| *given);
        found.map(|(option, _)| *option)
    };
    let advice = match (given(&node_has), given(&node_lacks)) {
        (Some(option), _) => format!(
            "{option} is the running node's to decide: give it to `towline up`, or pull into another --data-dir"
        ),
        (None, Some(option)) => format!(
            "the running node pulls here, and takes no {option}: pull into another --data-dir, or stop the node first"
        ),
        (None, None) => return Ok(()),
    };
    Err(anyhow::Error::new(Usage(advice)))
}

/// Asks the node's runtime for an image.
pub(super) async fn pull(facts: &Facts, name: &str, credential: &Credential) -> Pulled {
    let endpoint = format!("unix://{}", facts.cri.display());
    let channel = match towline_cri::client::connect(&endpoint).await {
        Ok(channel) => channel,
        Err(error) => {
            let words = format!(
                "the node {} does not answer at {endpoint}: {:#}",
                facts.node,
                anyhow::Error::new(error)
            );
            return Pulled::failed(name, Cause::RuntimeUnavailable, None, words);
        }
    };
    let mut client = v1::image_service_client::ImageServiceClient::new(channel);
    let spec = v1::ImageSpec {
        image: name.to_owned(),
        ..v1::ImageSpec::default()
    };
    let request = v1::PullImageRequest {
        image: Some(spec.clone()),
        auth: as_auth(credential.clone()),
        sandbox_config: None,
    };
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

/// The login for an image as the node's runtime takes it.
pub(crate) fn auth(
    registry: &crate::registry_client::RegistryArgs,
    name: &str,
) -> anyhow::Result<Option<v1::AuthConfig>> {
    let candidate = registry.candidates(name)?.into_iter().next();
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
