//! Go's words for name resolution, connections and TLS, which every runtime here passes on.

use towline_cause::{Cause, Step};

use crate::chain::Chain;
use crate::context::Context;
use crate::errno::is_errno;
use crate::public::{host_of, is_loopback, is_no_hosts, is_private_name, is_public};
use crate::verdict::{Verdict, likely, stated};

/// What Go says where a proxy wants a login.
const LOGIN: &str = "proxy authentication required";

/// A proxy between explains whatever happens behind it.
pub(crate) fn outer(chain: &Chain, _context: &Context) -> Option<Verdict> {
    let proxy = chain.starts("proxyconnect ").or_else(|| {
        chain
            .links()
            .iter()
            .position(|link| link.plain.starts_with("error connecting to proxy"))
    });
    let after = chain.plain(proxy? + 1);
    let after = after.strip_prefix("407").map_or(after, str::trim_start);
    Some(if after.starts_with(LOGIN) {
        stated(Cause::ProxyAuthRequired)
    } else if LOGIN.starts_with(after) {
        // The text was cut before it said what the proxy answered.
        likely(Cause::ProxyMisconfigured, &[Cause::ProxyAuthRequired])
    } else {
        stated(Cause::ProxyMisconfigured)
    })
}

/// One link.
pub(crate) fn link(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    if let Some(verdict) = dns(chain, at, context).or_else(|| tls(chain, at, context)) {
        return Some(verdict);
    }
    if plain == "proxy authentication required"
        || plain.starts_with("407 proxy authentication required")
    {
        return Some(stated(Cause::ProxyAuthRequired));
    }
    connect(chain, at, context)
}

/// `lookup HOST on SERVER: words`, and the words of other resolvers.
fn dns(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    let lookup = (0..=at)
        .rev()
        .find(|at| chain.plain(*at).starts_with("lookup "));
    let Some(lookup) = lookup else {
        let unknown = plain == "name or service not known";
        return unknown.then(|| likely(Cause::DnsNameNotFound, &[Cause::DnsFailed]));
    };
    let host = chain
        .text(lookup)
        .split_whitespace()
        .nth(1)
        .unwrap_or_default();
    let failed = match plain {
        "no such host" | "no such host is known" => false,
        "server misbehaving"
        | "temporary failure in name resolution"
        | "try again"
        | "i/o timeout"
        | "connection refused"
        | "cannot unmarshal dns message"
        | "no answer from dns server" => true,
        _ if plain.starts_with("this is usually a temporary error during hostname resolution") => {
            true
        }
        // Whatever keeps the question from being asked.
        _ if is_errno(plain) => true,
        _ => return None,
    };
    if context.token {
        return Some(unreachable_token(if failed {
            Cause::DnsFailed
        } else {
            Cause::DnsNameNotFound
        }));
    }
    if context.elsewhere() {
        let other = if failed {
            Cause::DnsFailed
        } else {
            Cause::DnsNameNotFound
        };
        return Some(likely(Cause::BlobHostUnreachable, &[other]));
    }
    Some(if failed {
        stated(Cause::DnsFailed)
    } else if is_public(host) {
        likely(Cause::DnsFailed, &[Cause::DnsNameNotFound])
    } else if is_private_name(host_of(host)) {
        stated(Cause::DnsNameNotFound)
    } else {
        likely(Cause::DnsNameNotFound, &[Cause::DnsFailed])
    })
}

fn unreachable_token(other: Cause) -> Verdict {
    likely(Cause::TokenServiceUnreachable, &[other]).at(Step::Authenticate)
}

/// Errors of the socket.
fn connect(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let address = dialled(chain, at);
    if let Some(verdict) = local_socket(chain, at) {
        return Some(verdict);
    }
    let (cause, others) = socket(chain, at, context, address)?;
    // Whoever is asked, it is the node that has no way out by IPv6.
    if cause == Cause::Ipv6Unreachable {
        return Some(stated(cause));
    }
    if context.token && !matches!(cause, Cause::ConnectionReset | Cause::RegistryMisconfigured) {
        return Some(unreachable_token(cause));
    }
    if chain.starts("proxy error").is_some() {
        return Some(likely(
            cause,
            &[Cause::RegistryError, Cause::ProxyMisconfigured],
        ));
    }
    if context.elsewhere() {
        // A connection that was cut was there.
        let (cause, other) = match cause {
            Cause::ConnectionReset => (cause, Cause::BlobHostUnreachable),
            other => (Cause::BlobHostUnreachable, other),
        };
        return Some(likely(cause, &[other]).at(Step::Fetch));
    }
    if cause == Cause::ConnectionRefused {
        return Some(refused(address.unwrap_or_default(), context));
    }
    Some(if others.is_empty() {
        stated(cause)
    } else {
        likely(cause, others)
    })
}

