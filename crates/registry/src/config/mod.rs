//! The configuration file: YAML, every field optional, an unknown one refused with its line and column.
//!
//! A path in it is relative to the file's own directory. What the file says is laid over [`Options`], so that the command
//! line's flags are the defaults; the same is done again when the file or one that it names changes.

mod cache;
mod operation;
mod storage;
mod units;
mod watch;
mod who;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};
use towline_sys::fs::{self, FsError};

use crate::access::{Access, Rule, Users, UsersError, Who};
use crate::options::{ClientAuth, Login, Mount, Options, Tls, Tokens};

pub use units::parse_size;
use units::{Bytes, Span};
pub(crate) use watch::Watched;
use who::Written;

/// The largest file that is read, in bytes.
const FILE_LIMIT: u64 = 1 << 20;
/// The largest list of users that is read, in bytes.
const USERS_LIMIT: u64 = 16 << 20;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("read the configuration")]
    Read(#[from] FsError),
    /// The text is not what is expected there.
    #[error("{}: {message}", file.display())]
    Text {
        /// The file.
        file: PathBuf,
        /// What is wrong, with line and column.
        message: String,
    },
    /// The file with the users cannot be used.
    #[error("{}", file.display())]
    Users {
        /// The file.
        file: PathBuf,
        /// The reason.
        source: UsersError,
    },
}

