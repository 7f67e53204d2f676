//! From a request without an answer to a [`Failure`]: one table.

use towline_cause::{Cause, Failure, Step};

use crate::body::BodyFault;
use crate::connect::{ConnectError, ConnectFault};
use crate::dns::DnsFault;
use crate::proxy::ProxyFault;
use crate::public::is_public;
use crate::tls::TlsFault;
use crate::transport::SendFault;
use crate::url::{Origin, Scheme};

/// The failure that a request without an answer is. `what` says what was asked, as in `GET manifest 1.2 of team/app`.
pub(crate) fn of_send(fault: &SendFault, origin: &Origin, what: &str, step: Step) -> Failure {
    let failure = match fault {
        SendFault::Dns { fault, asked } => of_dns(fault, origin, asked),
        SendFault::Connect(error) => {
            let (cause, alternatives) = of_connect(error.fault, error.lacks_ipv6(), origin);
            Failure::new(
                cause,
                Step::Connect,
                format!(
                    "no connection to {} port {}: {error}",
                    origin.host, origin.port
                ),
            )
            .or_else(alternatives)
        }
        SendFault::Tls(fault) => of_tls(fault, origin),
        SendFault::Proxy { proxy, fault } => of_proxy(proxy, fault, origin),
        SendFault::Forbidden(address) => Failure::new(
            Cause::RegistryMisconfigured,
            step,
            format!("{origin} resolves to {address}: another machine must not send this one there"),
        )
        .or_else([Cause::DnsWrongAnswer]),
        SendFault::TlsOnPlain => Failure::new(
            Cause::HttpsRegistryOverHttp,
            Step::Connect,
            format!("{origin} was asked over plain HTTP and speaks TLS"),
        ),
        SendFault::HeadersTimeout(limit) => Failure::new(
            Cause::ConnectionTimeout,
            step,
            format!(
                "{what}: {origin} accepted the connection and did not answer within {} s",
                limit.as_secs_f32()
            ),
        )
        .or_else([Cause::RegistryError, Cause::PathMtu]),
        SendFault::Closed | SendFault::Reset | SendFault::Stream(_) => Failure::new(
            Cause::ConnectionReset,
            step,
            format!("{what}: {origin}: {fault}"),
        )
        .or_else([Cause::RegistryError]),
        SendFault::HeadersTooLarge | SendFault::NotHttp(_) => Failure::new(
            Cause::NotARegistry,
            step,
            format!("{what}: {origin}: {fault}"),
        ),
        SendFault::Other(_) => {
            Failure::new(Cause::Unknown, step, format!("{what}: {origin}: {fault}"))
        }
    };
    failure.at(origin.to_string())
}

fn of_proxy(proxy: &str, fault: &ProxyFault, origin: &Origin) -> Failure {
    let (cause, alternatives) = match fault {
        // In whatever way it does not answer: what the node was told to use is not there.
        ProxyFault::Unreached(_) | ProxyFault::Invalid(_) => (Cause::ProxyMisconfigured, vec![]),
        ProxyFault::NotAProxy(_) => (Cause::ProxyMisconfigured, vec![Cause::ConnectionReset]),
        ProxyFault::Answered { status: 407, .. } => (Cause::ProxyAuthRequired, vec![]),
        ProxyFault::Answered { status: 504, .. } => {
            (Cause::ConnectionTimeout, vec![Cause::ProxyMisconfigured])
        }
        ProxyFault::Answered { status: 500.., .. } => (
            Cause::HostUnreachable,
            vec![
                Cause::DnsNameNotFound,
                Cause::ConnectionRefused,
                Cause::ProxyMisconfigured,
            ],
        ),
        ProxyFault::Answered { .. } => (Cause::AccessRestricted, vec![Cause::ProxyMisconfigured]),
    };
    Failure::new(
        cause,
        Step::Connect,
        format!("no connection to {origin} through the proxy {proxy}: {fault}"),
    )
    .or_else(alternatives)
}

fn of_dns(fault: &DnsFault, origin: &Origin, asked: &[String]) -> Failure {
    let servers = if asked.is_empty() {
        String::new()
    } else {
        format!(" (asked {})", asked.join(", "))
    };
    let (cause, alternatives): (_, &[Cause]) = match fault {
        DnsFault::NoName | DnsFault::BadName => (Cause::DnsNameNotFound, &[]),
        DnsFault::NoAddress => (Cause::DnsNameNotFound, &[Cause::DnsFailed]),
        _ => (Cause::DnsFailed, &[]),
    };
    Failure::new(
        cause,
        Step::Dns,
        format!("no address for {}: {fault}{servers}", origin.host),
    )
    .or_else(alternatives.iter().copied())
}

