//! `towline pull`: pull and unpack images, on their own or through the node that runs.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use tokio::time::Instant;
use towline_distribution::Client;
use towline_images::{Image, Images, PullRequest};
use towline_keyring::Credential;
use towline_oci::{Platform, Reference};

use crate::ceilings::CeilingArgs;
use crate::exit::{BROKEN, OK, Usage, hinted};
use crate::output::{self, Format};
use crate::registry_client::RegistryArgs;
use progress::Shown;

/// Images that are pulled at the same time.
const AT_ONCE: usize = 3;

/// Pull and unpack images
///
/// While a node runs on the data directory, its runtime does it, with the resolver and authorities that the node was told.
///
/// What was cut short goes on where it ended, also after a kill. A large layer comes over several connections where they bring more.
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
    /// How to answer: `json` tells what happens as it happens, one object a line, and ends each image with an event `ended`; `yaml` answers
    /// at the end
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// Only tell what would be done: sizes, layers that are here, bytes to download
    #[arg(long)]
    dry_run: bool,
    /// Bytes a second that all downloads together take at most, as 5M or 800K
    #[arg(long, value_name = "BYTES", value_parser = rate)]
    limit_rate: Option<NonZeroU64>,
    /// Bytes a second that a connection has to bring, on average over 30 s; else another one is tried, and after four in a row the pull
    /// fails. 0 waits as long as any byte comes [default: 1KiB]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    min_rate: Option<u64>,
    /// Connections over which one large layer comes at the same time, at most [default: 4]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=16))]
    connections: Option<u8>,
    #[command(flatten)]
    ceilings: CeilingArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

mod plan;
mod progress;
pub(crate) mod through_node;

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
            let pulled = through_node::pull(&facts, &args, name).await?;
            ended(&args, &pulled)?;
            answers.push(pulled);
        }
    } else {
        let images = open_for(&args, platform)?;
        if args.dry_run {
            return plan::run(&images, &args).await;
        }
        let shown = Shown::start(&args);
        let pulls = args.images.iter();
        let pulls = pulls.map(|name| pull(&images, &args, name, &shown));
        let mut running = futures::stream::iter(pulls).buffered(AT_ONCE);
        while let Some(pulled) = running.next().await {
            let pulled = pulled?;
            ended(&args, &pulled)?;
            answers.push(pulled);
        }
    }
    let failed = answers.iter().any(|pulled| pulled.cause.is_some());
    if args.output == Format::Yaml {
        output::document(args.output, &answers)?;
    }
    Ok(ExitCode::from(if failed { BROKEN } else { OK }))
}

/// Tells of the end of a pull whoever follows events.
fn ended(args: &Args, pulled: &Pulled) -> anyhow::Result<()> {
    if args.output == Format::Json {
        progress::event(&pulled.image, "ended", serde_json::to_value(pulled)?);
    }
    Ok(())
}

/// Opens the images of a data directory, unless its node runs.
pub(crate) fn open(data_dir: &Path, client: Client, platform: Platform) -> anyhow::Result<Images> {
    refuse_beside_a_node(data_dir)?;
    let options = options(data_dir, client, platform)?;
    Images::open(options).with_context(|| format!("open the images of {}", data_dir.display()))
}

/// Opens the images as a pull was told.
fn open_for(args: &Args, platform: Platform) -> anyhow::Result<Images> {
    let mut client = args.registry.options()?;
    if let Some(rate) = args.min_rate {
        client.pace.least = rate;
    }
    let client = Client::new(client).context("make the registry client")?;
    let mut options = options(&args.data_dir, client, platform)?;
    options.rate = args.limit_rate;
    options.ceilings = args.ceilings.ceilings()?;
    if let Some(connections) = args.connections {
        options.connections_per_layer = connections.into();
    }
    Images::open(options).with_context(|| format!("open the images of {}", args.data_dir.display()))
}

fn refuse_beside_a_node(data_dir: &Path) -> anyhow::Result<()> {
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
    Ok(())
}

fn options(
    data_dir: &Path,
    client: Client,
    platform: Platform,
) -> anyhow::Result<towline_images::Options> {
    let root = data_dir.join("runtime");
    std::fs::create_dir_all(&root).with_context(|| format!("make {}", root.display()))?;
    Ok(towline_images::Options::new(
        root.join("images"),
        client,
        platform,
    ))
}

/// The request for an image as the command line has it; or why it names none.
fn request(
    args: &Args,
    name: &str,
) -> anyhow::Result<Result<PullRequest, towline_oci::ReferenceError>> {
    let reference = match Reference::parse(name) {
        Ok(reference) => reference,
        Err(error) => return Ok(Err(error)),
    };
    let candidate = args.registry.candidates(name)?.into_iter().next();
    let credential = candidate.map_or(Credential::Anonymous, |candidate| candidate.credential);
    Ok(Ok(PullRequest::new(reference, credential)))
}

async fn pull(images: &Images, args: &Args, name: &str, shown: &Shown) -> anyhow::Result<Pulled> {
    let mut pulled = Pulled {
        image: name.to_owned(),
        id: None,
        size: None,
        cause: None,
        step: None,
        error: None,
    };
    let mut request = match request(args, name)? {
        Ok(request) => request,
        Err(error) => {
            let cause = towline_cause::Cause::InvalidReference;
            say(args, &format!("{}: {error}", cause.name()));
            pulled.cause = Some(cause);
            pulled.step = Some(towline_cause::Step::Reference);
            pulled.error = Some(error.to_string());
            return Ok(pulled);
        }
    };
    request.progress = Some(shown.add(name));
    let started = Instant::now();
    let result = images.pull(request).await;
    shown.remove(name);
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
            "{name} {} {} in {:.1} s",
            image.id,
            output::size(image.size),
            took.as_secs_f64()
        ))?;
    }
    Ok(())
}

/// Reads a number of bytes that is not 0.
fn rate(text: &str) -> Result<NonZeroU64, String> {
    NonZeroU64::new(bytes(text)?).ok_or_else(|| "nothing would ever come at 0".to_owned())
}

/// Reads a number of bytes with an optional unit.
fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no number of bytes like 5M, 800K, 20MiB or 1000000");
    let upper = text.to_ascii_uppercase();
    let upper = upper.strip_suffix('B').unwrap_or(&upper);
    let (upper, base) = match upper.strip_suffix('I') {
        Some(rest) => (rest, 1024),
        None => (upper, 1000_u64),
    };
    let digits = upper.trim_end_matches(['K', 'M', 'G']);
    let unit = match &upper[digits.len()..] {
        "" if base == 1000 => 1,
        "K" => base,
        "M" => base.pow(2),
        "G" => base.pow(3),
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units() {
        for (text, want) in [
            ("5M", Some(5_000_000)),
            ("800k", Some(800_000)),
            ("20MiB", Some(20 << 20)),
            ("1GB", Some(1_000_000_000)),
            ("5KM", None),
            ("5I", None),
            ("17", Some(17)),
            ("0", None),
            ("M", None),
            ("5MM", None),
            ("-1", None),
            ("99999999999999999999G", None),
        ] {
            assert_eq!(rate(text).ok().map(NonZeroU64::get), want, "{text}");
        }
    }
}