/// What a link says of a socket, and the other causes that its words leave open.
fn socket(
    chain: &Chain,
    at: usize,
    context: &Context,
    address: Option<&str>,
) -> Option<(Cause, &'static [Cause])> {
    let by_address = address.and_then(|address| dialling(chain, at, context, address));
    by_address.or_else(|| request(chain, at, context, address.is_some()))
}

/// What keeps a connection to this address from coming about.
fn dialling(
    chain: &Chain,
    at: usize,
    context: &Context,
    address: &str,
) -> Option<(Cause, &'static [Cause])> {
    let plain = chain.plain(at);
    Some(match plain {
        "connection refused" => (Cause::ConnectionRefused, &[]),
        "no route to host" | "host is down" => (Cause::HostUnreachable, &[]),
        "network is unreachable" | "cannot assign requested address" => {
            if address.starts_with('[') {
                (Cause::Ipv6Unreachable, &[])
            } else {
                (Cause::HostUnreachable, &[Cause::Ipv6Unreachable])
            }
        }
        // Whoever wrote the address asked no resolver for it.
        "invalid argument" if is_no_hosts(context.authority()) => (Cause::HostUnreachable, &[]),
        "invalid argument" if is_no_hosts(address) => {
            (Cause::DnsWrongAnswer, &[Cause::HostUnreachable])
        }
        "invalid argument" if chain.before(at) == "connect" => {
            (Cause::HostUnreachable, &[Cause::DnsWrongAnswer])
        }
        "i/o timeout" => (
            Cause::ConnectionTimeout,
            &[
                Cause::AccessRestricted,
                Cause::ProxyMisconfigured,
                Cause::DnsFailed,
            ],
        ),
        _ if windows_refused(plain) => (Cause::ConnectionRefused, &[]),
        _ if windows_timeout(plain) => (
            Cause::ConnectionTimeout,
            &[Cause::AccessRestricted, Cause::ProxyMisconfigured],
        ),
        _ => return None,
    })
}

/// What ends a request, or an answer.
fn request(
    chain: &Chain,
    at: usize,
    context: &Context,
    dialled: bool,
) -> Option<(Cause, &'static [Cause])> {
    let plain = chain.plain(at);
    Some(match plain {
        "connection reset by peer" => (Cause::ConnectionReset, &[Cause::AccessRestricted]),
        "eof" | "unexpected eof" if (context.request || context.resolve) && !context.unpack => (
            Cause::ConnectionReset,
            &[Cause::RegistryError, Cause::TlsHandshakeFailed],
        ),
        _ if plain.starts_with("unexpected eof") && context.fetch && !context.unpack => {
            (Cause::ConnectionReset, &[])
        }
        _ if plain.contains("(client.timeout exceeded while awaiting headers)") => (
            Cause::ConnectionTimeout,
            &[
                Cause::DnsFailed,
                Cause::ProxyMisconfigured,
                Cause::RegistryError,
            ],
        ),
        _ if plain.starts_with("timeout awaiting response headers")
            || plain.starts_with("request canceled while waiting for connection") =>
        {
            (
                Cause::ConnectionTimeout,
                &[
                    Cause::DnsFailed,
                    Cause::ProxyMisconfigured,
                    Cause::RegistryError,
                ],
            )
        }
        _ if (plain == "request canceled" && chain.before(at) == "net/http")
            || plain.ends_with("context cancellation while reading body)") =>
        {
            (
                Cause::PullStalled,
                &[Cause::ConnectionTimeout, Cause::DeadlineExceeded],
            )
        }
        // A connection that was open and went silent ends so, too.
        "connection timed out" | "operation timed out" if dialled || context.request => (
            Cause::ConnectionTimeout,
            &[Cause::AccessRestricted, Cause::ProxyMisconfigured],
        ),
        _ if cut(plain)
            && (context.request
                || context.fetch
                || ["http2", "write", "read"].contains(&chain.before(at)))
            && !context.unpack =>
        {
            (Cause::ConnectionReset, &[Cause::RegistryError])
        }
        _ if plain.starts_with("invalid header field value for _") => {
            (Cause::PullSecretMalformed, &[Cause::WrongCredentials])
        }
        "no location header in response" | "stopped after 10 redirects" => {
            (Cause::RegistryMisconfigured, &[])
        }
        "unsupported protocol scheme _" => (Cause::MirrorMisconfigured, &[]),
        _ => return None,
    })
}

/// Windows' words for a refused connection.
fn windows_refused(plain: &str) -> bool {
    plain.starts_with("no connection could be made because the target machine actively refused it")
}

/// Windows' words for a host that does not answer.
fn windows_timeout(plain: &str) -> bool {
    plain.starts_with(
        "a connection attempt failed because the connected party did not properly respond",
    )
}

