//! Origins and URLs: what a request goes to. Strict, small, and safe to print.

use std::fmt;
use std::net::IpAddr;

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Scheme, host and port. `host` is lower case and without brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Origin {
    pub(crate) scheme: Scheme,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    /// From `host[:port]` as a reference names it.
    pub(crate) fn of_authority(scheme: Scheme, authority: &str) -> Result<Self, UrlError> {
        let (host, port) = split_authority(authority)?;
        Ok(Self {
            scheme,
            host,
            port: port.unwrap_or_else(|| scheme.default_port()),
        })
    }

    /// `host[:port]` for a `Host` header: the port only where it is not the scheme's own.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == self.scheme.default_port() {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }

    /// The host as an address, where it is one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// `localhost`, 127.0.0.0/8 or `::1`, by name.
    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.ends_with(".localhost")
            || self.address().is_some_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.authority())
    }
}

/// Why a text is not a URL that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlError {
    #[error("it is longer than 8192 bytes")]
    Long,
    #[error("it is neither http nor https")]
    Scheme,
    #[error("it holds a user name or password")]
    UserInfo,
    #[error("its host does not parse")]
    Host,
    #[error("it holds a character that must not stand in a URL")]
    Character,
}

const MAX_URL: usize = 8192;

/// An absolute URL. `Display` leaves the query out.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) origin: Origin,
    /// Starts with `/`.
    pub(crate) path: String,
    /// Without `?`.
    pub(crate) query: Option<String>,
}

impl Url {
    pub(crate) fn new(origin: Origin, path: impl Into<String>) -> Self {
        Self {
            origin,
            path: path.into(),
            query: None,
        }
    }

    pub(crate) fn with_query(mut self, pairs: &[(&str, &str)]) -> Self {
        let mut query = self.query.take().unwrap_or_default();
        for (name, value) in pairs {
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(name);
            query.push('=');
            query.push_str(&encode(value));
        }
        self.query = (!query.is_empty()).then_some(query);
        self
    }

