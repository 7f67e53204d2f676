//! From the name to an open connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use towline_cause::{Cause, Failure, Step};
use towline_distribution::Fact;
use towline_keyring::Candidate;
use towline_oci::Reference;

use crate::clock;
use crate::content::is_silence;
use crate::report::Outcome;
use crate::run::Probe;

/// Looks up, connects, shakes hands, asks `/v2/`. False where the pull would stop before any request.
pub(crate) async fn reach(probe: &mut Probe<'_>, reference: &Reference) -> bool {
    let repository = probe.repository(reference, &Candidate::anonymous());
    let reached = match repository.reach().await {
        Ok(endpoint) => Ok(endpoint),
        Err(failure) => Err(Box::pin(narrowed(probe, reference, failure)).await),
    };
    let facts = probe.new_facts();
    clock::note(probe, &facts);
    let other = match &reached {
        Ok(_) => other_family(&facts).await,
        Err(_) => None,
    };
    passed(probe, &facts, reached.as_ref().err(), other.as_ref());
    let endpoint = match reached {
        Ok(endpoint) => endpoint,
        Err(failure) => {
            probe.fail(&failure);
            clock::weigh_certificate(probe, &repository).await;
            return false;
        }
    };
    // A loopback registry that speaks TLS is found out by the first request only.
    let pinged = tokio::time::timeout(probe.request.silence, repository.ping()).await;
    let facts = probe.new_facts();
    clock::note(probe, &facts);
    passed(probe, &facts, None, None);
    if !probe.has(Step::Tls) {
        let text = "plain HTTP".to_owned();
        probe.step(Step::Tls, Outcome::Skipped, text, BTreeMap::new());
    }
    let said_nothing = match &pinged {
        Ok(answer) => answer.as_ref().is_err_and(is_silence),
        Err(_) => true,
    };
    match pinged {
        Ok(Err(failure)) if failure.step() < Step::Authenticate => {
            probe.fail(&failure);
            clock::weigh_certificate(probe, &repository).await;
            false
        }
        _ if said_nothing => {
            probe.fail(&silent(&endpoint, probe.request.silence));
            false
        }
        // What `/v2/` says otherwise is kept among the facts: the manifest decides.
        _ => true,
    }
}

/// Bytes of a segment that any path carries: the least that every IPv4 host takes, less the headers.
const SMALL: u32 = 536;

/// Where a handshake stays without an answer, large packets may be lost on the way: tried with small ones, which tells the two apart.
async fn narrowed(probe: &Probe<'_>, reference: &Reference, failure: Failure) -> Failure {
    if !failure.alternatives().contains(&Cause::PathMtu) {
        return failure;
    }
    let Some(repository) = probe.with_segments(SMALL, reference) else {
        return failure;
    };
    if repository.reach().await.is_err() {
        return failure;
    }
    let found = Failure::new(
        Cause::PathMtu,
        failure.step(),
        format!(
            "{}; with segments of at most {SMALL} bytes it answers at once: larger packets are lost on the way",
            failure.detail()
        ),
    );
    match failure.endpoint() {
        Some(endpoint) => found.at(endpoint.to_owned()),
        None => found,
    }
}

/// The registry took the connection and says nothing.
fn silent(endpoint: &str, waited: Duration) -> Failure {
    let detail = format!(
        "GET /v2/: {endpoint} accepted the connection and did not answer within {} s",
        waited.as_secs_f32()
    );
    Failure::new(Cause::ConnectionTimeout, Step::Authenticate, detail)
        .or_else([Cause::RegistryError, Cause::PathMtu])
        .at(endpoint)
}

