//! `towline check`: would these manifests pull?

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use towline_cause::Cause;
use towline_check::Checked;
use towline_oci::Platform;

use crate::exit::{BROKEN, OK, UNDECIDED, Usage, hinted};
use crate::manifests;
use crate::output::{self, BAD, Format, GOOD, styled};
use crate::registry_client::RegistryArgs;

/// Say whether the images of manifests would pull, before a rollout
///
/// Each image is asked for once. Exit codes: 0 all pull, 1 some do not, 2 could not tell, 64 wrong command line.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Manifest files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Platform of the nodes [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let platform = match &args.platform {
        Some(text) => Platform::parse(text)
            .ok_or_else(|| anyhow::Error::new(Usage(format!("{text:?} is not os/architecture"))))?,
        None => Platform::host(),
    };
    let mut found = Vec::new();
    for file in &args.files {
        let place = file.display().to_string();
        let text = read(file).with_context(|| format!("read {place}"))?;
        found.extend(towline_check::images(&place, &text)?);
    }
    if found.is_empty() {
        return Err(hinted(
            "these files name no container image",
            "give the manifests of pods, deployments, ...",
        ));
    }
    let client = args.registry.client()?;
    let mut known = BTreeMap::new();
    for found in &found {
        if !known.contains_key(&found.image) {
            let candidates = args.registry.candidates(&found.image, &client).await;
            let candidates = candidates.context("read the logins")?;
            known.insert(found.image.clone(), candidates);
        }
    }
    let logins = |image: &str| known.get(image).cloned().unwrap_or_default();
    let checked = towline_check::check(&client, found, &platform, logins).await;
    match args.output {
        Format::Text => checked.iter().try_for_each(print)?,
        format => output::document(format, &checked)?,
    }
    Ok(ExitCode::from(code(&checked)))
}

fn read(file: &std::path::Path) -> std::io::Result<String> {
    manifests::whole(std::fs::File::open(file)?)
}

fn print(checked: &Checked) -> std::io::Result<()> {
    let found = &checked.found;
    let place = format!("{}:{}", found.file, found.line);
    let Some(failed) = &checked.failure else {
        return output::line(format!(
            "{} {place}: {} {}",
            styled(GOOD, "\u{2713}"),
            found.object,
            found.image
        ));
    };
    output::line(format!(
        "{} {place}: {} {}",
        styled(BAD, "\u{2717}"),
        found.object,
        found.image
    ))?;
    output::line(format!(
        "    {}: {}",
        styled(BAD, &failed.cause),
        output::wrapped(&failed.detail, 80, 4)
    ))?;
    if !checked.tags_near.is_empty() {
        output::line(format!("    near: {}", checked.tags_near.join(", ")))?;
    }
    Ok(())
}

fn code(checked: &[Checked]) -> u8 {
    let causes: Vec<Cause> = checked.iter().filter_map(Checked::cause).collect();
    if causes.is_empty() {
        OK
    } else if causes.iter().all(|cause| *cause == Cause::Unknown) {
        UNDECIDED
    } else {
        BROKEN
    }
}
