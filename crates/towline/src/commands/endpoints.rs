//! `towline endpoints`: where an image would be asked for, in which order, and why.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use towline_distribution::{Plan, PlannedEndpoint};
use towline_oci::Reference;

use crate::exit::{OK, Usage, hinted};
use crate::output::{self, BOLD, DIM, Format, styled};
use crate::registry_client::RegistryArgs;

/// Print where an image would be asked for, in which order, and why: mirrors, upstream, proxies
///
/// Reads the mirrors' configuration as a pull does and asks nobody. Without --hosts-dir and --registries-conf it speaks of what the
/// node was told that runs on this machine.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The image
    image: String,
    /// Data directory of the node whose mirrors are meant
    #[arg(long, value_name = "DIR", default_value = crate::cli::DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// How to print the plan
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let reference = Reference::parse(&args.image)
        .map_err(|error| anyhow::Error::new(Usage(error.to_string())))?;
    let registry = args
        .registry
        .clone()
        .beside(&args.data_dir.join("kubeconfig"));
    let plan = registry.client()?.plan(&reference).map_err(|error| {
        hinted(
            error.to_string(),
            format!(
                "a pull would fail with {}: {}",
                error.cause(),
                error.cause().fix()
            ),
        )
    })?;
    if args.output != Format::Text {
        output::document(args.output, &plan)?;
        return Ok(ExitCode::from(OK));
    }
    output::line(text(&plan)).context("print the plan")?;
    Ok(ExitCode::from(OK))
}

fn text(plan: &Plan) -> String {
    let mut text = vec![plan.image.clone()];
    for (at, endpoint) in plan.endpoints.iter().enumerate() {
        let kind = if endpoint.mirror {
            "mirror"
        } else {
            "upstream"
        };
        let url = styled(BOLD, &endpoint.url);
        text.push(format!("  {}. {url} {}", at + 1, styled(DIM, kind)));
        text.extend(lines(endpoint).iter().map(|line| format!("     {line}")));
    }
    let skipped = plan.skipped.iter();
    text.extend(skipped.map(|one| format!("  -  {} is not asked: {}", one.url, one.why)));
    text.join("\n")
}

fn lines(endpoint: &PlannedEndpoint) -> Vec<String> {
    let mut lines = vec![endpoint.why.clone(), format!("GET {}", endpoint.manifest)];
    if !endpoint.resolves_tags {
        lines.push("not asked for tags, only for digests".to_owned());
    }
    if !endpoint.login {
        lines.push("the image's login is not sent there".to_owned());
    }
    if let Some(login) = &endpoint.own_login {
        lines.push(format!(
            "asked as {login}: a login is stored for this place"
        ));
    }
    if endpoint.skip_verify {
        lines.push("any certificate is taken".to_owned());
    }
    if endpoint.authorities > 0 {
        lines.push(format!(
            "{} certificate authorities besides the system's",
            endpoint.authorities
        ));
    }
    if endpoint.client_certificate {
        lines.push("with a client certificate".to_owned());
    }
    if !endpoint.headers.is_empty() {
        lines.push(format!("with headers {}", endpoint.headers.join(", ")));
    }
    if let Some(millis) = endpoint.dial_timeout_millis {
        lines.push(format!("a connection may take {millis} ms to open"));
    }
    if let Some(proxy) = &endpoint.proxy {
        lines.push(format!("through the proxy {proxy}"));
    }
    lines.extend(endpoint.notes.iter().map(|note| format!("note: {note}")));
    lines
}
