//! What may change while the registry runs.

use std::sync::{Arc, PoisonError, RwLock};

use crate::access::Access;
use crate::options::{Drain, Limits, Login, Mount, Options, Schedule, Tokens};
use crate::quota::Quota;

/// What a request is judged by, from its beginning to its end.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) access: Access,
    pub(crate) limits: Limits,
    pub(crate) quota: Quota,
    pub(crate) drain: Drain,
    pub(crate) read_only: bool,
    /// Whether there are pages for people.
    pub(crate) web: bool,
    /// Whether clients speak TLS to it.
    pub(crate) secure: bool,
    pub(crate) mount: Mount,
    pub(crate) schedule: Schedule,
    login: Login,
}

impl Settings {
    pub(crate) fn of(options: &Options) -> Self {
        let mut access = options.access.clone();
        if options.client_auth.is_some() {
            access.users.take_certificates();
        }
        Self {
            access,
            limits: options.limits.clone(),
            quota: options.quota.clone(),
            drain: options.drain,
            read_only: options.read_only,
            web: options.web,
            secure: options.tls.is_some(),
            mount: options.mount,
            schedule: options.schedule,
            login: options.login.clone(),
        }
    }

    /// How tokens are issued, if they are.
    pub(crate) fn tokens(&self) -> Option<&Tokens> {
        match &self.login {
            Login::Tokens(tokens) if self.access.wants_login() => Some(tokens),
            Login::Tokens(_) | Login::Basic => None,
        }
    }
}

/// A value that is replaced as a whole; whoever took it keeps what it took.
#[derive(Debug)]
pub(crate) struct Live<T>(RwLock<Arc<T>>);

impl<T> Live<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    pub(crate) fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}