    /// Reads an absolute URL.
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        check(text)?;
        let (scheme, rest) = split_scheme(text).ok_or(UrlError::Scheme)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let origin = Origin::of_authority(scheme, &rest[..end])?;
        let (path, query) = split_path(&rest[end..]);
        Ok(Self {
            origin,
            path,
            query,
        })
    }

    /// Reads a `Location`: absolute, or relative to this URL.
    pub(crate) fn join(&self, location: &str) -> Result<Self, UrlError> {
        check(location)?;
        if split_scheme(location).is_some() {
            return Self::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.origin.scheme.name()));
        }
        let scheme_like = location
            .find(':')
            .is_some_and(|colon| !location[..colon].contains(['/', '?', '#']));
        if scheme_like {
            return Err(UrlError::Scheme);
        }
        let origin = self.origin.clone();
        let (path, query) = if location.starts_with('/') {
            split_path(location)
        } else if location.starts_with('?') {
            (self.path.clone(), split_path(location).1)
        } else {
            let folder = self.path.rfind('/').map_or("/", |at| &self.path[..=at]);
            split_path(&format!("{folder}{location}"))
        };
        Ok(Self {
            origin,
            path,
            query,
        })
    }

    /// Path and query, as a request line has them.
    pub(crate) fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.path)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn check(text: &str) -> Result<(), UrlError> {
    if text.len() > MAX_URL {
        return Err(UrlError::Long);
    }
    let odd =
        |b: u8| !b.is_ascii_graphic() || matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`');
    if text.bytes().any(odd) {
        return Err(UrlError::Character);
    }
    Ok(())
}

fn split_scheme(text: &str) -> Option<(Scheme, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    if scheme.eq_ignore_ascii_case("https") {
        Some((Scheme::Https, rest))
    } else if scheme.eq_ignore_ascii_case("http") {
        Some((Scheme::Http, rest))
    } else {
        None
    }
}

fn split_path(text: &str) -> (String, Option<String>) {
    let text = text.split('#').next().unwrap_or_default();
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (text, None),
    };
    let path = if path.is_empty() { "/" } else { path };
    (path.to_owned(), query.filter(|query| !query.is_empty()))
}

fn split_authority(authority: &str) -> Result<(String, Option<u16>), UrlError> {
    if authority.contains('@') {
        return Err(UrlError::UserInfo);
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = match port {
        None | Some("") => None,
        Some(port) if port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()) => {
            Some(port.parse().map_err(|_| UrlError::Host)?)
        }
        Some(_) => return Err(UrlError::Host),
    };
    if let Some(inner) = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        let address: std::net::Ipv6Addr = inner.parse().map_err(|_| UrlError::Host)?;
        return Ok((address.to_string(), port));
    }
    let host = host.to_ascii_lowercase();
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = host.strip_suffix('.').unwrap_or(&host);
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(UrlError::Host);
    }
    // All digits and dots: an address, in its one normal form only (no octal, no short forms).
    if name.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && name.parse::<std::net::Ipv4Addr>().is_err()
    {
        return Err(UrlError::Host);
    }
    Ok((name.to_owned(), port))
}

/// Percent-encodes a query or form value.
pub(crate) fn encode(value: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b',')
        {
            text.push(byte as char);
        } else {
            text.push('%');
            text.push(HEX[usize::from(byte >> 4)] as char);
            text.push(HEX[usize::from(byte & 15)] as char);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_joined() {
        let base = Url::parse("https://r.example:5000/v2/a/blobs/uploads/1?x=1").unwrap();
        for (location, want) in [
            ("/v2/b?y=2", "https://r.example:5000/v2/b?y=2"),
            ("2?z=3", "https://r.example:5000/v2/a/blobs/uploads/2?z=3"),
            ("?q=1", "https://r.example:5000/v2/a/blobs/uploads/1?q=1"),
            ("//cdn.example/z", "https://cdn.example/z"),
            ("HTTP://CDN.example:80/z#f", "http://cdn.example/z"),
            ("https://[::1]:7/z", "https://[::1]:7/z"),
        ] {
            let url = base.join(location).unwrap();
            assert_eq!(
                format!("{}{}", url.origin, url.target()),
                want,
                "{location}"
            );
        }
    }

    #[test]
    fn odd_locations_are_refused() {
        let base = Url::parse("https://r.example/v2/").unwrap();
        for (location, want) in [
            ("ftp://x/y", UrlError::Scheme),
            ("javascript:alert(1)", UrlError::Scheme),
            ("https://good@evil/", UrlError::UserInfo),
            ("https://a b/", UrlError::Character),
            ("https://x\\@evil/", UrlError::Character),
            ("https:///x", UrlError::Host),
            ("https://x:99999/", UrlError::Host),
            ("https://0177.0.0.1/", UrlError::Host),
            ("https://2130706433/", UrlError::Host),
            ("https://ｅvil/", UrlError::Character),
        ] {
            assert_eq!(base.join(location), Err(want), "{location}");
        }
        assert_eq!(
            base.join(&format!("/{}", "a".repeat(MAX_URL))),
            Err(UrlError::Long)
        );
    }

    #[test]
    fn what_is_joined_reads_back_and_stays_clean() {
        const PARTS: [&str; 18] = [
            "http", "https", "://", "//", "/", "a", ".", "..", ":", "80", "?", "#", "@", "[", "]",
            "::1", "%2f", "\r\n",
        ];
        let base = Url::parse("https://r.example/v2/a/b?c=d").unwrap();
        let mut random = fastrand::Rng::with_seed(11);
        let mut read = 0;
        for _ in 0..50_000 {
            let text: String = (0..random.usize(0..8))
                .map(|_| *random.choice(&PARTS).unwrap_or(&""))
                .collect();
            let Ok(url) = base.join(&text) else { continue };
            read += 1;
            let whole = format!("{}{}", url.origin, url.target());
            assert!(
                whole.bytes().all(|b| b.is_ascii_graphic()),
                "{text:?} {whole}"
            );
            assert_eq!(Url::parse(&whole), Ok(url.clone()), "{text:?} {whole}");
            assert!(
                url.path.starts_with('/') && whole.parse::<http::Uri>().is_ok(),
                "{text:?} {whole}"
            );
        }
        assert!(read > 1000, "{read}");
    }

    #[test]
    fn printing_leaves_the_query_out() {
        let url = Url::parse("https://s3.example/b?X-Amz-Signature=canary").unwrap();
        assert_eq!(
            format!("{url} {url:?}"),
            "https://s3.example/b https://s3.example/b"
        );
    }

    #[test]
    fn queries_are_encoded() {
        let url = Url::parse("https://t.example/token?a=b")
            .unwrap()
            .with_query(&[("service", "r & co"), ("scope", "repository:a/b:pull")]);
        assert_eq!(
            url.target(),
            "/token?a=b&service=r%20%26%20co&scope=repository:a/b:pull"
        );
    }
}
