//! Which proxy stands between this machine and a registry: the environment's variables with Go's rules, and rules of one's own.

use std::net::IpAddr;

use base64::Engine as _;
use http::HeaderValue;
use towline_keyring::Secret;

use crate::transport::SendFault;
use crate::url::{Origin, Scheme};

/// Where the proxies come from.
#[derive(Debug, Clone, Default)]
pub enum Proxies {
    /// `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`, also in lower case, as they are when the client is made.
    #[default]
    Environment,
    /// These.
    Given(ProxyOptions),
}

/// Proxies as the environment names them, and for single registries.
#[derive(Debug, Clone, Default)]
pub struct ProxyOptions {
    /// For plain HTTP: `[http[s]://][user:password@]host[:port]`.
    pub http: Option<Secret>,
    /// For HTTPS.
    pub https: Option<Secret>,
    /// Where no proxy is used: names, `.suffixes`, addresses, CIDR ranges, each also with a port; `*` for everywhere.
    pub no_proxy: String,
    /// For one registry (`host` or `host:port`), before everything else; `None` for none at all.
    pub registries: Vec<(String, Option<Secret>)>,
}

impl ProxyOptions {
    /// The environment's.
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// From variables that `get` knows.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Self {
        let any = |name: &str| {
            [name.to_owned(), name.to_ascii_lowercase()]
                .iter()
                .filter_map(|name| get(name))
                .find(|value| !value.is_empty())
        };
        Self {
            http: any("HTTP_PROXY").map(Secret::new),
            https: any("HTTPS_PROXY").map(Secret::new),
            no_proxy: any("NO_PROXY").unwrap_or_default(),
            registries: Vec::new(),
        }
    }
}

/// Why there is no way through a proxy.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ProxyFault {
    #[error("it is no URL of a proxy: {0}")]
    Invalid(String),
    #[error("it cannot be reached: {0}")]
    Unreached(Box<SendFault>),
    #[error("it does not behave as a proxy: {0}")]
    NotAProxy(String),
    #[error("it answered CONNECT with {status} {reason}{}", login(*.status, *.with_login))]
    Answered {
        status: u16,
        reason: String,
        with_login: bool,
    },
}

fn login(status: u16, given: bool) -> &'static str {
    match (status, given) {
        (407, true) => " (the login in its URL was sent)",
        (407, false) => " (its URL holds no login)",
        _ => "",
    }
}

/// A proxy. Prints without its login.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) origin: Origin,
    pub(crate) login: Option<HeaderValue>,
}

impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.origin.fmt(f)
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({})", self.origin)
    }
}

type Parsed = Result<Proxy, String>;

