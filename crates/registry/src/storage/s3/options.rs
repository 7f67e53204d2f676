//! Which bucket, reached how, by whose credentials.

use std::path::PathBuf;
use std::time::Duration;

use rusty_s3::Credentials;
use url::Url;

/// Where a registry's content lies on object storage.
#[derive(Clone)]
pub struct S3Options {
    /// The bucket.
    pub bucket: String,
    /// What every name in it begins with; empty, or ends with `/`.
    pub prefix: String,
    /// The address of the service; AWS's for the region, if not said.
    pub endpoint: Option<String>,
    /// The region.
    pub region: String,
    /// Whether the bucket is part of the path, not of the host name.
    pub is_path_style: bool,
    /// Whether this registry changes what is there.
    pub role: Role,
    /// How others are told to reach this registry; its first address, if not said.
    pub advertise: Option<String>,
    /// How long a writer that is silent stays the writer.
    pub lease: Duration,
    /// Changes after which there is a new snapshot of everything.
    pub snapshot_every: u64,
    /// How long entries of the log stay that snapshots hold.
    pub log_kept: Duration,
    /// More certificate authorities that the service may be known by, PEM.
    pub ca_pem: Vec<Vec<u8>>,
    pub(crate) credentials: Credentials,
}

/// What a registry does with the storage that it shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Takes pushes and collects garbage; one at a time.
    #[default]
    Writer,
    /// Only serves; any number.
    Reader,
}

impl std::fmt::Debug for S3Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Options")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("endpoint", &self.endpoint)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// Why object storage cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum S3Error {
    /// The address is not `s3://BUCKET/PREFIX`.
    #[error("{0:?} is not s3://BUCKET[/PREFIX]")]
    Address(String),
    /// The service's own address cannot be used.
    #[error("the endpoint of the object storage: {0}")]
    Endpoint(String),
    /// There are no credentials.
    #[error(
        "no credentials for the object storage: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them into {} (profile {profile:?})", file.display()
    )]
    NoCredentials {
        /// The file that was looked into.
        file: PathBuf,
        /// The profile.
        profile: String,
    },
    /// TLS cannot be used.
    #[error("prepare TLS for the object storage: {0}")]
    Tls(String),
}

impl S3Options {
    /// Reads `s3://BUCKET/PREFIX`; the rest comes from the environment and the files that AWS's own programs read:
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, or `AWS_SHARED_CREDENTIALS_FILE` with `AWS_PROFILE`;
    /// `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`; `AWS_REGION`, `AWS_DEFAULT_REGION`.
    pub fn parse(address: &str) -> Result<Self, S3Error> {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::read(address, &var)
    }

    fn read(address: &str, var: &dyn Fn(&str) -> Option<String>) -> Result<Self, S3Error> {
        let wrong = || S3Error::Address(address.to_owned());
        let rest = address.strip_prefix("s3://").ok_or_else(wrong)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let prefix = prefix.trim_matches('/');
        let parts = prefix.split('/').filter(|_| !prefix.is_empty());
        let mut parts = parts.chain([bucket]);
        if parts.any(|part| part.is_empty() || part.starts_with('.') || !part.bytes().all(known)) {
            return Err(wrong());
        }
        let endpoint = var("AWS_ENDPOINT_URL_S3").or_else(|| var("AWS_ENDPOINT_URL"));
        let region = var("AWS_REGION").or_else(|| var("AWS_DEFAULT_REGION"));
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: if prefix.is_empty() {
                String::new()
            } else {
                format!("{prefix}/")
            },
            // Services other than AWS's rarely have a host name for each bucket.
            is_path_style: endpoint.is_some(),
            endpoint,
            region: region.unwrap_or_else(|| "us-east-1".to_owned()),
            role: Role::default(),
            advertise: None,
            lease: Duration::from_secs(15),
            snapshot_every: 1000,
            log_kept: Duration::from_secs(3600),
            ca_pem: Vec::new(),
            credentials: credentials(var)?,
        })
    }

    /// Uses the service at this address.
    #[must_use]
    pub fn at(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(endpoint.into());
        self.is_path_style = true;
        self
    }

    /// With these credentials instead of those found.
    pub fn with_credentials(
        address: &str,
        key: &str,
        secret: &towline_keyring::Secret,
    ) -> Result<Self, S3Error> {
        let (key, secret) = (key.to_owned(), secret.expose().to_owned());
        Self::read(address, &move |name| match name {
            "AWS_ACCESS_KEY_ID" => Some(key.clone()),
            "AWS_SECRET_ACCESS_KEY" => Some(secret.clone()),
            _ => None,
        })
    }

    pub(super) fn endpoint(&self) -> Result<Url, S3Error> {
        let text = match &self.endpoint {
            Some(text) => text.clone(),
            None => format!("https://s3.{}.amazonaws.com", self.region),
        };
        let wrong = || S3Error::Endpoint("it is not http(s)://HOST[:PORT]".to_owned());
        let url: Url = text.parse().map_err(|_| wrong())?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(wrong());
        }
        Ok(url)
    }

    /// The bucket and prefix, for messages.
    pub(crate) fn place(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix)
    }
}

