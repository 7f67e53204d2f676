//! What stands between a name and a registry's first answer: certificates and their dates, clocks, the wrong scheme.

use towline_distribution::{PlainHttp, Resolver};
use towline_lab::dns::{self, Answer};
use towline_lab::tls::{Ca, Flaw};
use towline_probe::Clock;

use super::*;

/// A registry's front that answers at this time of its own; none where it answers nothing.
async fn front(ca: &Ca, flaw: Flaw, date: Option<&str>) -> Proxy {
    let then = date.map_or(Fault::Close, |date| Fault::Answer {
        status: 200,
        headers: BTreeMap::from([("date".to_owned(), date.to_owned())]),
        body: String::new(),
    });
    let names = ["127.0.0.1", "registry.test"];
    Proxy::start(faults::Options {
        tls: Some(ca.leaf(&names, flaw).server_config()),
        rules: vec![Rule::on("*", then)],
        ..faults::Options::default()
    })
    .await
    .unwrap()
}

async fn with_options(image: String, change: impl FnOnce(&mut Options)) -> Report {
    let mut options = options();
    change(&mut options);
    let report = run(&Client::new(options).unwrap(), Request::new(image)).await;
    check(&report);
    report
}

fn date(time: std::time::SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap();
    jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&time)
        .unwrap()
}

#[tokio::test]
async fn a_certificates_dates_are_held_against_the_servers_clock() {
    let ca = Ca::new("lab");
    let now = date(std::time::SystemTime::now());
    let wrong_clock = (Cause::NodeClockSkew, vec![Cause::TlsCertificateExpired]);
    let certificate = (Cause::TlsCertificateExpired, vec![]);
    let open = (Cause::TlsCertificateExpired, vec![Cause::NodeClockSkew]);
    for (flaw, date, want, words) in [
        (
            Flaw::NotYetValid,
            Some("Sat, 02 Jun 2091 10:00:00 GMT"),
            &wrong_clock,
            "days behind the registry's (2091-06-02T10:00:00Z there), and by that the certificate is valid",
        ),
        (
            Flaw::Expired,
            Some("Sun, 02 Jun 2019 10:00:00 GMT"),
            &wrong_clock,
            "days ahead of the registry's",
        ),
        (
            Flaw::NotYetValid,
            Some(now.as_str()),
            &certificate,
            "valid from 2090-01-01T00:00:00Z on",
        ),
        (
            Flaw::Expired,
            Some(now.as_str()),
            &certificate,
            "the registry's clock agrees",
        ),
        // Both wrong: nothing is decided.
        (
            Flaw::Expired,
            Some("Fri, 02 Jun 2028 10:00:00 GMT"),
            &open,
            "days behind",
        ),
        (Flaw::Expired, None, &open, "expired at 2020-01-01"),
    ] {
        let front = front(&ca, flaw, date).await;
        let image = format!("{}/team/app:v1", front.local_addr());
        let pem = ca.pem().into_bytes();
        let report = with_options(image, |options| options.extra_ca_pem.push(pem)).await;
        let failure = report.failure.as_ref().unwrap();
        let open: Vec<Cause> = failure
            .alternatives
            .iter()
            .map(towline_cause::CauseName::cause)
            .collect();
        let got = (failure.cause(), open);
        assert_eq!(&got, want, "{flaw:?} {date:?}: {failure:?}");
        assert_eq!(failure.step, Step::Tls);
        assert!(failure.detail.contains(words), "{words}: {failure:?}");
        assert_eq!(text(&report, Step::Tls), failure.detail);
        // A certificate that is refused is never shown a name or a login.
        let seen = front.seen();
        let asked = |seen: &faults::Seen| seen.method == "HEAD" && seen.path == "/v2/";
        assert!(seen.iter().all(asked), "{seen:?}");
        assert!(
            seen.iter()
                .all(|seen| !seen.headers.contains_key("authorization"))
        );
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_seen_where_the_pull_goes_on() {
    let registry = Registry::start().await;
    registry.push("public/app", "1.0", &image("x")).await;
    let image = |address: SocketAddr| format!("{address}/public/app:1.0");
    let report = probe(image(registry.address()), vec![]).await;
    assert_eq!(cause(&report), None);
    let agrees = |clock: &Clock| !clock.differs();
    assert!(report.clock.as_ref().is_some_and(agrees), "{report:?}");

    let old = Fault::Answer {
        status: 200,
        headers: BTreeMap::from([("date".into(), "Sun, 02 Jun 2019 10:00:00 GMT".into())]),
        body: String::new(),
    };
    let rules = vec![Rule::on("/v2/", old)];
    let front = Proxy::before(registry.address(), rules).await.unwrap();
    let report = probe(image(front.local_addr()), vec![]).await;
    assert_eq!(cause(&report), None);
    let words = report.clock.as_ref().unwrap().words();
    assert!(words.contains("days ahead of the registry's"), "{words}");
}

#[tokio::test]
async fn the_wrong_scheme_is_named_in_both_directions() {
    let registry = Registry::start().await;
    registry.push("public/app", "1.0", &image("x")).await;
    let names = dns::Server::start(dns::Options::default()).await.unwrap();
    names.set(
        "registry.test",
        Answer::Addresses(vec![[127, 0, 0, 1].into()]),
    );
    let resolver = || Resolver::Servers(vec![names.local_addr()]);
    let at = |address: SocketAddr| format!("registry.test:{}/public/app:1.0", address.port());

    let plain = at(registry.address());
    let report = with_options(plain, |options| options.resolver = resolver()).await;
    assert_eq!(cause(&report), Some((Cause::PlainHttpRegistry, Step::Tls)));
    assert_eq!(outcome(&report, Step::Connect), Outcome::Ok);

    let ca = Ca::new("lab");
    let secure = front(&ca, Flaw::None, Some("Sun, 02 Jun 2019 10:00:00 GMT")).await;
    let report = with_options(at(secure.local_addr()), |options| {
        options.resolver = resolver();
        options.plain_http = PlainHttp::All;
    })
    .await;
    let want = Some((Cause::HttpsRegistryOverHttp, Step::Connect));
    assert_eq!(cause(&report), want, "{:?}", report.failure);

    // Told to use it, a plain registry is no fault.
    let report = with_options(at(registry.address()), |options| {
        options.resolver = resolver();
        options.plain_http = PlainHttp::All;
    })
    .await;
    assert_eq!(cause(&report), None, "{:?}", report.failure);
}
