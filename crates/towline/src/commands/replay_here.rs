//! `towline replay-here`: one pull replayed on the machine that this runs on, its report printed. What `why --from-node NODE --with-pod
//! IMAGE` runs in its pod, with the pull secrets mounted as files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use towline_distribution::{Client, Options};
use towline_keyring::{Keyring, Source, secret};
use towline_oci::{Platform, Reference};
use towline_probe::Request;

use crate::exit::{OK, Usage};
use crate::output;

/// The most bytes of a secret that are read: as many as the API server keeps.
const MAX_SECRET: u64 = 1 << 20;

/// Replay one pull from this machine and print the report as JSON
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The image
    #[arg(long)]
    image: String,
    /// Platform to pull for
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// A pull secret as a folder of its files, in the order in which they are tried; repeatable
    #[arg(long, value_name = "NAMESPACE/NAME=DIR")]
    secret: Vec<String>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut request = Request::new(args.image.as_str());
    if let Some(text) = &args.platform {
        request.platform = Platform::parse(text)
            .ok_or_else(|| anyhow::Error::new(Usage(format!("{text:?} is not os/architecture"))))?;
    }
    if let Ok(image) = Reference::parse(&args.image) {
        let mut ring = Keyring::new();
        for secret in &args.secret {
            add(&mut ring, secret)?;
        }
        request.candidates = ring.lookup(&image);
    }
    let client = Client::new(Options::default()).context("make the registry client")?;
    let report = towline_probe::run(&client, request).await;
    let answer = serde_json::json!({
        "apiVersion": "towline.dev/v1", "kind": "NodeReplay", "report": report,
    });
    output::line(answer.to_string())?;
    Ok(ExitCode::from(OK))
}

/// Takes the logins of one secret. One that holds none that can be read is left out: the answer says so from the API's side.
fn add(ring: &mut Keyring, written: &str) -> anyhow::Result<()> {
    let parts = written.split_once('=');
    let parts = parts.and_then(|(name, folder)| Some((name.split_once('/')?, folder)));
    let Some(((namespace, name), folder)) = parts else {
        let words = format!("{written:?} is not NAMESPACE/NAME=DIR");
        return Err(anyhow::Error::new(Usage(words)));
    };
    for (kind, key) in [
        ("kubernetes.io/dockerconfigjson", ".dockerconfigjson"),
        ("kubernetes.io/dockercfg", ".dockercfg"),
    ] {
        let file = PathBuf::from(folder).join(key);
        let Ok(bytes) = towline_sys::fs::read_bounded(&file, MAX_SECRET) else {
            continue;
        };
        let data = BTreeMap::from([(key.to_owned(), bytes)]);
        if let Ok(keys) = secret::decode(kind, &data) {
            let source = Source::PodSecret {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            ring.add(&keys, &source);
        }
    }
    Ok(())
}
