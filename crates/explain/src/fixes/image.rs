//! Another image, or another rule of when to pull it.

use towline_cause::Cause;
use towline_oci::Reference;

use super::{Ground, TEMPLATED, acts_at_once, by_hand, fix, object, remade, set_image};
use crate::retired;
use crate::{Action, Fix, Target};

pub(super) fn near_tags(ground: &Ground<'_>) -> Vec<Fix> {
    let (Some(image), Some(proof)) = (ground.image, ground.proof) else {
        return other_image(ground);
    };
    let fixes = proof.tags_near.iter().take(3).filter_map(|tag| {
        let near = image.with_tag(tag)?;
        let mut words = format!("Use the tag {tag:?}, which exists");
        let action = set_image(ground.target, &as_written(ground.target, &near));
        if action.is_none()
            && let Some(how) = by_hand(ground.target)
        {
            words = format!("{words}: {how}");
        }
        let alike = proof.tag_alike.as_ref() == Some(tag);
        let mut actions: Vec<Action> = action.into_iter().collect();
        let certain = alike && !actions.is_empty() && acts_at_once(ground.target);
        if !actions.is_empty() {
            actions.extend(remade(ground.target));
        }
        Some(Fix {
            certain,
            ..fix(words, actions, ground.target)
        })
    });
    let fixes: Vec<Fix> = fixes.collect();
    if fixes.is_empty() {
        other_image(ground)
    } else {
        fixes
    }
}

/// Another image, and away with a pod that its workload would keep.
fn changed(target: &Target, image: &str) -> Vec<Action> {
    let set = set_image(target, image).into_iter();
    set.flat_map(|set| [set].into_iter().chain(remade(target)))
        .collect()
}

/// Keeps the way the person wrote the name: `nginx:1.25` stays short.
fn as_written(target: &Target, near: &Reference) -> String {
    let tag = near.tag().unwrap_or("latest");
    let written = target.image.split('@').next().unwrap_or_default();
    let slash = written.rfind('/').map_or(0, |at| at + 1);
    let name = written[slash..]
        .find(':')
        .map_or(written, |colon| &written[..slash + colon]);
    format!("{name}:{tag}")
}

/// Repositories of the registry that may have been meant.
pub(super) fn near_repositories(ground: &Ground<'_>) -> Vec<Fix> {
    let (Some(image), Some(proof)) = (ground.image, ground.proof) else {
        return other_image(ground);
    };
    let fixes = proof.repositories_near.iter().filter_map(|repository| {
        let target = image.target();
        let mark = if image.digest().is_some() { '@' } else { ':' };
        let named = format!("{}/{repository}{mark}{target}", image.registry());
        // The report may be a node's, and the names are what its registry said.
        let parsed = Reference::parse(&named).ok()?;
        if parsed.repository() != repository {
            return None;
        }
        let words = format!("Use the repository {repository:?}, which the registry has");
        let actions = changed(ground.target, &named);
        Some(fix(words, actions, ground.target))
    });
    let fixes: Vec<Fix> = fixes.collect();
    if fixes.is_empty() {
        other_image(ground)
    } else {
        fixes
    }
}

/// What is no reference as it is written, without what people paste or type along with one.
pub(super) fn rewritten(ground: &Ground<'_>) -> Vec<Fix> {
    let Some(image) = written_right(&ground.target.image) else {
        return other_image(ground);
    };
    let words = format!("Write {image}, if that is what is meant");
    let actions = changed(ground.target, &image);
    vec![fix(words, actions, ground.target)]
}

/// Without spaces, scheme and slashes at the end, in lower case but for the tag; `None` where that is no reference either, as where a tag
/// is missing after its colon: which one was meant is not known.
fn written_right(image: &str) -> Option<String> {
    let trimmed = image.trim();
    let bare = trimmed
        .split_once("://")
        .map_or(trimmed, |(_, rest)| rest)
        .trim_end_matches('/');
    let slash = bare.rfind('/').map_or(0, |at| at + 1);
    let name = bare[slash..]
        .find([':', '@'])
        .map_or(bare.len(), |at| slash + at);
    let lower = format!("{}{}", bare[..name].to_lowercase(), &bare[name..]);
    let good = lower != image && Reference::parse(&lower).is_ok();
    good.then_some(lower)
}

/// The name that the publisher moved the image to, where nobody has looked yet whether it is there.
pub(super) fn moved(ground: &Ground<'_>) -> Option<Fix> {
    let image = retired::successor(ground.image?)?;
    let words = format!("Use {image}: the publisher moved it there (see the evidence)");
    let actions = changed(ground.target, &image);
    Some(fix(words, actions, ground.target))
}

/// A change that needs a person to say what was meant.
pub(super) fn other_image(ground: &Ground<'_>) -> Vec<Fix> {
    let words = "Name an image that exists";
    let Some(action) = set_image(ground.target, "IMAGE") else {
        let by_hand = by_hand(ground.target);
        let fix = by_hand.map(|how| fix(format!("{words}: {how}"), vec![], ground.target));
        return fix.into_iter().collect();
    };
    let actions = [action].into_iter().chain(remade(ground.target)).collect();
    let mut fix = fix(words, actions, ground.target);
    fix.actions.clear();
    vec![fix]
}

pub(super) fn image_elsewhere(ground: &Ground<'_>) -> Vec<Fix> {
    let Some(found) = ground.elsewhere else {
        return Vec::new();
    };
    let words = format!("Use {}, which is there", found.image);
    let actions = changed(ground.target, &found.image);
    vec![fix(words, actions, ground.target)]
}

pub(super) fn allowed_pull(ground: &Ground<'_>, cause: Cause) -> Vec<Fix> {
    let (kind, name) = object(ground.target);
    let (true, Some(namespace), Some(container)) = (
        TEMPLATED.contains(&kind.as_str()),
        ground.target.namespace.clone(),
        ground.target.container.clone(),
    ) else {
        return Vec::new();
    };
    let action = Action::AllowPull {
        namespace,
        kind,
        name,
        container,
        init: ground.target.init,
    };
    let words = if cause == Cause::NeverPull {
        "Let the kubelet pull the image where it is absent, or load it on the node"
    } else {
        "Let the kubelet use the image that the node has; a tag of its own for each build keeps that right"
    };
    let actions = [action].into_iter().chain(remade(ground.target)).collect();
    vec![fix(words, actions, ground.target)]
}

pub(super) fn platforms(ground: &Ground<'_>) -> Vec<Fix> {
    let offered = ground
        .proof
        .map(|proof| proof.platforms.join(", "))
        .filter(|list| !list.is_empty());
    let mut fixes = other_image(ground);
    for fix in &mut fixes {
        fix.description = match &offered {
            Some(list) => format!("The image exists for {list} only: publish it for the node's platform, name another tag, or choose such a node by nodeSelector"),
            None => "Publish the image for the node's platform, name another tag, or choose another node".to_owned(),
        };
    }
    fixes
}
