//! What a repair puts aside: damaged content keeps its bytes until something right is in its place.
//!
//! `aside/layer-<algorithm>-<hex>` and `aside/blob-<algorithm>-<hex>`. What is there has no name in the store; [`conclude`] ends that.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use towline_oci::Digest;
use towline_sys::fs;

use crate::layout::{Layout, digest_of};
use crate::lease::Hold;
use crate::state::{Inner, State};
use crate::tree::remove_tree;
use crate::{Damage, StoreError, layer};

/// A repair of which nothing was seen for so long was cut.
const CUT: Duration = Duration::from_secs(3600);

/// What is put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Layer,
    Blob,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Blob => "blob",
        }
    }
}

fn path(store: &Inner, kind: Kind, digest: &Digest) -> PathBuf {
    let (algorithm, hex) = (digest.algorithm().name(), digest.hex());
    let name = format!("{}-{algorithm}-{hex}", kind.name());
    store.layout.aside().join(name)
}

fn parse(name: &str) -> Option<(Kind, Digest)> {
    let (kind, rest) = name.split_once('-')?;
    let (algorithm, hex) = rest.split_once('-')?;
    let kind = [Kind::Layer, Kind::Blob]
        .into_iter()
        .find(|known| known.name() == kind)?;
    Some((kind, digest_of(algorithm, hex)?))
}

/// What is put aside.
pub(crate) fn read_all(layout: &Layout) -> Result<HashSet<Digest>, StoreError> {
    let names = crate::layout::names(&layout.aside())?;
    let known = names.iter().filter_map(|name| parse(name));
    Ok(known.map(|(_, digest)| digest).collect())
}

/// Puts aside what is damaged. False where a hold keeps it: then it stays.
pub(crate) fn set(store: &Inner, damage: &Damage) -> Result<bool, StoreError> {
    let (kind, digest) = match damage {
        Damage::Blob { digest, .. } => (Kind::Blob, digest),
        Damage::Layer(layer) | Damage::File { layer, .. } => (Kind::Layer, layer),
        // What is not here cannot be in the way.
        Damage::Image { .. } => return Ok(true),
    };
    fs::create_dir_all_mode(store.layout.aside(), 0o700)?;
    let aside = path(store, kind, digest);
    let here = match kind {
        Kind::Layer => store.layout.layer(digest),
        Kind::Blob => store.layout.blob(digest),
    };
    let mut state = store.state();
    if kind == Kind::Layer {
        let held = |hold: &Hold| hold.layers.contains(digest);
        if state.held.contains_key(digest) || state.leases.values().any(held) {
            return Ok(false);
        }
        if !state.layers.contains_key(digest) {
            return Ok(true);
        }
        // One that an earlier repair left there, which was cut, makes way.
        remove_tree(&aside)?;
    }
    match fs::rename(&here, &aside) {
        Err(error) if error.is_not_found() => {}
        other => {
            other?;
            state.aside.insert(digest.clone());
        }
    }
    if kind == Kind::Layer {
        state.layers.remove(digest);
    }
    drop(state);
    sync(store, &here)?;
    Ok(true)
}

fn sync(store: &Inner, here: &std::path::Path) -> Result<(), StoreError> {
    if let Some(dir) = here.parent() {
        fs::sync_dir(dir)?;
    }
    Ok(fs::sync_dir(store.layout.aside())?)
}

/// Ends a repair: what has a successor, or is used by nothing, goes; the rest gets its place again. Gives the digests of the latter. One
/// that can be neither removed nor put back stays where it is and keeps nobody from the others: the first such problem is told at the end.
pub(crate) fn conclude(store: &Inner) -> Result<Vec<Digest>, StoreError> {
    let (mut back, mut problem) = (Vec::new(), None);
    for name in crate::layout::names(&store.layout.aside())? {
        let Some((kind, digest)) = parse(&name) else {
            continue;
        };
        let returned = match kind {
            Kind::Layer => conclude_layer(store, &digest),
            Kind::Blob => conclude_blob(store, &digest),
        };
        match returned {
            Ok(true) => back.push(digest),
            Ok(false) => {}
            Err(error) => drop(problem.get_or_insert(error)),
        }
    }
    problem.map_or(Ok(back), Err)
}

/// Whether a pull in flight is to bring something that was put aside: a repair goes on.
fn comes_again(state: &State) -> bool {
    state
        .aside
        .iter()
        .any(|digest| state.held.contains_key(digest))
}

/// A pull has ended that was to bring one of these again, well or not: the repair that it is part of may have more to do, and was not cut so far.
pub(crate) fn renew(store: &Inner, ended: &[Digest]) {
    let aside = |digest: &Digest| store.state().aside.contains(digest);
    if ended.iter().any(aside)
        && let Ok(directory) = std::fs::File::open(store.layout.aside())
    {
        // Who is not told so begins it again, at worst.
        directory.set_modified(SystemTime::now()).ok();
    }
}

/// As [`conclude`], for a repair that was cut. What cannot be ended now is looked at again the next time.
pub(crate) fn conclude_old(store: &Inner) {
    if comes_again(&store.state()) {
        return;
    }
    let changed = std::fs::metadata(store.layout.aside()).and_then(|meta| meta.modified());
    let now = SystemTime::now();
    let old = changed.is_ok_and(|at| now.duration_since(at).is_ok_and(|since| since > CUT));
    if old && let Err(error) = conclude(store) {
        tracing::warn!(%error, "what an earlier repair put aside stays there");
    }
}

fn conclude_layer(store: &Inner, digest: &Digest) -> Result<bool, StoreError> {
    let aside = path(store, Kind::Layer, digest);
    let info = layer::read_info(&aside)?;
    let mut state = store.state();
    let wanted = state.uses(digest) && !state.has_layer(digest);
    let Some(info) = info.filter(|_| wanted) else {
        drop(state);
        remove_tree(&aside)?;
        store.state().aside.remove(digest);
        return Ok(false);
    };
    let here = store.layout.layer(digest);
    fs::rename(&aside, &here)?;
    state.layers.insert(digest.clone(), info);
    state.aside.remove(digest);
    drop(state);
    sync(store, &here)?;
    Ok(true)
}

fn conclude_blob(store: &Inner, digest: &Digest) -> Result<bool, StoreError> {
    let (aside, here) = (path(store, Kind::Blob, digest), store.layout.blob(digest));
    let mut state = store.state();
    let wanted = state.uses(digest) && !here.exists();
    if wanted {
        fs::rename(&aside, &here)?;
    } else {
        fs::remove_file(&aside)?;
    }
    state.aside.remove(digest);
    drop(state);
    sync(store, &here)?;
    Ok(wanted)
}
