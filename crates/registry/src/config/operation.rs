//! Quotas, request rates and how the registry stops, as the file says them.

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::units::{Bytes, Span};
use super::{ConfigError, Reader};
use crate::options::Options;
use crate::rate::Rate;

/// What a file says of quotas.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct QuotaText {
    total: Option<Bytes>,
    repositories: Option<Vec<RepositoryText>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RepositoryText {
    repositories: Spanned<String>,
    size: Bytes,
}

/// What a file says of how the registry stops.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct DrainText {
    announce: Option<Span>,
    deadline: Option<Span>,
}

/// What a file says of how often a client may ask.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RateText {
    per_second: u32,
    burst: Option<u32>,
}

impl RateText {
    /// Without a burst it is that of ten seconds.
    pub(super) fn rate(&self) -> Rate {
        let burst = self
            .burst
            .unwrap_or_else(|| self.per_second.saturating_mul(10));
        Rate {
            per_second: self.per_second.max(1),
            burst: burst.max(1),
        }
    }
}

impl DrainText {
    pub(super) fn apply(&self, options: &mut Options) {
        if let Some(announce) = &self.announce {
            options.drain.announce = announce.0;
        }
        if let Some(deadline) = &self.deadline {
            options.drain.deadline = deadline.0;
        }
    }
}

impl Reader<'_> {
    pub(super) fn quota(&self, text: &QuotaText, options: &mut Options) -> Result<(), ConfigError> {
        if let Some(total) = &text.total {
            options.quota.total = Some(total.0);
        }
        let Some(written) = &text.repositories else {
            return Ok(());
        };
        let mut all = Vec::new();
        for one in written {
            self.pattern(&one.repositories)?;
            all.push((one.repositories.value.clone(), one.size.0));
        }
        options.quota.repositories = all;
        Ok(())
    }
}
