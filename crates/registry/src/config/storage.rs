//! Shared storage, as the file says it. Read at the start only.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_saphyr::Spanned;
use towline_sys::fs;

use super::units::Span;
use super::{ConfigError, FILE_LIMIT, Reader};
use crate::options::Options;
use crate::storage::s3::{Role, S3Options};

/// What a file says of the storage.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StorageText {
    /// `s3://BUCKET[/PREFIX]`.
    url: Spanned<String>,
    endpoint: Option<String>,
    region: Option<String>,
    path_style: Option<bool>,
    role: Option<RoleText>,
    advertise: Option<String>,
    lease: Option<Spanned<Span>>,
    ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum RoleText {
    Writer,
    Reader,
}

impl Reader<'_> {
    /// Lays it over the options.
    pub(super) fn storage(
        &self,
        text: &StorageText,
        options: &mut Options,
    ) -> Result<(), ConfigError> {
        let storage = S3Options::parse(&text.url.value);
        let mut storage =
            storage.map_err(|error| self.wrong(text.url.referenced, &error.to_string()))?;
        if let Some(endpoint) = &text.endpoint {
            storage = storage.at(endpoint);
        }
        if let Some(region) = &text.region {
            storage.region.clone_from(region);
        }
        if let Some(is_path_style) = text.path_style {
            storage.is_path_style = is_path_style;
        }
        if let Some(lease) = &text.lease {
            storage.lease = lease.value.0;
            if storage.lease < Duration::from_secs(2) || storage.lease > Duration::from_secs(600) {
                return Err(self.wrong(lease.referenced, "a lease is good for 2s to 10m"));
            }
        }
        storage.role = match text.role {
            Some(RoleText::Reader) => Role::Reader,
            Some(RoleText::Writer) | None => Role::Writer,
        };
        storage.advertise.clone_from(&text.advertise);
        if let Some(ca) = &text.ca {
            let file = self.path(ca);
            storage.ca_pem.push(fs::read_bounded(&file, FILE_LIMIT)?);
        }
        options.storage = Some(storage);
        Ok(())
    }
}