/// Writes down the steps that the facts show and that were not written yet, in order, up to the one that failed.
pub(crate) fn passed(
    probe: &mut Probe<'_>,
    facts: &[Fact],
    failure: Option<&Failure>,
    other: Option<&(&'static str, String)>,
) {
    let failed = failure.map(Failure::step);
    for step in [Step::Dns, Step::Connect, Step::Tls] {
        let erred = failure.is_none() && erred(step, facts);
        if erred || failed.is_some_and(|failed| step > failed) {
            break;
        }
        let Some((mut text, mut values)) = of(step, facts).filter(|_| !probe.has(step)) else {
            continue;
        };
        if let Some((family, said)) = other.filter(|_| step == Step::Connect) {
            text = format!("{text}; {family}: {said}");
            values.insert((*family).to_owned(), said.clone());
        }
        let (outcome, text) = match failure.filter(|_| failed == Some(step)) {
            Some(failure) => (Outcome::Failed, failure.detail().to_owned()),
            None => (Outcome::Ok, text),
        };
        probe.step(step, outcome, text, values);
    }
}

/// Whether the last that is known of a step is that it went wrong: what is tried again has not passed.
fn erred(step: Step, facts: &[Fact]) -> bool {
    let of_step = facts.iter().rev().find_map(|fact| match (step, fact) {
        (Step::Dns, Fact::Dns { error, .. })
        | (Step::Connect, Fact::Connect { error, .. })
        | (Step::Tls, Fact::Tls { error, .. }) => Some(error.is_some()),
        _ => None,
    });
    of_step == Some(true)
}

/// How long the family that the pull does not use may take to connect.
const OTHER: Duration = Duration::from_secs(2);

/// Whether the registry can be reached by the family of addresses that the connection did not use, where it has both: a node may use
/// the other one. `None` where there is but one, or a proxy stands in front.
async fn other_family(facts: &[Fact]) -> Option<(&'static str, String)> {
    let proxied = facts.iter().any(|fact| matches!(fact, Fact::Proxy { .. }));
    let used = facts.iter().rev().find_map(|fact| match fact {
        Fact::Connect {
            address,
            error: None,
            ..
        } => address.parse::<SocketAddr>().ok(),
        _ => None,
    })?;
    let (ipv4, ipv6) = facts.iter().rev().find_map(|fact| match fact {
        Fact::Dns { ipv4, ipv6, .. } => Some((ipv4, ipv6)),
        _ => None,
    })?;
    let (family, address) = if used.is_ipv4() {
        ("IPv6", ipv6.first()?)
    } else {
        ("IPv4", ipv4.first()?)
    };
    // The address that was used must be one of the name's: a mirror has another name.
    let known = ipv4.iter().chain(ipv6).any(|one| *one == used.ip());
    if proxied || !known {
        return None;
    }
    let address = SocketAddr::new(*address, used.port());
    let tried = tokio::time::timeout(OTHER, tokio::net::TcpStream::connect(address)).await;
    let said = match tried {
        Ok(Ok(_)) => format!("{address} takes connections too"),
        Ok(Err(error)) => format!("{address}: {error}"),
        Err(_) => format!("{address}: no answer within {} s", OTHER.as_secs()),
    };
    Some((family, said))
}

fn of(step: Step, facts: &[Fact]) -> Option<(String, BTreeMap<String, String>)> {
    let mut last = None;
    for fact in facts {
        let found = match (step, fact) {
            (
                Step::Dns,
                Fact::Dns {
                    host,
                    asked,
                    ipv4,
                    ipv6,
                    ..
                },
            ) => Some(dns(host, asked, ipv4, ipv6)),
            (Step::Connect, Fact::Connect { address, error, .. }) => {
                Some(connect(address, error.as_deref(), facts))
            }
            (Step::Tls, Fact::Tls { .. }) => tls(fact),
            _ => None,
        };
        last = found.or(last);
    }
    last
}

fn dns(
    host: &str,
    asked: &[String],
    ipv4: &[std::net::IpAddr],
    ipv6: &[std::net::IpAddr],
) -> (String, BTreeMap<String, String>) {
    let list = |addresses: &[std::net::IpAddr]| {
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        texts.join(", ")
    };
    let all: Vec<String> = [list(ipv4), list(ipv6)]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    let text = format!("{host} is {} ({})", all.join(", "), asked.join(", "));
    let facts = BTreeMap::from([
        ("host".to_owned(), host.to_owned()),
        ("asked".to_owned(), asked.join(", ")),
        ("ipv4".to_owned(), list(ipv4)),
        ("ipv6".to_owned(), list(ipv6)),
    ]);
    (text, facts)
}

fn connect(address: &str, error: Option<&str>, all: &[Fact]) -> (String, BTreeMap<String, String>) {
    let tried: Vec<String> = all
        .iter()
        .filter_map(|fact| match fact {
            Fact::Connect { address, error, .. } => Some(match error {
                Some(error) => format!("{address}: {error}"),
                None => format!("{address}: connected"),
            }),
            _ => None,
        })
        .collect();
    let text = match error {
        Some(error) => format!("{address}: {error}"),
        None => format!("{address} takes connections"),
    };
    let facts = BTreeMap::from([
        ("address".to_owned(), address.to_owned()),
        ("tried".to_owned(), tried.join("; ")),
    ]);
    (text, facts)
}

fn tls(fact: &Fact) -> Option<(String, BTreeMap<String, String>)> {
    let Fact::Tls {
        endpoint,
        version,
        suite,
        alpn,
        certificate,
        error,
        ..
    } = fact
    else {
        return None;
    };
    let mut facts = BTreeMap::new();
    let mut put = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            facts.insert(name.to_owned(), value.clone());
        }
    };
    put("version", version);
    put("suite", suite);
    put("alpn", alpn);
    put("error", error);
    if let Some(shown) = certificate {
        for (name, value) in [
            ("subject", &shown.subject),
            ("issuer", &shown.issuer),
            ("notBefore", &shown.not_before),
            ("notAfter", &shown.not_after),
            ("names", &shown.names.join(", ")),
            ("selfSigned", &shown.self_signed.to_string()),
        ] {
            facts.insert(name.to_owned(), value.clone());
        }
    }
    let by = certificate.as_ref().map_or_else(String::new, |shown| {
        format!(
            ", certificate by {} until {}",
            shown.issuer, shown.not_after
        )
    });
    let text = match error {
        Some(error) => format!("{endpoint}: {error}"),
        None => format!(
            "{endpoint} speaks {}{by}",
            version.as_deref().unwrap_or("TLS")
        ),
    };
    Some((text, facts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn facts(ipv6: &[IpAddr], port: u16) -> Vec<Fact> {
        vec![
            Fact::Dns {
                host: "r.test".to_owned(),
                asked: Vec::new(),
                ipv4: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
                ipv6: ipv6.to_vec(),
                error: None,
                micros: 1,
            },
            Fact::Connect {
                endpoint: "https://r.test".to_owned(),
                address: format!("127.0.0.1:{port}"),
                error: None,
                micros: 1,
            },
        ]
    }

    #[tokio::test]
    async fn the_family_that_was_not_used_is_tried_apart() {
        let only_ipv4 = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = only_ipv4.local_addr().unwrap().port();
        let both = [IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let (family, said) = other_family(&facts(&both, port)).await.unwrap();
        assert_eq!(family, "IPv6");
        assert!(said.starts_with(&format!("[::1]:{port}: ")), "{said}");
        assert_eq!(other_family(&facts(&[], port)).await, None);
    }
}
