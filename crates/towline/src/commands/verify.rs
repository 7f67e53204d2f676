//! `towline verify`: whether what is on the disk is what was pulled.

use std::process::ExitCode;

use anyhow::Context as _;
use towline_cri::v1;
use towline_images::{Damage, PullRequest};
use towline_keyring::Credential;
use towline_oci::{Platform, Reference};
use towline_runtime::control::{Answer, Inspected, Question};

use super::store::{self, Owner, Started, StoreArgs};
use crate::exit::{BROKEN, OK};
use crate::output::{self, Format};
use crate::registry_client::RegistryArgs;

/// Compare everything in the image store with its digests and lists; with --repair fetch again what is damaged; through the node while that runs
///
/// A repair takes nothing away before something right is in its place: what cannot be fetched stays as it is. Where compressed layers were kept
/// (`--keep-blobs`) and are right, they are unpacked again and no registry is asked.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Unpack again what is damaged or missing, from kept compressed layers, else from the registry that the image came from
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    store: StoreArgs,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    images: u64,
    damage: Vec<Damage>,
    /// Lists, files and directories that could not be compared.
    uncompared: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_after_repair: Option<Vec<Damage>>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (count, damage, mut uncompared) = verify(&args).await?;
    if args.output == Format::Text {
        for each in &damage {
            output::told(each);
        }
    }
    let left = if args.repair && !damage.is_empty() {
        let (left, closed) = repair(&args, &damage).await?;
        uncompared = closed;
        Some(left)
    } else {
        None
    };
    let bad = left.as_ref().unwrap_or(&damage).len();
    if args.output == Format::Text {
        let repaired = if left.is_some() {
            " after the repair"
        } else {
            ""
        };
        output::told(format!(
            "{count} images, {bad} things are damaged{repaired}"
        ));
        if uncompared > 0 {
            output::told(format!(
                "{uncompared} could not be compared: they have no list since an earlier version unpacked them, or this user may not read them"
            ));
        }
        if bad > 0 && left.is_none() {
            output::note("hint: towline verify --repair fetches again what is damaged");
        }
    } else {
        let verified = Verified {
            images: count,
            damage,
            uncompared,
            left_after_repair: left,
        };
        // Whether something is damaged is said by the exit code too, also to who reads no further.
        output::document(args.output, &verified).or_else(output::unless_gone)?;
    }
    Ok(ExitCode::from(if bad == 0 { OK } else { BROKEN }))
}

async fn verify(args: &Args) -> anyhow::Result<(u64, Vec<Damage>, u64)> {
    match store::ask(&args.store, Question::Verify).await? {
        Answer::Verified {
            images,
            damage,
            uncompared,
        } => Ok((images, damage, uncompared)),
        _ => Err(store::unexpected()),
    }
}

/// Puts aside what is damaged, unpacks again or pulls each image that misses something, puts back what did not come, and gives what is damaged then.
async fn repair(args: &Args, damage: &[Damage]) -> anyhow::Result<(Vec<Damage>, u64)> {
    let question = Question::SetAside(damage.to_vec());
    let Answer::SetAside(aside) = store::ask(&args.store, question).await? else {
        return Err(store::unexpected());
    };
    for (each, _) in damage.iter().zip(aside).filter(|(_, aside)| !aside) {
        output::note(format!("{each}: a container holds it, so that it stays"));
    }
    let pulled = pull_what_is_missing(args).await;
    // Also where that failed.
    let Answer::Concluded(back) = store::ask(&args.store, Question::Conclude).await? else {
        return Err(store::unexpected());
    };
    for digest in back {
        output::note(format!(
            "{digest} could not be fetched again: what is here of it stays, damaged as it is"
        ));
    }
    pulled?;
    let (_, left, uncompared) = verify(args).await?;
    Ok((left, uncompared))
}

async fn pull_what_is_missing(args: &Args) -> anyhow::Result<()> {
    let (_, missing, _) = verify(args).await?;
    let mut ids: Vec<String> = missing
        .iter()
        .filter_map(|damage| match damage {
            Damage::Image { id, .. } => Some(id.to_string()),
            _ => None,
        })
        .collect();
    ids.dedup();
    let question = Question::Restore(ids.clone());
    let Answer::Restored(restored) = store::ask(&args.store, question).await? else {
        return Err(store::unexpected());
    };
    let (restored, ids): (Vec<_>, Vec<_>) =
        ids.into_iter().zip(restored).partition(|(_, done)| *done);
    for (id, _) in restored {
        output::note(format!("{id} unpacked again from its kept layers"));
    }
    let question = Question::Inspect(ids.into_iter().map(|(id, _)| id).collect());
    let Answer::Inspected(images) = store::ask(&args.store, question).await? else {
        return Err(store::unexpected());
    };
    for image in images.into_iter().flatten() {
        pull_again(args, &image).await?;
    }
    Ok(())
}

async fn pull_again(args: &Args, image: &Inspected) -> anyhow::Result<()> {
    if image.digests.is_empty() {
        output::note(format!(
            "image {}: nothing says where it came from",
            image.id
        ));
    }
    for name in &image.digests {
        let Ok(reference) = Reference::parse(name) else {
            continue;
        };
        let pulled = loop {
            if let Some(owner) = args.store.owner().await {
                break through_node(args, &owner, name).await?;
            }
            match directly(args, reference.clone(), image).await {
                Err(error) if error.is::<Started>() => {}
                pulled => break pulled?,
            }
        };
        match pulled {
            Ok(()) => {
                output::note(format!("{name} fetched again"));
                return Ok(());
            }
            Err(why) => output::note(format!("{name}: {why}")),
        }
    }
    Ok(())
}

/// Pulls into a store that no node uses; or says why it failed.
async fn directly(
    args: &Args,
    reference: Reference,
    image: &Inspected,
) -> anyhow::Result<Result<(), String>> {
    let client = args.registry.client()?;
    let images = args.store.open(client.clone(), Platform::host(), |_| {});
    let images = images.await?;
    let named = reference.to_string();
    let candidate = args.registry.candidates(&named, &client).await?;
    let candidate = candidate.into_iter().next();
    let credential = candidate.map_or(Credential::Anonymous, |candidate| candidate.credential);
    let mut request = PullRequest::new(reference, credential);
    request.platform = Some(image.config.platform.clone());
    let pulled = images.pull(request).await;
    Ok(pulled
        .map(drop)
        .map_err(|failure| format!("{} ({})", failure.chain(), failure.cause())))
}

/// Has the node pull it, with what the node was told of mirrors and authorities; or says why it failed.
async fn through_node(
    args: &Args,
    owner: &Owner,
    name: &str,
) -> anyhow::Result<Result<(), String>> {
    let endpoint = format!("unix://{}", owner.cri.display());
    let channel = towline_cri::client::connect(&endpoint)
        .await
        .with_context(|| format!("reach {}", owner.name))?;
    let mut client = v1::image_service_client::ImageServiceClient::new(channel);
    let request = v1::PullImageRequest {
        image: Some(v1::ImageSpec {
            image: name.to_owned(),
            ..v1::ImageSpec::default()
        }),
        auth: super::pull::through_node::auth(&args.registry, name).await?,
        sandbox_config: None,
    };
    let pulled = client.pull_image(request).await;
    Ok(pulled
        .map(drop)
        .map_err(|status| status.message().to_owned()))
}
