//! `towline pull --dry-run`.

use std::process::ExitCode;

use towline_cause::Failure;
use towline_distribution::Client;
use towline_images::{Images, Plan};
use towline_oci::Platform;

use super::asked::Asked;
use super::{Args, Pulled, through_node};
use crate::commands::store::Owner;
use crate::exit::{BROKEN, OK};
use crate::output::{self, Format};
use crate::table;

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Planned {
    image: String,
    total: u64,
    to_fetch: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_at_rate: Option<u64>,
    #[serde(flatten)]
    plan: Plan,
}

/// What is known of one image.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum Answer {
    Planned(Planned),
    Failed(Pulled),
}

/// Who says what a pull would do.
enum From<'a> {
    Own(Images, Client),
    Node(&'a Owner),
}

/// Tells what a pull would do.
pub(super) async fn run(
    args: &Args,
    asked: &Asked,
    owner: Option<&Owner>,
    platform: Platform,
) -> anyhow::Result<ExitCode> {
    args.ceilings.ceilings()?;
    let (from, _empty) = if let Some(owner) = owner {
        (From::Node(owner), None)
    } else {
        let client = super::client(args, asked)?;
        let keep = args.spools.keep_blobs();
        let opened = args
            .store
            .open_to_look(client.clone(), platform, |options| {
                options.keep_blobs = keep;
            });
        let (images, empty) = opened.await?;
        (From::Own(images, client), empty)
    };
    let mut answers = Vec::new();
    for name in &args.images {
        let answer = match from.plan(asked, name).await {
            Ok(plan) => Answer::Planned(planned(args, name, plan)),
            Err(pulled) => Answer::Failed(pulled),
        };
        if args.output == Format::Text {
            text(&answer, args, owner.is_some())?;
        }
        answers.push(answer);
    }
    if args.output != Format::Text {
        output::document(args.output, &answers)?;
    }
    let failed = answers
        .iter()
        .any(|answer| matches!(answer, Answer::Failed(_)));
    Ok(ExitCode::from(if failed { BROKEN } else { OK }))
}

impl From<'_> {
    async fn plan(&self, asked: &Asked, name: &str) -> Result<Plan, Pulled> {
        let client = match self {
            Self::Own(_, client) => Some(client),
            Self::Node(_) => None,
        };
        let failed = |failure: Failure| Pulled::of(name, &failure);
        let request = asked.request(name, client).await.map_err(failed)?;
        match self {
            Self::Own(images, _) => images.plan(request).await.map_err(failed),
            Self::Node(owner) => through_node::plan(owner, name, &request.credential).await,
        }
    }
}

fn planned(args: &Args, name: &str, plan: Plan) -> Planned {
    let to_fetch = plan.to_fetch();
    Planned {
        image: name.to_owned(),
        total: plan.total(),
        to_fetch,
        seconds_at_rate: args.limit_rate.map(|rate| to_fetch.div_ceil(rate.get())),
        plan,
    }
}

fn text(answer: &Answer, args: &Args, by_node: bool) -> std::io::Result<()> {
    let planned = match answer {
        Answer::Planned(planned) => planned,
        Answer::Failed(pulled) => {
            super::say(pulled, args.asking(by_node));
            return Ok(());
        }
    };
    let rows: Vec<Vec<String>> = planned
        .plan
        .layers
        .iter()
        .map(|layer| {
            let fate = match (layer.present, layer.kept) {
                (true, _) => "here already".to_owned(),
                (false, 0) => "to download".to_owned(),
                (false, kept) if kept == layer.size => "to unpack: its bytes are here".to_owned(),
                (false, kept) => format!("{} of an earlier attempt are here", output::size(kept)),
            };
            vec![layer.digest.to_string(), output::size(layer.size), fate]
        })
        .collect();
    for line in table::layout(&["Layer", "Size", "Then"].map(str::to_owned), &rows) {
        output::line(line)?;
    }
    output::line(format!(
        "{} {} of {} to download{}",
        planned.image,
        output::size(planned.to_fetch),
        output::size(planned.total),
        time(planned)
    ))
}

/// How long that takes, as far as it can be told: nobody has measured the way to the registry.
fn time(planned: &Planned) -> String {
    match planned.seconds_at_rate {
        Some(seconds) => format!(", {seconds} s at that rate"),
        None if planned.to_fetch == 0 => String::new(),
        None => "; how long that takes is not known without --limit-rate".to_owned(),
    }
}