/// The rules, read once.
#[derive(Debug)]
pub(crate) struct Rules {
    http: Option<Parsed>,
    https: Option<Parsed>,
    except: Vec<Except>,
    registries: Vec<(String, Option<Parsed>)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Except {
    Everything,
    Address(IpAddr, Option<u16>),
    Range(IpAddr, u8),
    /// Without the leading dot; whether the name itself counts, besides those below it.
    Domain {
        name: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl Rules {
    pub(crate) fn new(proxies: &Proxies) -> Self {
        let options = match proxies {
            Proxies::Environment => ProxyOptions::from_environment(),
            Proxies::Given(options) => options.clone(),
        };
        let parsed = |secret: &Secret| parse(secret.expose());
        Self {
            http: options.http.as_ref().map(parsed),
            https: options.https.as_ref().map(parsed),
            except: options.no_proxy.split(',').filter_map(except).collect(),
            registries: options
                .registries
                .iter()
                .map(|(name, proxy)| (name.to_ascii_lowercase(), proxy.as_ref().map(parsed)))
                .collect(),
        }
    }

    /// The proxy for an origin, or what is wrong with it. This machine itself is never asked through one, as in Go.
    pub(crate) fn of(&self, origin: &Origin) -> Option<Result<&Proxy, &String>> {
        let with_port = format!("{}:{}", origin.host, origin.port);
        let own = self.registries.iter().find(|(name, _)| {
            *name == origin.host || *name == with_port || *name == origin.authority()
        });
        if let Some((_, proxy)) = own {
            return proxy.as_ref().map(Result::as_ref);
        }
        let proxy = match origin.scheme {
            Scheme::Http => self.http.as_ref(),
            Scheme::Https => self.https.as_ref(),
        }?;
        let local = origin.host == "localhost"
            || origin
                .address()
                .is_some_and(|address| address.is_loopback());
        if local || self.except.iter().any(|rule| rule.covers(origin)) {
            return None;
        }
        Some(proxy.as_ref())
    }
}

impl Except {
    fn covers(&self, origin: &Origin) -> bool {
        let port_is = |port: &Option<u16>| port.is_none_or(|port| port == origin.port);
        match self {
            Self::Everything => true,
            Self::Address(address, port) => {
                origin.address().map(|found| found.to_canonical()) == Some(address.to_canonical())
                    && port_is(port)
            }
            Self::Range(network, bits) => origin
                .address()
                .is_some_and(|address| in_range(address.to_canonical(), *network, *bits)),
            Self::Domain { name, itself, port } => {
                let below = origin
                    .host
                    .strip_suffix(name.as_str())
                    .is_some_and(|rest| rest.ends_with('.'));
                (below || (*itself && origin.host == *name)) && port_is(port)
            }
        }
    }
}

fn in_range(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let shift = 32 - u32::from(bits.min(32));
            let cut = |address: u32| address.checked_shr(shift).unwrap_or(0);
            cut(address.to_bits()) == cut(network.to_bits())
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let shift = 128 - u32::from(bits.min(128));
            let cut = |address: u128| address.checked_shr(shift).unwrap_or(0);
            cut(address.to_bits()) == cut(network.to_bits())
        }
        _ => false,
    }
}

/// One entry of `NO_PROXY`, by Go's rules.
fn except(entry: &str) -> Option<Except> {
    let entry = entry.trim().to_ascii_lowercase();
    if entry.is_empty() {
        return None;
    }
    if entry == "*" {
        return Some(Except::Everything);
    }
    if let Some((network, bits)) = entry.split_once('/') {
        return Some(Except::Range(network.parse().ok()?, bits.parse().ok()?));
    }
    let (host, port) = split_port(&entry);
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Some(Except::Address(address, port));
    }
    let host = host.strip_prefix('*').unwrap_or(host);
    let (name, itself) = match host.strip_prefix('.') {
        Some(name) => (name, false),
        None => (host, true),
    };
    (!name.is_empty()).then(|| Except::Domain {
        name: name.to_owned(),
        itself,
        port,
    })
}

fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}

/// Reads a proxy's URL. What is wrong is said without the text, which may hold a password.
fn parse(text: &str) -> Parsed {
    let text = text.trim();
    let (scheme, rest) = match text.split_once("://") {
        None => (Scheme::Http, text),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
        Some((scheme, _)) => {
            let scheme: String = scheme.chars().take(20).collect();
            return Err(format!("proxies of kind {scheme:?} are not spoken to"));
        }
    };
    let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (login, authority) = match rest.rsplit_once('@') {
        Some((login, authority)) => (Some(login), authority),
        None => (None, rest),
    };
    let origin = Origin::of_authority(scheme, authority).map_err(|why| why.to_string())?;
    let login = login.map(|login| {
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let pair = [decoded(user), b":".to_vec(), decoded(password)].concat();
        let text = base64::engine::general_purpose::STANDARD.encode(pair);
        // Base64 always fits into a header.
        let mut value = HeaderValue::from_str(&format!("Basic {text}"))
            .unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    });
    Ok(Proxy { origin, login })
}

