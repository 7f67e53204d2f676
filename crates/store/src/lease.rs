//! What must stay although no image record uses it (any more).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use towline_oci::Digest;
use towline_sys::fs;

use crate::layout::Layout;
use crate::state::Inner;
use crate::{StoreError, aside};

/// Keeps layers and blobs of a pull in flight until it is dropped. In memory only: after a restart the pull is gone too.
#[derive(Debug)]
pub struct Lease {
    store: Arc<Inner>,
    held: Mutex<Vec<Digest>>,
}

impl Lease {
    pub(crate) fn new(store: Arc<Inner>) -> Self {
        Self {
            store,
            held: Mutex::default(),
        }
    }

    /// Keeps the layer or blob with this digest, whether it is there already or comes later. Ask whether it is there *after* this.
    pub fn hold(&self, digest: &Digest) {
        *self.store.state().held.entry(digest.clone()).or_default() += 1;
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(digest.clone());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let held = std::mem::take(self.held.get_mut().unwrap_or_else(PoisonError::into_inner));
        aside::renew(&self.store, &held);
        let mut state = self.store.state();
        for digest in held {
            if let Some(count) = state.held.get_mut(&digest) {
                *count -= 1;
                if *count == 0 {
                    state.held.remove(&digest);
                }
            }
        }
    }
}

/// What a container holds, as written on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hold {
    pub(crate) image: Digest,
    pub(crate) layers: Vec<Digest>,
}

/// Whether this can be the owner of a lease: a plain file name.
pub(crate) fn check_owner(owner: &str) -> Result<(), StoreError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=128).contains(&owner.len()) && owner.bytes().all(plain) && !owner.starts_with('.') {
        Ok(())
    } else {
        Err(StoreError::Owner(owner.chars().take(128).collect()))
    }
}

/// Reads every lease. One that does not parse is an error, since not knowing it could remove what a container runs on.
pub(crate) fn read_all(layout: &Layout) -> Result<BTreeMap<String, Hold>, StoreError> {
    let dir = layout.leases();
    let mut leases = BTreeMap::new();
    for owner in crate::layout::names(&dir)? {
        if owner.starts_with('.') {
            // What a cut write left.
            fs::remove_file(dir.join(&owner))?;
            continue;
        }
        let path = dir.join(&owner);
        let bytes = fs::read_bounded(&path, 1 << 20)?;
        let hold = serde_json::from_slice(&bytes)
            .map_err(|source| StoreError::Damaged { path, source })?;
        leases.insert(owner, hold);
    }
    Ok(leases)
}

/// Writes a lease.
pub(crate) fn write(layout: &Layout, owner: &str, hold: &Hold) -> Result<(), StoreError> {
    let path = layout.leases().join(owner);
    let text = serde_json::to_vec(hold).map_err(|source| StoreError::Damaged {
        path: path.clone(),
        source,
    })?;
    Ok(fs::write_atomic_mode(&path, &text, 0o600)?)
}

/// Removes a lease.
pub(crate) fn remove(layout: &Layout, owner: &str) -> Result<(), StoreError> {
    fs::remove_file(layout.leases().join(owner))?;
    Ok(fs::sync_dir(layout.leases())?)
}
