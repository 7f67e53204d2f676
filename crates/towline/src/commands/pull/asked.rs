//! What is asked of a registry for each image: its reference and the login that goes with it. What is wrong with one image's says nothing of
//! the others.

use std::sync::Arc;

use towline_cause::{Cause, Failure, Step};
use towline_distribution::{Client, MirrorLogins};
use towline_images::PullRequest;
use towline_keyring::Credential;
use towline_oci::Reference;
use towline_sys::task;

use crate::logins::Logins;
use crate::registry_client::RegistryArgs;

/// Where logins come from: read once for all images.
pub(super) struct Asked {
    given: Option<Credential>,
    logins: Result<Arc<Logins>, String>,
}

impl Asked {
    /// Reads the login files. Only a command line that makes no sense is an error here.
    pub(super) fn new(registry: &RegistryArgs) -> anyhow::Result<Self> {
        Ok(Self {
            given: registry.given()?,
            logins: Logins::read(registry.authfile.as_deref())
                .map(Arc::new)
                .map_err(|error| format!("{error:#}")),
        })
    }

    /// Logins of mirrors.
    pub(super) fn of_mirrors(&self) -> MirrorLogins {
        match &self.logins {
            Ok(logins) => Logins::clone(logins).of_mirrors(),
            Err(_) => MirrorLogins::default(),
        }
    }

    /// The request for an image; or why nothing can be asked.
    pub(super) async fn request(
        &self,
        name: &str,
        client: Option<&Client>,
    ) -> Result<PullRequest, Failure> {
        let reference = Reference::parse(name).map_err(|error| {
            Failure::new(
                Cause::InvalidReference,
                Step::Reference,
                format!("{name:?} names no image: {error}"),
            )
        })?;
        let credential = self.credential(&reference, client).await?;
        Ok(PullRequest::new(reference, credential))
    }

    /// The login for an image. A helper may take a while.
    async fn credential(
        &self,
        reference: &Reference,
        client: Option<&Client>,
    ) -> Result<Credential, Failure> {
        if let Some(given) = &self.given {
            return Ok(given.clone());
        }
        let logins = self.logins.as_ref().map_err(|why| {
            Failure::new(Cause::PullSecretMalformed, Step::Credentials, why.clone())
        })?;
        let tls = match client {
            Some(client) => logins.tls(client, reference).await,
            None => None,
        };
        let (logins, reference) = (Arc::clone(logins), reference.clone());
        let found = task::blocking("login", move || logins.find_at(&reference, tls)).await;
        let found = found.map_err(|error| {
            Failure::new(
                Cause::CredentialProviderFailed,
                Step::Credentials,
                format!("{error:#}"),
            )
        })?;
        Ok(found.map_or(Credential::Anonymous, |candidate| candidate.credential))
    }
}