/// Words of a connection that the other side, or something between, ended in the middle.
fn cut(plain: &str) -> bool {
    matches!(
        plain,
        "broken pipe"
            | "use of closed network connection"
            | "client connection lost"
            | "bad record mac"
            | "server closed idle connection"
    ) || plain.starts_with("server sent goaway and closed the connection")
        || (plain.starts_with("stream id ") && plain.ends_with("received from peer"))
}

/// A refused connection: on loopback the image may name the node itself; another name that leads there resolves wrongly.
fn refused(address: &str, context: &Context) -> Verdict {
    if !is_loopback(address) {
        return stated(Cause::ConnectionRefused);
    }
    if context
        .url
        .as_ref()
        .is_none_or(|url| is_loopback(&url.authority))
    {
        return Verdict {
            alternatives: vec![Cause::RegistryIsLocalhost],
            ..stated(Cause::ConnectionRefused)
        };
    }
    likely(Cause::ConnectionRefused, &[Cause::DnsWrongAnswer])
}

/// The address of the `dial` or `read` before a link.
fn dialled(chain: &Chain, at: usize) -> Option<&str> {
    (at.saturating_sub(2)..=at).rev().find_map(|at| {
        let text = chain.text(at);
        text.find("dial tcp")
            .map(|start| text[start + "dial tcp".len()..].trim())
    })
}

/// The runtime's own socket.
fn local_socket(chain: &Chain, at: usize) -> Option<Verdict> {
    let unix = (at.saturating_sub(2)..=at).any(|at| chain.text(at).contains("dial unix"));
    if !unix {
        return None;
    }
    let of_snapshots = [
        "failed to prepare extraction snapshot",
        "failed to unpack image on snapshotter",
        "failed to stat snapshot",
        "failed to extract layer",
        "failed to create snapshot",
        "failed to prepare snapshot",
    ];
    if of_snapshots
        .iter()
        .any(|words| chain.starts(words).is_some())
    {
        return Some(stated(Cause::SnapshotterFailed));
    }
    let words = [
        "connection refused",
        "no such file or directory",
        "permission denied",
    ];
    words
        .iter()
        .any(|words| chain.plain(at).starts_with(words))
        .then(|| stated(Cause::RuntimeUnavailable))
}

/// TLS and the confusion of HTTP and HTTPS.
fn tls(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    let interceptable = is_public(context.authority());
    if plain == "server gave http response to https client" {
        // With a mirror over HTTP containerd tells the error of its second try, over HTTPS, only.
        let others: &[Cause] = match (context.token, chain.starts("failed to do request")) {
            (true, _) => &[Cause::RegistryMisconfigured],
            (_, Some(_)) => &[Cause::MirrorMisconfigured, Cause::TagNotFound],
            _ => &[],
        };
        return Some(if others.is_empty() {
            stated(Cause::PlainHttpRegistry)
        } else {
            likely(Cause::PlainHttpRegistry, others)
        });
    }
    if plain == "first record does not look like a tls handshake"
        || plain.starts_with("oversized record received with length ")
    {
        return Some(likely(
            Cause::PlainHttpRegistry,
            &[Cause::ProxyMisconfigured, Cause::TlsIntercepted],
        ));
    }
    if chain
        .text(at)
        .starts_with("malformed HTTP response \"\\x15\\x03")
    {
        return Some(stated(Cause::HttpsRegistryOverHttp));
    }
    // Words, where a line of HTTP should be. What is no text is some other protocol.
    let line = chain
        .text(at)
        .strip_prefix("malformed HTTP response \"")
        .and_then(|line| line.strip_suffix('"'));
    if context.request && line.is_some_and(|line| line.len() > 3 && !line.contains("\\x")) {
        return Some(likely(
            Cause::NotARegistry,
            &[Cause::PlainHttpRegistry, Cause::ProxyMisconfigured],
        ));
    }
    let settings = [
        "server selected unsupported protocol version",
        "no supported versions satisfy",
        "server chose an unconfigured cipher suite",
        "failed to parse certificate from server",
    ];
    if chain.before(at) == "tls" && settings.iter().any(|words| plain.starts_with(words)) {
        return Some(stated(Cause::TlsHandshakeFailed));
    }
    if plain == "tls handshake timeout"
        || plain == "net/http" && chain.plain(at + 1) == "tls handshake timeout"
    {
        return Some(likely(
            Cause::TlsHandshakeFailed,
            &[Cause::AccessRestricted, Cause::PathMtu],
        ));
    }
    if chain.before(at) == "tls" && (at >= 2 && chain.plain(at - 2) == "remote error") {
        return Some(match plain {
            "certificate required" => stated(Cause::TlsClientCertificateRequired),
            // The server judges what the client showed, or that it showed nothing.
            "bad certificate"
            | "unknown certificate authority"
            | "unknown certificate"
            | "expired certificate" => likely(
                Cause::TlsClientCertificateRequired,
                &[Cause::TlsHandshakeFailed, Cause::TlsUnknownAuthority],
            ),
            "handshake failure" => likely(
                Cause::TlsHandshakeFailed,
                &[Cause::TlsIntercepted, Cause::TlsClientCertificateRequired],
            ),
            _ => likely(
                Cause::TlsHandshakeFailed,
                &[Cause::TlsClientCertificateRequired],
            ),
        });
    }
    certificate(chain, at, interceptable)
}