/// What a file says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Config {
    users: Option<Spanned<PathBuf>>,
    rules: Option<Vec<RuleText>>,
    open_beyond_loopback: Option<bool>,
    read_only: Option<bool>,
    web: Option<bool>,
    mount: Option<Mount>,
    tls: Option<TlsText>,
    gc: GcText,
    login: Option<LoginText>,
    token: Option<Spanned<TokenText>>,
    cache: cache::CacheText,
    storage: Option<storage::StorageText>,
    limits: LimitsText,
    quota: operation::QuotaText,
    drain: operation::DrainText,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleText {
    repositories: Spanned<String>,
    pull: Option<Written>,
    push: Option<Written>,
    delete: Option<Written>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TlsText {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    client_certificate: Option<Spanned<Presence>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Presence {
    Optional,
    Required,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum LoginText {
    Basic,
    Token,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct TokenText {
    lifetime: Option<Spanned<Span>>,
    rotate: Option<Span>,
    realm: Option<Spanned<String>>,
    service: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct GcText {
    every: Option<Spanned<Span>>,
    grace: Option<Spanned<Span>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct LimitsText {
    blob: Option<Bytes>,
    uploads: Option<usize>,
    upload_age: Option<Span>,
    connections: Option<usize>,
    head_patience: Option<Span>,
    body_patience: Option<Span>,
    page: Option<usize>,
    requests: Option<operation::RateText>,
    reserve: Option<Bytes>,
    head: Option<Bytes>,
}

/// Reads a file and lays it over the options; all files that were read, so that they can be watched.
pub(crate) fn apply(file: &Path, options: &mut Options) -> Result<Vec<PathBuf>, ConfigError> {
    let text = fs::read_to_string_bounded(file, FILE_LIMIT)?;
    let config = parse(file, &text)?;
    let reader = Reader { file };
    let mut read = vec![file.to_owned()];
    if let Some(tls) = &config.tls {
        reader.tls(tls, options, &mut read)?;
    }
    if options.client_auth.is_some() {
        options.access.users.take_certificates();
    }
    if config.users.is_some() || config.rules.is_some() {
        options.access = reader.access(&config, &options.access, &mut read)?;
    }
    if config.users.is_some() || config.login.is_some() || config.token.is_some() {
        options.login = reader.login(&config)?;
    }
    if let Some(open) = config.open_beyond_loopback {
        options.open_beyond_loopback = open;
    }
    if let Some(read_only) = config.read_only {
        options.read_only = read_only;
    }
    if let Some(mount) = config.mount {
        options.mount = mount;
    }
    if let Some(web) = config.web {
        options.web = web;
    }
    reader.gc(&config.gc, options)?;
    if let Some(storage) = &config.storage {
        reader.storage(storage, options)?;
    }
    reader.cache(&config.cache, options, &mut read)?;
    config.limits.apply(options);
    reader.quota(&config.quota, options)?;
    config.drain.apply(options);
    Ok(read)
}

fn parse(file: &Path, text: &str) -> Result<Config, ConfigError> {
    // A file with nothing but comments is an empty configuration.
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(Config::default());
    }
    serde_saphyr::from_str(text).map_err(|error| ConfigError::Text {
        file: file.to_owned(),
        message: plain(&error),
    })
}

/// The parser's words, first the place, without the picture of the text that the parser draws.
fn plain(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let first = text.lines().next().unwrap_or_default().to_owned();
    match error.location() {
        Some(location) if !first.contains("line ") => at(location, &first),
        _ => first,
    }
}

fn at(location: Location, message: &str) -> String {
    format!(
        "line {}, column {}: {message}",
        location.line(),
        location.column()
    )
}

/// What errors of one file need.
struct Reader<'a> {
    file: &'a Path,
}

impl Reader<'_> {
    fn wrong(&self, place: Location, message: &str) -> ConfigError {
        ConfigError::Text {
            file: self.file.to_owned(),
            message: at(place, message),
        }
    }

    /// A path as the file means it.
    fn path(&self, written: &Path) -> PathBuf {
        self.file
            .parent()
            .unwrap_or_else(|| Path::new(""))
            .join(written)
    }

    fn access(
        &self,
        config: &Config,
        before: &Access,
        read: &mut Vec<PathBuf>,
    ) -> Result<Access, ConfigError> {
        let mut access = before.clone();
        if let Some(written) = &config.users {
            let file = self.path(&written.value);
            let text = fs::read_to_string_bounded(&file, USERS_LIMIT)?;
            access.users = Users::from_htpasswd(&text).map_err(|source| ConfigError::Users {
                file: file.clone(),
                source,
            })?;
            read.push(file);
            if before.users.has_certificates() {
                access.users.take_certificates();
            }
            if access.users.is_empty() {
                return Err(self.wrong(written.referenced, "this file names no user"));
            }
            // With users, and no rules, it is theirs.
            access.rules = Access::private(Users::default()).rules;
        }
        if let Some(rules) = &config.rules {
            access.rules = rules
                .iter()
                .map(|rule| self.rule(rule, &access.users))
                .collect::<Result<_, _>>()?;
        }
        Ok(access)
    }

    fn tls(
        &self,
        tls: &TlsText,
        options: &mut Options,
        read: &mut Vec<PathBuf>,
    ) -> Result<(), ConfigError> {
        let mut file = |written: &Path| {
            let path = self.path(written);
            let text = fs::read_to_string_bounded(&path, FILE_LIMIT);
            read.push(path);
            text
        };
        options.tls = Some(Tls {
            certificate_pem: file(&tls.certificate)?,
            key_pem: file(&tls.key)?.into(),
        });
        let presence = tls.client_certificate.as_ref();
        if let Some(ca) = &tls.client_ca {
            options.client_auth = Some(ClientAuth {
                ca_pem: file(ca)?,
                required: presence.is_some_and(|said| said.value == Presence::Required),
            });
        } else if let Some(said) = presence {
            let message = "which authority signs clients' certificates (`clientCa`) is not said";
            return Err(self.wrong(said.referenced, message));
        }
        Ok(())
    }

    fn gc(&self, gc: &GcText, options: &mut Options) -> Result<(), ConfigError> {
        const LEAST: Duration = Duration::from_secs(300);
        if let Some(every) = &gc.every {
            if every.value.0 < Duration::from_secs(60) {
                return Err(self.wrong(
                    every.referenced,
                    "garbage is collected once a minute at most",
                ));
            }
            options.schedule.every = Some(every.value.0);
        }
        if let Some(grace) = &gc.grace {
            if grace.value.0 < LEAST {
                let message = "a grace below 5m would take blobs from pushes that are under way";
                return Err(self.wrong(grace.referenced, message));
            }
            options.schedule.grace = grace.value.0;
        }
        Ok(())
    }

    /// Tokens, unless the file says otherwise: every client knows them, and they keep passwords off most requests.
    fn login(&self, config: &Config) -> Result<Login, ConfigError> {
        if config.login == Some(LoginText::Basic) {
            return match &config.token {
                Some(token) => {
                    Err(self.wrong(token.referenced, "there are no tokens with `login: basic`"))
                }
                None => Ok(Login::Basic),
            };
        }
        let mut tokens = Tokens::default();
        if let Some(written) = config.token.as_ref().map(|token| &token.value) {
            if let Some(lifetime) = &written.lifetime {
                tokens.lifetime = lifetime.value.0;
                if tokens.lifetime.is_zero() || tokens.lifetime > crate::tokens::LONGEST {
                    return Err(self.wrong(lifetime.referenced, "a token may live for 1s to 1h"));
                }
            }
            if let Some(realm) = &written.realm {
                if !realm.value.starts_with("https://") && !realm.value.starts_with("http://") {
                    return Err(self.wrong(realm.referenced, "the realm is an http or https URL"));
                }
                tokens.realm = Some(realm.value.clone());
            }
            tokens.rotate = written.rotate.map_or(tokens.rotate, |span| span.0);
            tokens.service = written.service.clone().unwrap_or(tokens.service);
        }
        Ok(Login::Tokens(tokens))
    }

    fn pattern(&self, pattern: &Spanned<String>) -> Result<(), ConfigError> {
        let known = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/*".contains(&byte)
        };
        if pattern.value.is_empty() || !pattern.value.bytes().all(known) {
            let message = "no repository can fit this pattern: names have lower-case letters, digits, and `.`, `_`, `-`, `/`";
            return Err(self.wrong(pattern.referenced, message));
        }
        Ok(())
    }

    fn rule(&self, written: &RuleText, users: &Users) -> Result<Rule, ConfigError> {
        let pattern = &written.repositories;
        self.pattern(pattern)?;
        let who = |written: &Option<Written>, otherwise: Who| match written {
            None => Ok(otherwise),
            Some(written) => {
                for name in &written.names {
                    if !users.has(&name.value) {
                        let message = format!("there is no user {:?}", name.value);
                        return Err(self.wrong(name.referenced, &message));
                    }
                }
                Ok(written.who.clone())
            }
        };
        let push = who(&written.push, Who::Nobody)?;
        Ok(Rule {
            repositories: pattern.value.clone(),
            pull: who(&written.pull, Who::Nobody)?,
            delete: who(&written.delete, push.clone())?,
            push,
        })
    }
}

impl LimitsText {
    fn apply(&self, options: &mut Options) {
        fn set<T: Copy>(limit: &mut T, said: Option<T>) {
            if let Some(said) = said {
                *limit = said;
            }
        }
        let limits = &mut options.limits;
        set(&mut limits.blob_bytes, self.blob.map(|bytes| bytes.0));
        set(&mut limits.uploads, self.uploads);
        set(&mut limits.upload_age, self.upload_age.map(|span| span.0));
        set(&mut limits.connections, self.connections);
        set(
            &mut limits.head_patience,
            self.head_patience.map(|span| span.0),
        );
        set(
            &mut limits.body_patience,
            self.body_patience.map(|span| span.0),
        );
        set(&mut limits.page, self.page);
        set(&mut limits.reserve, self.reserve.map(|bytes| bytes.0));
        let head = self.head.and_then(|bytes| usize::try_from(bytes.0).ok());
        set(&mut limits.head_bytes, head);
        if let Some(rate) = &self.requests {
            limits.rate = Some(rate.rate());
        }
    }
}

#[cfg(test)]
mod tests;
