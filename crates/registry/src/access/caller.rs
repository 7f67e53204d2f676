//! Who asks, and by which settings the request is judged.

use std::sync::Arc;

use super::rules::Decision;
use crate::names::Repository;
use crate::route::Action;
use crate::settings::Settings;
use crate::tokens::{Grants, Holder};

/// Who asks.
#[derive(Debug)]
pub(crate) struct Caller {
    user: Option<String>,
    /// What the caller's token gives; none where it came without one.
    grants: Option<Grants>,
    /// The settings of the moment when the request came.
    pub(crate) settings: Arc<Settings>,
}

impl Caller {
    /// Somebody without a login.
    pub(crate) fn nobody(settings: Arc<Settings>) -> Self {
        Self {
            user: None,
            grants: None,
            settings,
        }
    }

    /// A user whose login was right.
    pub(crate) fn user_named(name: String, settings: Arc<Settings>) -> Self {
        Self {
            user: Some(name),
            grants: None,
            settings,
        }
    }

    /// Whoever holds a token.
    pub(crate) fn holder(holder: Holder, settings: Arc<Settings>) -> Self {
        Self {
            user: holder.user,
            grants: Some(holder.grants),
            settings,
        }
    }

    /// The user's name; none without a login.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Whether the caller logged in, or holds a token that says it has no login.
    pub(crate) fn is_known(&self) -> bool {
        self.user.is_some() || self.grants.is_some()
    }

    /// Whether the list of repositories is within the token.
    pub(crate) fn may_list(&self) -> bool {
        self.grants.as_ref().is_none_or(|grants| grants.catalog)
    }

    /// What the rules say, and then the token: it can only take away.
    pub(crate) fn decide(&self, repository: &Repository, action: Action) -> Decision {
        let decision = self.decide_by_rules(repository, action);
        match &self.grants {
            Some(grants) if decision == Decision::Allow && !grants.has(repository, action) => {
                Decision::ScopeNeeded
            }
            _ => decision,
        }
    }

    /// What the rules alone say: for lists, to which a token of their own belongs.
    pub(crate) fn decide_by_rules(&self, repository: &Repository, action: Action) -> Decision {
        self.settings.access.decide(self.user(), repository, action)
    }
}
