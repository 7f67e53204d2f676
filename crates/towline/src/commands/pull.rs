//! `towline pull`: pull and unpack images, on their own or through the node that runs.

use std::num::NonZeroU64;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use tokio::time::Instant;
use towline_cause::{Cause, Failure, Step};
use towline_distribution::Client;
use towline_images::{Ceilings, Images};
use towline_oci::Platform;

use super::store::{Owner, Started, StoreArgs};
use super::{Signal, Told};
use crate::ceilings::CeilingArgs;
use crate::exit::{BROKEN, OK, Usage};
use crate::output::{self, Format};
use crate::registry_client::RegistryArgs;
use crate::spools::SpoolArgs;
use advice::Asking;
use asked::Asked;
use progress::Shown;

/// Images that are pulled at the same time.
const AT_ONCE: usize = 3;

/// Pull and unpack images
///
/// While a node (or `towline runtime`) runs on the data directory, its runtime does it, with the resolver and authorities that it was told;
/// while another pull or command is at it, this one waits.
///
/// What was cut short goes on where it ended, also after a kill. A large layer comes over several connections where they bring more.
///
/// A number of bytes is written as 1000000, 800K, 5M or 2G (thousands here; KiB, MiB, GiB are 1024s).
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// Platform to pull for [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// How to answer: `json` tells what happens as it happens, one object a line, and ends each image with an event `ended`; `yaml` answers
    /// at the end
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// Only tell what would be done: sizes, layers that are here, bytes to download, and the time at --limit-rate; writes nothing
    #[arg(long)]
    dry_run: bool,
    /// Bytes a second that all downloads together take at most, as 5M or 800K (5,000,000 and 800,000)
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
    spools: SpoolArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

mod advice;
mod asked;
mod plan;
mod progress;
pub(crate) mod through_node;

/// What became of an image.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Pulled {
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Cause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<Step>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The signal that ended this program before the pull.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<&'static str>,
    #[serde(skip)]
    took: Duration,
}

impl Pulled {
    fn well(image: &str, id: String, size: u64) -> Self {
        Self {
            id: Some(id),
            size: Some(size),
            ..Self::nothing(image)
        }
    }

    fn failed(image: &str, cause: Cause, step: Option<Step>, error: String) -> Self {
        Self {
            cause: Some(cause),
            step,
            error: Some(error),
            ..Self::nothing(image)
        }
    }

    fn of(image: &str, failure: &Failure) -> Self {
        Self::failed(
            image,
            failure.cause(),
            Some(failure.step()),
            failure.chain(),
        )
    }

    fn stopped(image: &str, signal: Signal) -> Self {
        let words = format!(
            "stopped by {}; what came is kept for the next pull",
            signal.name
        );
        Self {
            error: Some(words),
            stopped: Some(signal.name),
            ..Self::nothing(image)
        }
    }

    fn nothing(image: &str) -> Self {
        Self {
            image: image.to_owned(),
            id: None,
            size: None,
            cause: None,
            step: None,
            error: None,
            stopped: None,
            took: Duration::ZERO,
        }
    }
}

/// Who pulls.
enum Puller {
    /// This process, which owns the store.
    Own(Images, Client),
    /// The node or the runtime that owns it.
    Node(Owner),
}

/// What all images of a command share.
struct Pulling<'a> {
    args: &'a Args,
    asked: &'a Asked,
    puller: Puller,
    shown: Shown,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let platform = match &args.platform {
        Some(text) => Platform::parse(text)
            .ok_or_else(|| anyhow::Error::new(Usage(format!("{text:?} is not os/architecture"))))?,
        None => Platform::host(),
    };
    let asked = Asked::new(&args.registry)?;
    loop {
        match pull_or_plan(&args, &asked, platform.clone()).await {
            // It is asked, as one that ran before.
            Err(error) if error.is::<Started>() => {}
            ended => return ended,
        }
    }
}

/// Pulls, or tells what a pull would do: by the node or the runtime that owns the images, or here.
async fn pull_or_plan(args: &Args, asked: &Asked, platform: Platform) -> anyhow::Result<ExitCode> {
    let owner = args.store.owner().await;
    if let Some(owner) = &owner {
        through_node::refuse_what_it_decides(args, owner)?;
    }
    if args.dry_run {
        return plan::run(args, asked, owner.as_ref(), platform).await;
    }
    let (puller, _answering) = if let Some(owner) = owner {
        (Puller::Node(owner), None)
    } else {
        let ceilings = args.ceilings.ceilings()?;
        let client = client(args, asked)?;
        let images = open(args, ceilings, client.clone(), platform).await?;
        let answering = args.store.answer_others(&images);
        (Puller::Own(images, client), Some(answering))
    };
    let shown = Shown::start(args.output);
    let pulling = Pulling {
        args,
        asked,
        puller,
        shown,
    };
    pulling.all().await
}

/// Opens the images as this pull was told.
async fn open(
    args: &Args,
    ceilings: Ceilings,
    client: Client,
    platform: Platform,
) -> anyhow::Result<Images> {
    let change = |options: &mut towline_images::Options| {
        options.rate = args.limit_rate;
        options.ceilings = ceilings;
        options.store = args.spools.rules();
        options.keep_blobs = args.spools.keep_blobs();
        if let Some(connections) = args.connections {
            options.connections_per_layer = connections.into();
        }
    };
    args.store.open(client, platform, change).await
}

