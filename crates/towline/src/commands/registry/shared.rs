//! The flags of storage that registries share.

use std::path::PathBuf;

use anyhow::Context as _;
use towline_registry::{Role, S3Options};

use crate::exit::Usage;

/// Object storage instead of a directory.
#[derive(clap::Args)]
pub(super) struct SharedArgs {
    /// Keep content on S3-compatible object storage, which one writer and any number of readers share; credentials come from the
    /// environment or ~/.aws/credentials; see docs/registry.md
    #[arg(long, value_name = "s3://BUCKET[/PREFIX]")]
    storage: Option<String>,
    /// The object storage's address, if it is not AWS's own
    #[arg(long, value_name = "URL", requires = "storage")]
    storage_endpoint: Option<String>,
    /// Trust this certificate authority (PEM) for the object storage too
    #[arg(long, value_name = "FILE", requires = "storage")]
    storage_ca: Option<PathBuf>,
}

impl SharedArgs {
    /// What they say, if anything.
    pub(super) fn options(&self) -> anyhow::Result<Option<S3Options>> {
        let Some(address) = &self.storage else {
            return Ok(None);
        };
        let options = S3Options::parse(address);
        let mut options = options.map_err(|error| anyhow::Error::new(Usage(error.to_string())))?;
        if let Some(endpoint) = &self.storage_endpoint {
            options = options.at(endpoint);
        }
        if let Some(file) = &self.storage_ca {
            let pem = std::fs::read(file);
            let pem =
                pem.with_context(|| format!("read the certificate authority {}", file.display()))?;
            options.ca_pem.push(pem);
        }
        Ok(Some(options))
    }

    /// Where content lies, if not in a directory.
    pub(super) fn place(&self) -> Option<String> {
        self.storage.clone()
    }

    /// As what a registry is one of those that share it.
    pub(super) fn serve(
        &self,
        is_reader: bool,
        advertise: Option<&String>,
    ) -> anyhow::Result<Option<S3Options>> {
        let mut options = self.options()?;
        if let Some(options) = &mut options {
            options.role = if is_reader {
                Role::Reader
            } else {
                Role::Writer
            };
            options.advertise = advertise.cloned();
        }
        Ok(options)
    }
}