/// What follows `x509`.
fn certificate(chain: &Chain, at: usize, interceptable: bool) -> Option<Verdict> {
    let plain = chain.plain(at);
    // The words of OpenSSL, curl and rustls for a chain that leads to nobody they know.
    let of_others = [
        "unable to get local issuer certificate",
        "unable to verify the first certificate",
        "self signed certificate",
        "self-signed certificate",
    ];
    if of_others.iter().any(|words| plain.contains(words))
        || (plain == "unknownissuer" && chain.before(at) == "invalid peer certificate")
    {
        return Some(likely(Cause::TlsUnknownAuthority, &[Cause::TlsIntercepted]));
    }
    let said = chain.before(at) == "x509" || plain.starts_with("x509");
    if !said {
        return expiry_times(chain, at);
    }
    if plain.starts_with("certificate signed by unknown authority") {
        return Some(if interceptable {
            likely(
                Cause::TlsUnknownAuthority,
                &[Cause::TlsIntercepted, Cause::DnsWrongAnswer],
            )
        } else {
            stated(Cause::TlsUnknownAuthority)
        });
    }
    let untrusted = [
        "certificate is not authorized to sign other certificates",
        "failed to load system roots and no roots provided",
        "invalid signature",
        "issuer name does not match subject from issuing certificate",
        "certificate specifies an incompatible key usage",
        "insecure algorithm",
        "unhandled critical extension",
        "certificate is not trusted",
        "certificate is not standards compliant",
    ];
    if untrusted.iter().any(|words| plain.contains(words)) {
        return Some(likely(Cause::TlsUnknownAuthority, &[Cause::TlsIntercepted]));
    }
    if plain.starts_with("certificate has expired or is not yet valid") {
        // Public registries renew theirs in time.
        return Some(if interceptable {
            likely(
                Cause::NodeClockSkew,
                &[Cause::TlsCertificateExpired, Cause::TlsIntercepted],
            )
        } else {
            likely(
                Cause::TlsCertificateExpired,
                &[Cause::NodeClockSkew, Cause::TlsIntercepted],
            )
        });
    }
    let mismatch = [
        "certificate is valid for ",
        "certificate is not valid for any names",
        "cannot validate certificate for",
    ];
    if mismatch.iter().any(|words| plain.starts_with(words))
        || plain.starts_with("certificate relies on legacy common name")
    {
        return Some(if plain.starts_with("certificate is valid for ") {
            likely(
                Cause::TlsNameMismatch,
                &[Cause::DnsWrongAnswer, Cause::TlsIntercepted],
            )
        } else {
            stated(Cause::TlsNameMismatch)
        });
    }
    None
}

/// The end of the root that many old bundles still hold; a certificate that "expired" then is not the server's.
const OLD_ROOT: &str = "2021-09-30T14:01:15Z";

/// `current time A is after B`: both times are told, so the certificate really is past its end by the node's clock.
fn expiry_times(chain: &Chain, at: usize) -> Option<Verdict> {
    let plain = chain.plain(at);
    if !plain.starts_with("current time ")
        || !chain.before(at).starts_with("certificate has expired")
    {
        return None;
    }
    if chain.text(at).contains(OLD_ROOT) {
        return Some(likely(
            Cause::TlsUnknownAuthority,
            &[Cause::TlsCertificateExpired],
        ));
    }
    // Certificates are seldom used before their time, and clocks without a battery begin in the past. One that stands before any
    // registry was ever asked is certainly wrong, whatever the certificate says.
    if plain.contains(" is before ") {
        return Some(if year(chain.text(at)).is_some_and(|year| year < 2013) {
            stated(Cause::NodeClockSkew)
        } else {
            likely(Cause::NodeClockSkew, &[Cause::TlsCertificateExpired])
        });
    }
    plain
        .contains(" is after ")
        .then(|| stated(Cause::TlsCertificateExpired))
}

/// The year in `current time 1970-01-01T00:02:17Z is before ...`.
fn year(text: &str) -> Option<u16> {
    text.strip_prefix("current time ")?.get(..4)?.parse().ok()
}
