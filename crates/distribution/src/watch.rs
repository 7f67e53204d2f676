//! Telling facts to whoever listens, at no cost where nobody does.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::facts::{Fact, Observer};

/// An observer, or nobody.
#[derive(Clone, Default)]
pub(crate) struct Watch(Option<Arc<dyn Observer>>);

impl Watch {
    pub(crate) fn new(observer: Arc<dyn Observer>) -> Self {
        Self(Some(observer))
    }

    pub(crate) fn tell(&self, fact: impl FnOnce() -> Fact) {
        if let Some(observer) = &self.0 {
            observer.observe(fact());
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Watch(somebody)"
        } else {
            "Watch(nobody)"
        })
    }
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