fn of_connect(fault: ConnectFault, lacks_ipv6: bool, origin: &Origin) -> (Cause, Vec<Cause>) {
    match fault {
        ConnectFault::Refused if origin.is_loopback() => (Cause::RegistryIsLocalhost, vec![]),
        ConnectFault::Refused => (Cause::ConnectionRefused, vec![]),
        ConnectFault::Timeout => (Cause::ConnectionTimeout, vec![]),
        // Not one host is unreachable then, but all of them.
        ConnectFault::Unreachable if lacks_ipv6 && ConnectError::has_no_ipv6() => {
            (Cause::Ipv6Unreachable, vec![])
        }
        ConnectFault::Unreachable if lacks_ipv6 => {
            (Cause::Ipv6Unreachable, vec![Cause::HostUnreachable])
        }
        ConnectFault::Unreachable => (Cause::HostUnreachable, vec![]),
        ConnectFault::Reset => (Cause::ConnectionReset, vec![]),
        ConnectFault::Other(std::io::ErrorKind::PermissionDenied) => {
            (Cause::HostUnreachable, vec![Cause::AccessRestricted])
        }
        ConnectFault::Other(_) => (Cause::Unknown, vec![Cause::HostUnreachable]),
    }
}

fn of_tls(fault: &TlsFault, origin: &Origin) -> Failure {
    let (cause, alternatives): (_, &[Cause]) = match fault {
        // The authorities of the large public registries are in every list of roots, and their certificates hold their names.
        TlsFault::UnknownAuthority(_) if is_public(&origin.host) => (
            Cause::TlsIntercepted,
            &[Cause::TlsUnknownAuthority, Cause::DnsWrongAnswer],
        ),
        TlsFault::WrongName { .. } if is_public(&origin.host) => (
            Cause::DnsWrongAnswer,
            &[Cause::TlsIntercepted, Cause::TlsNameMismatch],
        ),
        TlsFault::UnknownAuthority(_) => (Cause::TlsUnknownAuthority, &[]),
        TlsFault::Expired { .. } | TlsFault::NotYetValid { .. } => {
            (Cause::TlsCertificateExpired, &[Cause::NodeClockSkew])
        }
        // No name server had a part in it.
        TlsFault::WrongName { .. } if origin.address().is_some() => (Cause::TlsNameMismatch, &[]),
        TlsFault::WrongName { .. } => (Cause::TlsNameMismatch, &[Cause::DnsWrongAnswer]),
        TlsFault::BadCertificate(_) => (Cause::TlsHandshakeFailed, &[Cause::TlsUnknownAuthority]),
        TlsFault::ClientCertificate(_) => (Cause::TlsClientCertificateRequired, &[]),
        TlsFault::PlainHttp => (Cause::PlainHttpRegistry, &[]),
        TlsFault::NotTls => (Cause::TlsHandshakeFailed, &[Cause::PlainHttpRegistry]),
        TlsFault::Closed | TlsFault::Reset => (
            Cause::ConnectionReset,
            &[Cause::TlsHandshakeFailed, Cause::AccessRestricted],
        ),
        TlsFault::Timeout => (Cause::TlsHandshakeFailed, &[Cause::PathMtu]),
        TlsFault::Alert(_) | TlsFault::Other(_) => (Cause::TlsHandshakeFailed, &[]),
    };
    debug_assert_eq!(origin.scheme, Scheme::Https);
    Failure::new(
        cause,
        Step::Tls,
        format!("TLS with {} port {}: {fault}", origin.host, origin.port),
    )
    .or_else(alternatives.iter().copied())
}

/// The failure that a body which ended badly is, after `got` bytes of it.
pub(crate) fn of_body(
    fault: &BodyFault,
    origin: &Origin,
    what: &str,
    step: Step,
    got: u64,
) -> Failure {
    let cause = match fault {
        BodyFault::Idle(_) => Cause::PullStalled,
        BodyFault::Cut | BodyFault::Reset | BodyFault::Other(_) => Cause::ConnectionReset,
        BodyFault::TooLarge(_) => Cause::ImageTooLarge,
    };
    Failure::new(
        cause,
        step,
        format!("{what} from {origin}: after {got} bytes {fault}"),
    )
    .at(origin.to_string())
}
