//! `towline why --fix`: shows what is certain as a change, makes it after a yes, and follows the pods until they run.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use towline_cause::Confidence;
use towline_explain::pod::Context;
use towline_explain::preview::Preview;
use towline_explain::scan::{self, Ask, Workload};
use towline_explain::{Diagnosis, Fix};

use super::text::title;
use crate::output::{BAD, BOLD, GOOD, line, note, styled};

/// How long pods are followed.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks at them.
const PAUSE: Duration = Duration::from_secs(1);

/// Offers each certain fix; gives what was changed, to be followed.
pub(super) async fn offer(
    context: &Context,
    diagnoses: &[Diagnosis],
    yes: bool,
) -> anyhow::Result<Vec<Ask>> {
    let mut changed = Vec::new();
    for diagnosis in diagnoses.iter().filter(|one| !one.pulls) {
        let Some(fix) = certain(diagnosis) else {
            note(format!(
                "{}: no change is certain to be right without a decision or a secret of yours; nothing is changed",
                title(diagnosis)
            ));
            continue;
        };
        let mut previews = Vec::new();
        for action in &fix.actions {
            previews.push(Preview::of(action, &context.kube).await?);
        }
        line("")?;
        line(styled(BOLD, &fix.description))?;
        previews.iter().try_for_each(show)?;
        if !yes && !agreed()? {
            note("nothing is changed");
            continue;
        }
        for preview in &previews {
            preview.apply(&context.kube).await?;
            line(format!(
                "{} {} is changed",
                styled(GOOD, "\u{2713}"),
                preview.object
            ))?;
        }
        changed.extend(asks(diagnosis));
    }
    Ok(changed)
}

/// The fix that needs neither a decision nor a secret.
fn certain(diagnosis: &Diagnosis) -> Option<&Fix> {
    let proven = diagnosis.confidence == Confidence::Proven;
    let mut fixes = diagnosis.fixes.iter();
    fixes.find(|fix| proven && fix.certain && !fix.actions.is_empty())
}

/// What was broken, as questions: workloads where there are, since their pods get new names.
fn asks(diagnosis: &Diagnosis) -> Vec<Ask> {
    let of_target = || {
        let namespace = diagnosis.target.namespace.clone()?;
        Some(match &diagnosis.target.owner {
            Some(owner) => Ask::Workload {
                kind: Workload::parse(&owner.kind)?,
                namespace,
                name: owner.name.clone(),
            },
            None => Ask::Pod {
                namespace,
                name: diagnosis.target.name.clone(),
            },
        })
    };
    let Some(affected) = &diagnosis.affected else {
        return of_target().into_iter().collect();
    };
    let workload = |name: &String| {
        let mut parts = name.splitn(3, '/');
        let (namespace, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Ask::Workload {
            kind: Workload::parse(kind)?,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    };
    let pod = |name: &String| {
        let (namespace, name) = name.split_once('/')?;
        Some(Ask::Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    };
    let workloads = affected.workloads.iter().filter_map(workload);
    workloads
        .chain(affected.alone.iter().filter_map(pod))
        .collect()
}

fn show(preview: &Preview) -> std::io::Result<()> {
    line(format!("  {}", preview.object))?;
    if preview.lines.is_empty() {
        return line("    (it is so already)");
    }
    for changed in &preview.lines {
        if !changed.path.is_empty() {
            line(format!("    {}", changed.path))?;
        }
        if let Some(before) = &changed.before {
            line(format!("    {}", styled(BAD, format!("- {before}"))))?;
        }
        if let Some(after) = &changed.after {
            line(format!("    {}", styled(GOOD, format!("+ {after}"))))?;
        }
    }
    Ok(())
}

fn agreed() -> anyhow::Result<bool> {
    let mut stderr = anstream::stderr();
    write!(stderr, "Make this change? [y/N] ").context("ask")?;
    stderr.flush().context("ask")?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("read the answer")?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}

/// Follows until every pod has its images, for at most [`PATIENCE`]. Says whether that came to be.
pub(super) async fn follow(context: &Context, changed: &[Ask]) -> anyhow::Result<bool> {
    let started = Instant::now();
    for ask in changed {
        let mut last = None;
        loop {
            // Pods in between may be gone: what is asked about then does not exist for a moment.
            let seen = scan::waiting(context, ask).await.ok();
            if seen != last
                && let Some((pods, waiting)) = seen
            {
                note(format!(
                    "{ask}: {} of {pods} pods have their images",
                    pods - waiting
                ));
            }
            last = seen;
            if seen.is_some_and(|(pods, waiting)| pods > 0 && waiting == 0) {
                line(format!("{} {ask} runs", styled(GOOD, "\u{2713}")))?;
                break;
            }
            if started.elapsed() > PATIENCE {
                note(format!(
                    "{ask} does not run after {} s: this is what is known now",
                    PATIENCE.as_secs()
                ));
                return Ok(false);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(true)
}