fn credentials(var: &dyn Fn(&str) -> Option<String>) -> Result<Credentials, S3Error> {
    if let (Some(key), Some(secret)) = (var("AWS_ACCESS_KEY_ID"), var("AWS_SECRET_ACCESS_KEY")) {
        return Ok(match var("AWS_SESSION_TOKEN") {
            Some(token) => Credentials::new_with_token(key, secret, token),
            None => Credentials::new(key, secret),
        });
    }
    let profile = var("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
    let file = match var("AWS_SHARED_CREDENTIALS_FILE") {
        Some(file) => PathBuf::from(file),
        None => PathBuf::from(var("HOME").unwrap_or_default()).join(".aws/credentials"),
    };
    let text = towline_sys::fs::read_to_string_bounded(&file, 1 << 20).unwrap_or_default();
    from_file(&text, &profile).ok_or(S3Error::NoCredentials { file, profile })
}

/// Reads one profile of a credentials file.
fn from_file(text: &str, profile: &str) -> Option<Credentials> {
    let mut here = false;
    let (mut key, mut secret, mut token) = (None, None, None);
    for line in text.lines() {
        let line = line.trim();
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            here = name.trim() == profile;
            continue;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| here) else {
            continue;
        };
        let value = Some(value.trim().to_owned());
        match name.trim() {
            "aws_access_key_id" => key = value,
            "aws_secret_access_key" => secret = value,
            "aws_session_token" => token = value,
            _ => {}
        }
    }
    Some(match token {
        Some(token) => Credentials::new_with_token(key?, secret?, token),
        None => Credentials::new(key?, secret?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_surroundings() {
        let var = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("key".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("hidden".to_owned()),
            "AWS_ENDPOINT_URL" => Some("http://127.0.0.1:9000".to_owned()),
            _ => None,
        };
        let read = |text| S3Options::read(text, &var);
        let options = read("s3://images/team/one/").unwrap();
        assert_eq!(options.place(), "s3://images/team/one/");
        assert_eq!(options.region, "us-east-1");
        assert!(options.is_path_style && !format!("{options:?}").contains("hidden"));
        assert_eq!(read("s3://images").unwrap().prefix, "");
        for wrong in [
            "images",
            "s3://",
            "s3:///x",
            "s3://a/../b",
            "s3://a/b?c",
            "s3://u:p@a/",
        ] {
            assert!(matches!(read(wrong), Err(S3Error::Address(_))), "{wrong}");
        }
        let bare = S3Options::read("s3://images", &|_| None).unwrap_err();
        assert!(matches!(bare, S3Error::NoCredentials { .. }), "{bare}");
        let mut aws = options;
        aws.endpoint = None;
        assert_eq!(
            aws.endpoint().unwrap().as_str(),
            "https://s3.us-east-1.amazonaws.com/"
        );
        assert!(aws.at("http://u:p@127.0.0.1").endpoint().is_err());
    }

    #[test]
    fn credentials_files() {
        let text = "# mine\n[default]\naws_access_key_id = a\naws_secret_access_key=b\n\n[other]\n\
            aws_access_key_id=c\naws_secret_access_key = d=e\naws_session_token = t\n";
        let read = |profile| from_file(text, profile);
        assert_eq!(read("default"), Some(Credentials::new("a", "b")));
        assert_eq!(
            read("other"),
            Some(Credentials::new_with_token("c", "d=e", "t"))
        );
        assert_eq!(read("none"), None);
    }
}
