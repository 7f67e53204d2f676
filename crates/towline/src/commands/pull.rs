//! `towline pull`: pull and unpack images, on their own or through the node that runs.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::time::Instant;
use towline_images::{Image, Images, Progress, PullRequest};
use towline_keyring::Credential;
use towline_oci::{Platform, Reference};
use towline_sys::task;

use crate::exit::{BROKEN, OK, Usage, hinted};
use crate::output::{self, Format};
use crate::registry_client::RegistryArgs;

/// Progress appears only when a pull takes longer than this.
const SOON: Duration = Duration::from_millis(250);

/// Pull and unpack images
///
/// While a node runs on the data directory, its runtime does it, with the resolver and authorities that the node was told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Where images are kept
    #[arg(long, value_name = "DIR", default_value = crate::cli::DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// Platform to pull for [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

mod through_node;

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Pulled {
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<towline_cause::Cause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<towline_cause::Step>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let platform = match &args.platform {
        Some(text) => Platform::parse(text)
            .ok_or_else(|| anyhow::Error::new(Usage(format!("{text:?} is not os/architecture"))))?,
        None => Platform::host(),
    };
    let mut answers = Vec::new();
    if let Some(facts) = towline_node::Facts::read(&args.data_dir) {
        through_node::refuse_what_it_decides(&args)?;
        for name in &args.images {
            answers.push(through_node::pull(&facts, &args, name).await?);
        }
    } else {
        let images = open(&args.data_dir, args.registry.client()?, platform)?;
        for name in &args.images {
            answers.push(pull(&images, &args, name).await?);
        }
    }
    let failed = answers.iter().any(|pulled| pulled.cause.is_some());
    if args.output != Format::Text {
        output::document(args.output, &answers)?;
    }
    Ok(ExitCode::from(if failed { BROKEN } else { OK }))
}

/// Opens the images of a data directory, unless its node runs.
pub(crate) fn open(
    data_dir: &Path,
    client: towline_distribution::Client,
    platform: Platform,
) -> anyhow::Result<Images> {
    if let Some(facts) = towline_node::Facts::read(data_dir) {
        return Err(hinted(
            format!(
                "the node {} (process {}) owns the images of {}",
                facts.node,
                facts.pid,
                data_dir.display()
            ),
            format!(
                "ask it: crictl --runtime-endpoint unix://{} pull IMAGE; or give another --data-dir",
                facts.cri.display()
            ),
        ));
    }
    let root = data_dir.join("runtime");
    std::fs::create_dir_all(&root).with_context(|| format!("make {}", root.display()))?;
    let options = towline_images::Options::new(root.join("images"), client, platform);
    Images::open(options).with_context(|| format!("open the images of {}", data_dir.display()))
}

async fn pull(images: &Images, args: &Args, name: &str) -> anyhow::Result<Pulled> {
    let mut pulled = Pulled {
        image: name.to_owned(),
        id: None,
        size: None,
        cause: None,
        step: None,
        error: None,
    };
    let reference = match Reference::parse(name) {
        Ok(reference) => reference,
        Err(error) => {
            pulled.cause = Some(towline_cause::Cause::InvalidReference);
            pulled.step = Some(towline_cause::Step::Reference);
            pulled.error = Some(error.to_string());
            say(
                args,
                &format!(
                    "{}: {error}",
                    pulled
                        .cause
                        .map(towline_cause::Cause::name)
                        .unwrap_or_default()
                ),
            );
            return Ok(pulled);
        }
    };
    let candidates = args.registry.candidates(name)?;
    let credential = candidates
        .into_iter()
        .next()
        .map_or(Credential::Anonymous, |candidate| candidate.credential);
    let mut request = PullRequest::new(reference, credential);
    let (sender, progress) = watch::channel(Progress::default());
    request.progress = Some(sender);
    let quiet = args.output != Format::Text || !std::io::stderr().is_terminal();
    let bar = task::spawn("progress", draw(name.to_owned(), progress, quiet));
    let started = Instant::now();
    let result = images.pull(request).await;
    bar.abort();
    // The line has to be gone before anything else is printed; that it was ended is what was wanted.
    drop(bar.await);
    match result {
        Ok(image) => done(args, name, &image, started.elapsed(), &mut pulled)?,
        Err(failure) => {
            pulled.cause = Some(failure.cause());
            pulled.step = Some(failure.step());
            pulled.error = Some(failure.chain());
            say(
                args,
                &format!("{name}: {} ({})", failure.chain(), failure.cause()),
            );
            say(
                args,
                &format!(
                    "hint: {}; `towline why {name}` shows each step",
                    failure.cause().fix()
                ),
            );
        }
    }
    Ok(pulled)
}

fn say(args: &Args, text: &str) {
    if args.output == Format::Text {
        output::note(text);
    }
}

fn done(
    args: &Args,
    name: &str,
    image: &Image,
    took: Duration,
    pulled: &mut Pulled,
) -> anyhow::Result<()> {
    pulled.id = Some(image.id.to_string());
    pulled.size = Some(image.size);
    if args.output == Format::Text {
        output::line(format!(
            "{name} {} {} bytes in {:.1} s",
            image.id,
            image.size,
            took.as_secs_f64()
        ))?;
    }
    Ok(())
}

/// Draws one line a pull, a few times a second; it is wiped when this ends or is ended.
async fn draw(name: String, progress: watch::Receiver<Progress>, quiet: bool) {
    struct Wiped;
    impl Drop for Wiped {
        fn drop(&mut self) {
            output::redraw("");
        }
    }
    if quiet {
        return;
    }
    tokio::time::sleep(SOON).await;
    let _wiped = Wiped;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tick.tick().await;
        if progress.has_changed().is_err() {
            return;
        }
        let (bytes, total) = progress.borrow().bytes();
        let percent = (bytes * 100).checked_div(total).unwrap_or(0);
        output::redraw(&format!("{name} {percent}% of {total} bytes"));
    }
}
