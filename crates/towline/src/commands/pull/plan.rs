//! `towline pull --dry-run`.

use std::process::ExitCode;

use towline_images::{Images, Plan};

use super::Args;
use crate::exit::{BROKEN, OK, Usage};
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

/// Tells what a pull would do.
pub(super) async fn run(images: &Images, args: &Args) -> anyhow::Result<ExitCode> {
    let mut answers = Vec::new();
    let mut failed = false;
    for name in &args.images {
        let request = super::request(args, name)?
            .map_err(|error| anyhow::Error::new(Usage(format!("{name}: {error}"))))?;
        match images.plan(request).await {
            Ok(plan) => answers.push(planned(args, name, plan)),
            Err(failure) => {
                failed = true;
                output::note(format!("{name}: {} ({})", failure.chain(), failure.cause()));
            }
        }
    }
    if args.output == Format::Text {
        answers.iter().try_for_each(text)?;
    } else {
        output::document(args.output, &answers)?;
    }
    Ok(ExitCode::from(if failed { BROKEN } else { OK }))
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

fn text(planned: &Planned) -> std::io::Result<()> {
    let rows: Vec<Vec<String>> = planned
        .plan
        .layers
        .iter()
        .map(|layer| {
            let fate = match (layer.present, layer.kept) {
                (true, _) => "here already".to_owned(),
                (false, 0) => "to download".to_owned(),
                (false, kept) => format!("{} of an earlier attempt are here", output::size(kept)),
            };
            vec![layer.digest.to_string(), output::size(layer.size), fate]
        })
        .collect();
    for line in table::layout(&["Layer", "Size", "Then"].map(str::to_owned), &rows) {
        output::line(line)?;
    }
    let time = planned.seconds_at_rate;
    let time = time.map_or_else(String::new, |seconds| format!(", {seconds} s at that rate"));
    output::line(format!(
        "{} {} of {} to download{time}",
        planned.image,
        output::size(planned.to_fetch),
        output::size(planned.total)
    ))
}
