//! The way to the registry: names, connections, TLS.

use std::net::Ipv6Addr;

use towline_cause::{Cause, Confidence, Step};

use super::{Dns, Host, Listens, Scenario, Tls};
use crate::faults::{Fault, Rule};
use crate::tls::Flaw;

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = names();
    all.extend(connections());
    all.extend(certificates());
    all.extend(handshakes());
    all
}

fn names() -> Vec<Scenario> {
    let dns = |name: &str, story: &str, cause: Cause, dns: Dns| {
        Scenario::new(name, story, cause, Step::Dns)
            .host(Host::dns(dns))
            .repaired("repair the name server")
    };
    vec![
        Scenario::new(
            "host-typo",
            "The registry's name is misspelt.",
            Cause::DnsNameNotFound,
            Step::Dns,
        )
        .image("hots-typo.lab.test/team/host-typo:v1")
        .meant("{host}/team/host-typo:v1"),
        dns(
            "dns-no-name",
            "The node's name server does not know the registry.",
            Cause::DnsNameNotFound,
            Dns::NxDomain,
        ),
        dns(
            "dns-servfail",
            "The node's name server cannot find out (SERVFAIL).",
            Cause::DnsFailed,
            Dns::ServFail,
        ),
        dns(
            "dns-refused",
            "The node's name server refuses to answer the node.",
            Cause::DnsFailed,
            Dns::Refused,
        ),
        dns(
            "dns-timeout",
            "The node's name server says nothing.",
            Cause::DnsFailed,
            Dns::Timeout,
        ),
        dns(
            "dns-garbage",
            "Something that is no name server answers on its port.",
            Cause::DnsFailed,
            Dns::Garbage,
        ),
        dns(
            "dns-no-address",
            "The name exists and has no address.",
            Cause::DnsNameNotFound,
            Dns::Empty,
        )
        .at_least(Confidence::Likely),
    ]
}

fn connections() -> Vec<Scenario> {
    let connect = |name: &str, story: &str, cause: Cause, listens: Listens| {
        Scenario::new(name, story, cause, Step::Connect).host(Host::listens(listens))
    };
    let everywhere = |name: &str, story: &str, fault: Fault| {
        Scenario::new(name, story, Cause::ConnectionReset, Step::Resolve)
            .host(Host::rules([Rule::on("/v2/*", fault)]))
            .at_least(Confidence::Likely)
            .repaired("repair the machine in between")
    };
    vec![
        connect(
            "connection-refused",
            "The registry does not run.",
            Cause::ConnectionRefused,
            Listens::Nobody,
        )
        .repaired("start the registry"),
        connect(
            "connection-timeout",
            "A firewall drops what the node sends to the registry.",
            Cause::ConnectionTimeout,
            Listens::Filtered,
        )
        .repaired("open the firewall"),
        connect(
            "no-route",
            "The registry's name leads to an address that no route leads to.",
            Cause::HostUnreachable,
            Listens::Serves,
        )
        // No connection to a multicast address is ever opened, on no machine.
        .host(Host::dns(Dns::Elsewhere(vec![[224, 0, 0, 1].into()])))
        .repaired("correct the address, or the route"),
        connect(
            "no-ipv6",
            "The registry's name has an IPv6 address alone, to which no route leads.",
            Cause::Ipv6Unreachable,
            Listens::Serves,
        )
        // As above: nobody has a connection to a multicast address.
        .host(Host::dns(Dns::Elsewhere(vec![
            Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 1).into(),
        ])))
        .at_least(Confidence::Likely)
        .repaired("give the registry's name an IPv4 address"),
        everywhere(
            "connection-reset",
            "A machine in between cuts every request.",
            Fault::Reset,
        ),
        everywhere(
            "connection-closed",
            "A load balancer closes every connection without an answer.",
            Fault::Close,
        ),
        Scenario::new(
            "no-answer",
            "The registry takes the request and never answers.",
            Cause::ConnectionTimeout,
            Step::Resolve,
        )
        .host(Host::rules([Rule::on("*/manifests/*", Fault::Stall)]))
        .at_least(Confidence::Likely)
        .ours_alone()
        .repaired("repair the registry's backend"),
    ]
}

