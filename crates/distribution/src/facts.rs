//! What a client saw on the way, as values: for reports, logs and metrics. No fact holds a secret or a URL's query.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// One thing that was done or seen, with how long it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "fact",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Fact {
    /// A name was looked up.
    Dns {
        /// The name.
        host: String,
        /// Who was asked: `hosts file`, or name servers with ports.
        asked: Vec<String>,
        /// IPv4 addresses.
        ipv4: Vec<IpAddr>,
        /// IPv6 addresses.
        ipv6: Vec<IpAddr>,
        /// What went wrong.
        error: Option<String>,
        /// Microseconds.
        micros: u64,
    },
    /// A TCP connection was tried.
    Connect {
        /// Scheme, host and port asked for.
        endpoint: String,
        /// Address and port.
        address: String,
        /// What went wrong.
        error: Option<String>,
        /// Microseconds.
        micros: u64,
    },
    /// A TLS handshake was tried.
    Tls {
        /// Scheme, host and port.
        endpoint: String,
        /// `TLSv1_3`, ...
        version: Option<String>,
        /// The cipher suite.
        suite: Option<String>,
        /// The application protocol agreed on.
        alpn: Option<String>,
        /// The certificate that the peer showed, also where it was refused.
        certificate: Option<Certificate>,
        /// What went wrong.
        error: Option<String>,
        /// Microseconds.
        micros: u64,
    },
    /// A proxy was asked for a way to an endpoint, or stands in front of it.
    Proxy {
        /// Scheme, host and port asked for.
        endpoint: String,
        /// The proxy, without its login.
        proxy: String,
        /// What went wrong.
        error: Option<String>,
    },
    /// A scheme was chosen, or changed.
    Scheme {
        /// Host and port.
        host: String,
        /// `http` or `https`.
        scheme: String,
        /// Why.
        why: String,
    },
    /// A request was answered, or failed after the connection stood.
    Request {
        /// `GET`, ...
        method: String,
        /// Scheme, host and port.
        endpoint: String,
        /// The path, without query.
        path: String,
        /// `anonymous`, `user bob`, `bearer token`, ...: what the request carried, never its value.
        credential: String,
        /// The status.
        status: Option<u16>,
        /// Headers of interest: content type and length, digest, rate limits, server, date, warnings.
        headers: Vec<(String, String)>,
        /// The protocol: `HTTP/1.1`, `HTTP/2.0`.
        protocol: Option<String>,
        /// What went wrong.
        error: Option<String>,
        /// Microseconds until the headers were there.
        micros: u64,
    },
    /// The registry asked for authentication.
    Challenge {
        /// Scheme, host and port that asked.
        endpoint: String,
        /// Each challenge.
        challenges: Vec<ChallengeFact>,
    },
    /// A token service was asked.
    Token {
        /// The realm, without query.
        realm: String,
        /// The service named.
        service: Option<String>,
        /// The scope asked for.
        scope: String,
        /// `anonymous`, `user bob`, ...: who asked.
        credential: String,
        /// Whether a token came back.
        granted: bool,
        /// Seconds that the token lives.
        expires_in: Option<u64>,
        /// What went wrong.
        error: Option<String>,
        /// Microseconds.
        micros: u64,
    },
    /// A redirect was followed.
    Redirect {
        /// Scheme, host and port that redirected.
        from: String,
        /// Scheme, host and port of the target.
        to: String,
        /// The status.
        status: u16,
        /// Whether authorization was dropped because the target is another origin.
        authorization_dropped: bool,
    },
    /// One of several endpoints did not serve, and the next one is asked.
    Endpoint {
        /// Scheme, host and port.
        endpoint: String,
        /// The cause and its words.
        outcome: String,
    },
    /// A request is sent again.
    Retry {
        /// What was asked.
        what: String,
        /// The attempt that failed, from 1.
        attempt: u32,
        /// Wait before the next one, in milliseconds.
        wait_millis: u64,
        /// Why.
        why: String,
    },
}

/// A certificate as a peer showed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// Subject, as a distinguished name.
    pub subject: String,
    /// Issuer, as a distinguished name.
    pub issuer: String,
    /// Start of validity, RFC 3339.
    pub not_before: String,
    /// End of validity, RFC 3339.
    pub not_after: String,
    /// DNS names and addresses of the subject, at most 100.
    pub names: Vec<String>,
    /// Whether it names itself as issuer.
    pub self_signed: bool,
    /// Certificates shown, this one included.
    pub chain: usize,
}

/// One challenge of a `WWW-Authenticate` header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChallengeFact {
    /// `Bearer`, `Basic`, ...
    pub scheme: String,
    /// The realm, a URL without its query.
    pub realm: Option<String>,
    /// The service.
    pub service: Option<String>,
    /// The scope.
    pub scope: Option<String>,
    /// `insufficient_scope`, `invalid_token`, ...
    pub error: Option<String>,
}

/// Takes facts as they happen. Called from the client's own tasks: must not block.
pub trait Observer: Send + Sync {
    /// Takes one fact.
    fn observe(&self, fact: Fact);
}

/// Keeps facts in order, at most 10 000 of them.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Vec<Fact>>);

const MOST_FACTS: usize = 10_000;

impl Recorder {
    /// A recorder that holds nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes out what was recorded so far.
    pub fn take(&self) -> Vec<Fact> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Recorder {
    fn observe(&self, fact: Fact) {
        let mut facts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if facts.len() < MOST_FACTS {
            facts.push(fact);
        }
    }
}
