//! One at a time for each key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use towline_oci::Digest;

type Gate = tokio::sync::Mutex<()>;

/// Locks by digest. A lock exists while somebody holds it or waits for it.
#[derive(Debug, Default)]
pub(crate) struct Locks(Mutex<HashMap<Digest, Weak<Gate>>>);

/// Held until dropped; may move to another thread.
pub(crate) type Guard = tokio::sync::OwnedMutexGuard<()>;

impl Locks {
    /// Waits for the lock of `digest`.
    pub(crate) async fn lock(&self, digest: &Digest) -> Guard {
        let gate = {
            let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            gates.retain(|_, gate| gate.strong_count() > 0);
            let known = gates.get(digest).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let gate = Arc::new(Gate::default());
                gates.insert(digest.clone(), Arc::downgrade(&gate));
                gate
            })
        };
        gate.lock_owned().await
    }
}