fn tls(name: &str, story: &str, cause: Cause, tls: Tls) -> Scenario {
    Scenario::new(name, story, cause, Step::Tls).host(Host::tls(tls))
}

fn certificates() -> Vec<Scenario> {
    vec![
        tls(
            "unknown-authority",
            "The certificate is signed by an authority that the node does not know.",
            Cause::TlsUnknownAuthority,
            Tls::Stranger,
        )
        .repaired("use a certificate of an authority that the node trusts"),
        tls(
            "self-signed",
            "The certificate is signed by itself.",
            Cause::TlsUnknownAuthority,
            Tls::Certificate(Flaw::SelfSigned),
        )
        .repaired("use a certificate of an authority that the node trusts"),
        tls(
            "certificate-expired",
            "Nobody renewed the certificate.",
            Cause::TlsCertificateExpired,
            Tls::Certificate(Flaw::Expired),
        )
        .at_least(Confidence::Likely)
        .repaired("renew the certificate"),
        tls(
            "certificate-too-new",
            "The certificate is valid only from a later day on.",
            Cause::TlsCertificateExpired,
            Tls::Certificate(Flaw::NotYetValid),
        )
        .at_least(Confidence::Likely)
        .repaired("use a certificate that is valid today"),
        tls(
            "certificate-wrong-name",
            "The certificate is for another name.",
            Cause::TlsNameMismatch,
            Tls::Certificate(Flaw::WrongName),
        )
        .at_least(Confidence::Likely)
        .repaired("issue the certificate for the name that is used"),
        tls(
            "certificate-without-address",
            "The image names the registry by its address, for which the certificate is not.",
            Cause::TlsNameMismatch,
            Tls::Certificate(Flaw::WrongName),
        )
        .host(Host {
            by_address: true,
            https: true,
            ..Host::tls(Tls::Certificate(Flaw::WrongName))
        })
        .ours_alone()
        .repaired("issue the certificate for the address too"),
        tls(
            "intercepted",
            "A machine in between signs the certificates of all the internet itself.",
            Cause::TlsIntercepted,
            Tls::Stranger,
        )
        .host(Host::tls(Tls::Stranger).named("ghcr.io"))
        .at_least(Confidence::Likely)
        .repaired("exempt the registry from inspection"),
        tls(
            "wrong-machine",
            "The name server sends a public registry's name to another machine.",
            Cause::DnsWrongAnswer,
            Tls::Stranger,
        )
        .host(Host::tls(Tls::Certificate(Flaw::WrongName)).named("quay.io"))
        .at_step(Step::Tls)
        .at_least(Confidence::Likely)
        .repaired("repair the name server"),
    ]
}

fn handshakes() -> Vec<Scenario> {
    vec![
        tls(
            "client-certificate",
            "The registry lets in only clients with a certificate of their own.",
            Cause::TlsClientCertificateRequired,
            Tls::ClientCertificate,
        )
        .repaired("let the node in without a client certificate"),
        tls(
            "handshake-refused",
            "The registry's TLS settings fit no client.",
            Cause::TlsHandshakeFailed,
            Tls::Refuses,
        )
        .repaired("correct the TLS settings of the registry"),
        tls(
            "handshake-silent",
            "The connection opens, and the TLS handshake is never answered.",
            Cause::TlsHandshakeFailed,
            Tls::Refuses,
        )
        .host(Host::listens(Listens::Silent))
        .at_least(Confidence::Likely)
        .repaired("repair the way to the registry"),
        tls(
            "path-mtu",
            "A tunnel on the way carries small packets only, and nobody told the node.",
            Cause::PathMtu,
            Tls::default(),
        )
        .host(Host::listens(Listens::Narrow))
        .repaired("lower the MTU of the node's interface"),
        tls(
            "plain-http",
            "The registry speaks plain HTTP, and the node was not told so.",
            Cause::PlainHttpRegistry,
            Tls::Plain,
        )
        .repaired("serve TLS"),
    ]
}