fn client(args: &Args, asked: &Asked) -> anyhow::Result<Client> {
    let mut options = args.registry.options_without_logins()?;
    options.mirror_logins = asked.of_mirrors();
    if let Some(rate) = args.min_rate {
        options.pace.least = rate;
    }
    Client::new(options).context("make the registry client")
}

impl Pulling<'_> {
    /// Pulls every image, several at a time; each one's end is told when it happens.
    async fn all(self) -> anyhow::Result<ExitCode> {
        let mut signals = Told::listen()?;
        let names = &self.args.images;
        let this = &self;
        let pulls = names.iter().enumerate();
        let pulls = pulls.map(|(at, name)| async move { (at, this.pull(name).await) });
        let mut running = futures::stream::iter(pulls).buffer_unordered(AT_ONCE);
        let mut answers: Vec<Option<Pulled>> = names.iter().map(|_| None).collect();
        let stopped = loop {
            tokio::select! {
                pulled = running.next() => match pulled {
                    Some((at, pulled)) => {
                        self.tell_end(&pulled)?;
                        answers[at] = Some(pulled);
                    }
                    None => break None,
                },
                signal = signals.wait() => break Some(signal),
            }
        };
        drop(running);
        if let Some(signal) = stopped {
            self.stop(&mut answers, signal, &mut signals).await?;
        }
        let answers: Vec<Pulled> = answers.into_iter().flatten().collect();
        if self.args.output == Format::Yaml {
            output::document(self.args.output, &answers).or_else(output::unless_gone)?;
        }
        let failed = answers.iter().any(|pulled| pulled.cause.is_some());
        Ok(ExitCode::from(match (stopped, failed) {
            (Some(signal), _) => signal.code,
            (None, true) => BROKEN,
            (None, false) => OK,
        }))
    }

    async fn pull(&self, name: &str) -> Pulled {
        let started = Instant::now();
        let (client, node) = match &self.puller {
            Puller::Own(_, client) => (Some(client), None),
            Puller::Node(owner) => (None, Some(owner.name.as_str())),
        };
        let progress = self.shown.add(name, node);
        let pulled = match self.asked.request(name, client).await {
            Err(failure) => Pulled::of(name, &failure),
            Ok(mut request) => match &self.puller {
                Puller::Node(owner) => through_node::pull(owner, name, request, progress).await,
                Puller::Own(images, _) => {
                    request.progress = Some(progress);
                    match images.pull(request).await {
                        Ok(image) => Pulled::well(name, image.id.to_string(), image.size),
                        Err(failure) => Pulled::of(name, &failure),
                    }
                }
            },
        };
        self.shown.end(name);
        Pulled {
            took: started.elapsed(),
            ..pulled
        }
    }

    /// Stops what runs, and says what became of it.
    async fn stop(
        &self,
        answers: &mut [Option<Pulled>],
        signal: Signal,
        signals: &mut Told,
    ) -> anyhow::Result<()> {
        if let Puller::Own(images, _) = &self.puller {
            // A second signal does not wait for what is being written.
            tokio::select! {
                () = images.stop() => {}
                _ = signals.wait() => {}
            }
        }
        for (name, answer) in self.args.images.iter().zip(answers) {
            if answer.is_none() {
                let pulled = Pulled::stopped(name, signal);
                self.tell_end(&pulled)?;
                *answer = Some(pulled);
            }
        }
        Ok(())
    }

    /// Says what became of an image, to people or to whoever follows events.
    fn tell_end(&self, pulled: &Pulled) -> anyhow::Result<()> {
        match self.args.output {
            Format::Json => {
                progress::event(&pulled.image, "ended", serde_json::to_value(pulled)?);
            }
            Format::Text => {
                let by_node = matches!(self.puller, Puller::Node(_));
                self.shown.aside(|| say(pulled, self.args.asking(by_node)));
            }
            Format::Yaml => {}
        }
        Ok(())
    }
}

impl Args {
    fn asking(&self, by_node: bool) -> Asking<'_> {
        Asking {
            registry: &self.registry,
            platform: self.platform.as_deref(),
            by_node,
        }
    }
}

/// One image's end for people.
fn say(pulled: &Pulled, asking: Asking<'_>) {
    let name = &pulled.image;
    let Some(error) = &pulled.error else {
        output::told(format!(
            "{name} {} {} in {:.1} s",
            pulled.id.as_deref().unwrap_or_default(),
            output::size(pulled.size.unwrap_or(0)),
            pulled.took.as_secs_f64()
        ));
        return;
    };
    let Some(cause) = pulled.cause else {
        return output::note(format!("{name}: {error}"));
    };
    output::note(format!("{name}: {error} ({cause})"));
    output::note(format!("hint: {}", advice::of(cause, name, asking)));
}

/// Reads a number of bytes that is not 0.
fn rate(text: &str) -> Result<NonZeroU64, String> {
    NonZeroU64::new(bytes(text)?).ok_or_else(|| "nothing would ever come at 0".to_owned())
}

/// Reads a number of bytes with an optional unit.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
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