/// Percent-decodes.
fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(byte) = hex {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::Url;

    fn rules(http: &str, https: &str, no: &str) -> Rules {
        Rules::new(&Proxies::Given(ProxyOptions::from_variables(
            |name| match name {
                "HTTP_PROXY" => Some(http.to_owned()),
                "https_proxy" => Some(https.to_owned()),
                "no_proxy" => Some(no.to_owned()),
                _ => None,
            },
        )))
    }

    fn of(rules: &Rules, url: &str) -> String {
        let origin = Url::parse(url).unwrap().origin;
        match rules.of(&origin) {
            None => "none".to_owned(),
            Some(Ok(proxy)) => proxy.to_string(),
            Some(Err(why)) => why.clone(),
        }
    }

    #[test]
    fn exceptions_by_gos_rules() {
        for (no, url, direct) in [
            ("", "https://r.corp", false),
            ("", "https://localhost:5000", true),
            ("", "https://127.0.0.9", true),
            ("", "https://[::1]:5000", true),
            ("*", "https://r.corp", true),
            ("corp", "https://r.corp", true),
            ("r.corp", "https://r.corp", true),
            ("r.corp", "https://a.r.corp", true),
            ("r.corp", "https://xr.corp", false),
            (".r.corp", "https://r.corp", false),
            (".r.corp", "https://a.r.corp", true),
            ("*.r.corp", "https://a.r.corp", true),
            ("*.r.corp", "https://r.corp", false),
            ("r.corp:5000", "https://r.corp:5000", true),
            ("r.corp:5000", "https://r.corp", false),
            ("10.0.0.0/8", "https://10.1.2.3:5000", true),
            ("10.0.0.0/8", "https://11.1.2.3", false),
            ("0.0.0.0/0", "https://11.1.2.3", true),
            ("fd00::/8", "https://[fd00::7]", true),
            ("fd00::/8", "https://10.1.2.3", false),
            ("10.1.2.3", "https://10.1.2.3", true),
            ("10.1.2.3:81", "https://10.1.2.3", false),
            ("[fd00::7]:81", "https://[fd00::7]:81", true),
            ("fd00::7", "https://[fd00::7]:81", true),
            (" A.Corp , R.Corp ", "https://r.corp", true),
            ("10.0.0.0/x,,:5", "https://r.corp", false),
        ] {
            let got = of(&rules("", "p.corp:3128", no), url);
            assert_eq!(got == "none", direct, "{no:?} {url} {got}");
        }
    }

    #[test]
    fn proxies_are_read_and_their_logins_are_not_told() {
        for (text, want) in [
            ("p.corp:3128", "http://p.corp:3128"),
            ("http://p.corp", "http://p.corp"),
            ("https://p.corp:8443/x", "https://p.corp:8443"),
            ("http://bob:can%40ary@p.corp:3128", "http://p.corp:3128"),
            (
                "socks5://bob:canary@p.corp",
                "proxies of kind \"socks5\" are not spoken to",
            ),
            ("http://bob:canary@", "its host does not parse"),
        ] {
            let rules = rules(text, "", "");
            assert_eq!(of(&rules, "http://r.corp"), want, "{text}");
            assert_eq!(of(&rules, "https://r.corp"), "none");
            assert!(!format!("{rules:?}").contains("canary"), "{rules:?}");
        }
        let proxy = parse("http://bob:can%40ary@p.corp").unwrap();
        let sent = proxy.login.unwrap();
        assert_eq!(sent.to_str().unwrap(), "Basic Ym9iOmNhbkBhcnk=");
    }

    #[test]
    fn one_registrys_own_rule_comes_first() {
        let rules = Rules::new(&Proxies::Given(ProxyOptions {
            https: Some(Secret::new("p.corp:1".to_owned())),
            registries: vec![
                ("a.corp".to_owned(), None),
                (
                    "b.corp:5000".to_owned(),
                    Some(Secret::new("q.corp:2".to_owned())),
                ),
            ],
            ..ProxyOptions::default()
        }));
        assert_eq!(of(&rules, "https://a.corp:444"), "none");
        assert_eq!(of(&rules, "https://b.corp:5000"), "http://q.corp:2");
        assert_eq!(of(&rules, "https://b.corp"), "http://p.corp:1");
    }
}
