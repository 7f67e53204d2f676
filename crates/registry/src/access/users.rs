//! Users and their passwords, as `htpasswd -B` writes them.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use towline_keyring::Secret;

/// The cost of hashes made here: what `htpasswd -B` takes.
const COST: u32 = 5;
/// Passwords that are checked at once.
const CHECKS: usize = 8;
/// The longest password that bcrypt tells from a longer one, in bytes.
const PASSWORD_LIMIT: usize = 72;

/// Users with bcrypt hashes of their passwords. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Users {
    hashes: BTreeMap<String, String>,
    /// Whether clients' certificates name users too.
    certificates: bool,
    /// The last password of each user that was right, hashed with a key of this process: bcrypt is slow on purpose, and
    /// a pull asks many times.
    known: Arc<Known>,
}

#[derive(Debug)]
struct Known {
    key: RandomState,
    passwords: Mutex<HashMap<String, (u64, u64)>>,
    /// The right to check a password: however many come, threads are left for other work.
    checks: Arc<Semaphore>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            key: RandomState::default(),
            passwords: Mutex::default(),
            checks: Arc::new(Semaphore::new(CHECKS)),
        }
    }
}

/// Why users cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsersError {
    /// A line has no colon.
    #[error("line {line} of the htpasswd file is not `name:hash`")]
    Line {
        /// The line, from 1.
        line: usize,
    },
    /// A hash is not bcrypt's.
    #[error("the hash of user {user:?} is not bcrypt (`htpasswd -B`)")]
    NotBcrypt {
        /// The user.
        user: String,
    },
    /// A name that Basic authentication cannot carry.
    #[error("{user:?} cannot be the name of a user")]
    Name {
        /// The name.
        user: String,
    },
    /// A password that bcrypt cannot take.
    #[error(
        "the password of user {user:?} is empty, longer than {PASSWORD_LIMIT} bytes, or holds a NUL"
    )]
    Password {
        /// The user.
        user: String,
    },
}

impl Users {
    /// Reads an htpasswd file: `name:hash` a line, `#` begins a comment.
    pub fn from_htpasswd(text: &str) -> Result<Self, UsersError> {
        let mut users = Self::default();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, hash) = line
                .split_once(':')
                .ok_or(UsersError::Line { line: at + 1 })?;
            users.insert_hash(name, hash)?;
        }
        Ok(users)
    }

    /// Adds a user with a bcrypt hash.
    pub fn insert_hash(&mut self, name: &str, hash: &str) -> Result<(), UsersError> {
        if !["$2a$", "$2b$", "$2x$", "$2y$"]
            .iter()
            .any(|prefix| hash.starts_with(prefix))
        {
            return Err(UsersError::NotBcrypt {
                user: name.to_owned(),
            });
        }
        if name.is_empty() || name.contains(':') || name.chars().any(char::is_control) {
            return Err(UsersError::Name {
                user: name.to_owned(),
            });
        }
        self.hashes.insert(name.to_owned(), hash.to_owned());
        Ok(())
    }

    /// Adds a user with a password. Takes a few milliseconds.
    pub fn insert(&mut self, name: &str, password: &Secret) -> Result<(), UsersError> {
        let bad = || UsersError::Password {
            user: name.to_owned(),
        };
        if password.is_empty() || password.expose().len() > PASSWORD_LIMIT {
            return Err(bad());
        }
        let hash = bcrypt::hash(password.expose(), COST).map_err(|_| bad())?;
        self.insert_hash(name, &hash)
    }

    /// Whether nobody can log in.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty() && !self.certificates
    }

    /// Whether clients' certificates name users.
    pub(crate) fn has_certificates(&self) -> bool {
        self.certificates
    }

    /// Lets clients' certificates name users.
    pub(crate) fn take_certificates(&mut self) {
        self.certificates = true;
    }

    /// Whether there is, or may be, such a user.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.certificates || self.hashes.contains_key(name)
    }

    /// Whether the password was right a moment ago; fast.
    pub(crate) fn recently_right(&self, name: &str, password: &Secret) -> bool {
        let known = self
            .known
            .passwords
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.get(name) == Some(&self.fingerprint(name, password))
    }

    /// Waits for the right to check a password.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed.
        Arc::clone(&self.known.checks).acquire_owned().await.ok()
    }

    /// Whether the password is right; slow, so it belongs on a thread for blocking work.
    pub(crate) fn right(&self, name: &str, password: &Secret) -> bool {
        let Some(hash) = self.hashes.get(name) else {
            // As slow as for a user that exists, so that names cannot be told apart.
            let hashes = self.hashes.values();
            let cost = hashes.filter_map(|hash| cost(hash)).max();
            drop(bcrypt::hash(password.expose(), cost.unwrap_or(COST)));
            return false;
        };
        let is_right = bcrypt::verify(password.expose(), hash).unwrap_or(false);
        if password.expose().len() > PASSWORD_LIMIT || !is_right {
            return false;
        }
        let fingerprint = self.fingerprint(name, password);
        self.known
            .passwords
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), fingerprint);
        true
    }

    /// 128 bits of a keyed hash; the key never leaves this process.
    fn fingerprint(&self, name: &str, password: &Secret) -> (u64, u64) {
        let hash = |salt: u8| self.known.key.hash_one((salt, name, password.expose()));
        (hash(0), hash(1))
    }
}

/// How slow a hash is made on purpose: `$2y$COST$...`.
fn cost(hash: &str) -> Option<u32> {
    hash.split('$').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_checked_and_remembered_when_right() {
        let mut users = Users::default();
        users.insert("ann", &"secret".into()).unwrap();
        assert!(!users.recently_right("ann", &"secret".into()));
        assert!(!users.right("ann", &"wrong".into()));
        assert!(!users.right("bob", &"secret".into()));
        assert!(users.right("ann", &"secret".into()));
        assert!(users.recently_right("ann", &"secret".into()));
        assert!(!users.recently_right("ann", &"wrong".into()));
        assert!(!users.right("ann", &"x".repeat(100).as_str().into()));
        assert_eq!(cost("$2y$12$abc"), Some(12));
        assert_eq!(cost("$2y$"), None);
    }

    #[test]
    fn htpasswd_files_are_read() {
        // Apache writes the same hashes under `$2y$`.
        let hash = bcrypt::hash("secret", 4)
            .unwrap()
            .replacen("$2b$", "$2y$", 1);
        let users = Users::from_htpasswd(&format!("# users\n\nann:{hash}\n")).unwrap();
        assert!(users.right("ann", &"secret".into()));
        assert_eq!(
            Users::from_htpasswd("ann").unwrap_err(),
            UsersError::Line { line: 1 }
        );
        let md5 = Users::from_htpasswd("ann:$apr1$x$y").unwrap_err();
        assert_eq!(
            md5,
            UsersError::NotBcrypt {
                user: "ann".to_owned()
            }
        );
    }
}
