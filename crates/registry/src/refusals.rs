//! What was refused lately, for the web page: the last few, equal ones once.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::names::Repository;

/// Refusals that are remembered.
const KEPT: usize = 256;

/// A refusal, and how often it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// When it came last.
    pub(crate) time: jiff::Timestamp,
    pub(crate) method: String,
    /// The path that was asked for, without its query.
    pub(crate) path: String,
    pub(crate) status: u16,
    /// Why a pull that meets this fails.
    pub(crate) cause: &'static str,
    /// The upstream's own cause, where it is the cache's upstream that failed.
    pub(crate) beneath: Option<&'static str>,
    /// Who asked, if somebody logged in.
    pub(crate) user: Option<String>,
    /// The repository that was meant; none where it did not come to that.
    pub(crate) repository: Option<Repository>,
    /// How often, since it was first remembered.
    pub(crate) times: u64,
}

impl Refused {
    fn is_like(&self, other: &Self) -> bool {
        (&self.method, &self.path, self.status, self.cause)
            == (&other.method, &other.path, other.status, other.cause)
            && self.beneath == other.beneath
            && self.user == other.user
            && self.repository == other.repository
    }
}

/// The last refusals, newest first.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<VecDeque<Refused>>);

impl Refusals {
    /// Remembers one; the oldest is forgotten for it.
    pub(crate) fn note(&self, mut refused: Refused) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|one| one.is_like(&refused)) {
            let before = kept.remove(at).map_or(0, |one| one.times);
            refused.times = refused.times.saturating_add(before);
        }
        kept.truncate(KEPT - 1);
        kept.push_front(refused);
    }

    /// Those that somebody may see, newest first.
    pub(crate) fn seen(&self, by: impl Fn(&Refused) -> bool) -> Vec<Refused> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().filter(|one| by(one)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ones_are_counted_and_old_ones_forgotten() {
        let refusals = Refusals::default();
        let refused = |path: &str| Refused {
            time: jiff::Timestamp::UNIX_EPOCH,
            method: "GET".to_owned(),
            path: path.to_owned(),
            status: 404,
            cause: "TagNotFound",
            beneath: None,
            user: None,
            repository: None,
            times: 1,
        };
        refusals.note(refused("/a"));
        refusals.note(refused("/b"));
        refusals.note(refused("/a"));
        let seen = |refusals: &Refusals| {
            let all = refusals.seen(|_| true).into_iter();
            all.map(|one| (one.path, one.times)).collect::<Vec<_>>()
        };
        assert_eq!(
            seen(&refusals),
            [("/a".to_owned(), 2), ("/b".to_owned(), 1)]
        );
        for number in 0..1000 {
            refusals.note(refused(&format!("/{number}")));
        }
        let all = seen(&refusals);
        assert_eq!(all.len(), KEPT);
        assert_eq!(all[0].0, "/999");
        assert!(refusals.seen(|one| one.path == "/a").is_empty());
    }
}
