//! The upstreams, as the file says them. Read at the start only.

use std::path::PathBuf;

use serde::Deserialize;
use serde_saphyr::Spanned;
use towline_sys::fs;

use super::units::{Bytes, Span};
use super::{ConfigError, FILE_LIMIT, Reader};
use crate::cache::options::Upstream;
use crate::options::Options;

/// What a file says of the cache.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct CacheText {
    upstreams: Vec<UpstreamText>,
    tag_ttl: Option<Span>,
    absent_ttl: Option<Span>,
    failure_ttl: Option<Span>,
    patience: Option<Span>,
    downloads: Option<usize>,
    size: Option<Bytes>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UpstreamText {
    url: Spanned<String>,
    prefix: Option<String>,
    logins: Option<Spanned<PathBuf>>,
    ca: Option<PathBuf>,
}

impl Reader<'_> {
    /// Lays it over the options; upstreams of the command line stay beside those of the file.
    pub(super) fn cache(
        &self,
        text: &CacheText,
        options: &mut Options,
        read: &mut Vec<PathBuf>,
    ) -> Result<(), ConfigError> {
        for one in &text.upstreams {
            let written = match &one.prefix {
                Some(prefix) => format!("{prefix}={}", one.url.value),
                None => one.url.value.clone(),
            };
            let mut upstream = Upstream::parse(&written)
                .map_err(|error| self.wrong(one.url.referenced, &error.to_string()))?;
            if let Some(logins) = &one.logins {
                let file = self.path(&logins.value);
                upstream
                    .log_in(&file)
                    .map_err(|error| self.wrong(logins.referenced, &error.to_string()))?;
                read.push(file);
            }
            if let Some(ca) = &one.ca {
                let file = self.path(ca);
                upstream.ca_pem.push(fs::read_bounded(&file, FILE_LIMIT)?);
                read.push(file);
            }
            options.cache.upstreams.push(upstream);
        }
        let cache = &mut options.cache;
        for (time, said) in [
            (&mut cache.tag_ttl, text.tag_ttl),
            (&mut cache.absent_ttl, text.absent_ttl),
            (&mut cache.failure_ttl, text.failure_ttl),
            (&mut cache.patience, text.patience),
        ] {
            if let Some(said) = said {
                *time = said.0;
            }
        }
        if let Some(downloads) = text.downloads {
            cache.downloads = downloads.max(1);
        }
        if let Some(size) = text.size {
            cache.size = Some(size.0);
        }
        Ok(())
    }
}
