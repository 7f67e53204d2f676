//! Who asks, and by which settings the request is judged.

use std::sync::Arc;

use super::rules::Decision;
use crate::names::Repository;
use crate::route::Action;
use crate::settings::Settings;

/// Who asks.
#[derive(Debug)]
pub(crate) struct Caller {
    user: Option<String>,
    /// The settings of the moment when the request came.
    pub(crate) settings: Arc<Settings>,
}

impl Caller {
    /// Somebody without a login.
    pub(crate) fn nobody(settings: Arc<Settings>) -> Self {
        Self {
            user: None,
            settings,
        }
    }

    /// A user whose login was right.
    pub(crate) fn user_named(name: String, settings: Arc<Settings>) -> Self {
        Self {
            user: Some(name),
            settings,
        }
    }

    /// The user's name; none without a login.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// What the rules say.
    pub(crate) fn decide(&self, repository: &Repository, action: Action) -> Decision {
        self.settings.access.decide(self.user(), repository, action)
    }
}
