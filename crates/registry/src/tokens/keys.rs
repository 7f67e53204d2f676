//! The keys that sign tokens: made here, kept in the registry's directory for its owner alone, replaced now and then.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use towline_oci::Digest;
use towline_sys::fs::{self, FsError};

/// How long a key is known after the last token that it signed: the longest life of a token.
pub(crate) const LONGEST: Duration = Duration::from_secs(3600);
/// Keys in the directory that are read.
const KEYS: usize = 1000;
/// The largest file with a key, in bytes.
const FILE_LIMIT: u64 = 16 << 10;

/// A key pair.
#[derive(Debug)]
pub(crate) struct Key {
    id: String,
    made: Timestamp,
    pair: Ed25519KeyPair,
}

/// A key as it lies on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    made: Timestamp,
    pkcs8: String,
}

/// The keys of a registry.
#[derive(Debug)]
pub(crate) struct Keys {
    folder: PathBuf,
    /// How long a key signs.
    signs: Duration,
    /// The newest last; never empty.
    known: Mutex<Vec<Arc<Key>>>,
}

impl Key {
    fn make(now: Timestamp) -> (Self, Kept) {
        let pair = Ed25519KeyPair::generate().expect("the system gives random bytes");
        let document = pair.to_pkcs8().expect("a new key can be written");
        let kept = Kept {
            made: now,
            pkcs8: STANDARD.encode(document.as_ref()),
        };
        (Self::of(pair, now), kept)
    }

    fn read(file: &Path) -> Option<Self> {
        let bytes = fs::read_bounded(file, FILE_LIMIT).ok()?;
        let kept: Kept = serde_json::from_slice(&bytes).ok()?;
        let document = STANDARD.decode(kept.pkcs8.as_bytes()).ok()?;
        let pair = Ed25519KeyPair::from_pkcs8(&document).ok()?;
        Some(Self::of(pair, kept.made))
    }

    fn of(pair: Ed25519KeyPair, made: Timestamp) -> Self {
        let id = Digest::of(pair.public_key().as_ref()).hex()[..16].to_owned();
        Self { id, made, pair }
    }

    /// The name by which a token says which key signed it.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Signs.
    pub(crate) fn sign(&self, text: &[u8]) -> Vec<u8> {
        self.pair.sign(text).as_ref().to_vec()
    }
}

impl Keys {
    /// Takes over the keys of a directory; makes one where there is none.
    pub(crate) fn open(folder: PathBuf, signs: Duration, now: Timestamp) -> Result<Self, FsError> {
        fs::create_dir_all_mode(&folder, 0o700)?;
        let mut keys: Vec<Arc<Key>> = Vec::new();
        for name in fs::read_dir_names(&folder, KEYS)? {
            // What is damaged signs nothing, and is replaced by a new key.
            keys.extend(Key::read(&folder.join(name)).map(Arc::new));
        }
        keys.sort_by_key(|key| key.made);
        let this = Self {
            folder,
            signs,
            known: Mutex::new(keys),
        };
        if this.lock().is_empty() {
            let key = this.make(now)?;
            this.lock().push(key);
        }
        Ok(this)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Key>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{}.json", key.id))
    }

    fn make(&self, now: Timestamp) -> Result<Arc<Key>, FsError> {
        let (key, kept) = Key::make(now);
        let bytes = serde_json::to_vec(&kept).expect("text is JSON");
        fs::write_atomic_mode(self.file(&key), &bytes, 0o600)?;
        Ok(Arc::new(key))
    }

    /// The key to sign with: a new one when the newest is too old.
    pub(crate) fn signer(&self, now: Timestamp) -> Arc<Key> {
        let mut keys = self.lock();
        let newest = Arc::clone(keys.last().expect("there is always a key"));
        if age(&newest, now) <= self.signs {
            return newest;
        }
        match self.make(now) {
            Ok(key) => {
                let (old, kept) = keys
                    .drain(..)
                    .partition::<Vec<_>, _>(|key| self.ended(key, now));
                *keys = kept;
                keys.push(Arc::clone(&key));
                for old in old {
                    fs::remove_file(self.file(&old)).ok();
                }
                key
            }
            Err(error) => {
                // The old one is as good as before; the disk may be writable the next time.
                tracing::warn!(%error, "write a new key for tokens");
                newest
            }
        }
    }

    /// Whether no token that the key signed can still be good.
    fn ended(&self, key: &Key, now: Timestamp) -> bool {
        age(key, now) > self.signs.saturating_add(LONGEST)
    }

    /// Whether this key of ours signed the text.
    pub(crate) fn verify(&self, id: &str, text: &[u8], signature: &[u8], now: Timestamp) -> bool {
        let (key, newest) = {
            let keys = self.lock();
            let Some(key) = keys.iter().find(|key| key.id == id) else {
                return false;
            };
            let newest = keys.last().is_some_and(|last| last.id == id);
            (Arc::clone(key), newest)
        };
        // The newest goes on where it could not be replaced.
        (newest || !self.ended(&key, now))
            && UnparsedPublicKey::new(&ED25519, key.pair.public_key())
                .verify(text, signature)
                .is_ok()
    }
}

fn age(key: &Key, now: Timestamp) -> Duration {
    let age: SignedDuration = now.duration_since(key.made);
    Duration::try_from(age).unwrap_or_default()
}
