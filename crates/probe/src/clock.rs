//! This machine's clock against the registry's: what tells a certificate that has run out from a clock that is wrong.

use std::time::SystemTime;

use jiff::Timestamp;
use towline_cause::{Cause, Step};
use towline_distribution::facts::Certificate;
use towline_distribution::{Fact, Repository};

use crate::report::Clock;
use crate::run::Probe;

/// Seconds that clocks may be apart without it meaning anything: tokens and certificates allow for as much.
const MEANS_NOTHING: i64 = 120;

impl Clock {
    fn of(date: &str, here: Timestamp) -> Option<Self> {
        let there = read(date)?;
        Some(Self {
            here: here.to_string(),
            registry: there.to_string(),
            ahead: here.as_second() - there.as_second(),
        })
    }

    /// Whether the two are apart by more than tokens and certificates allow for.
    pub fn differs(&self) -> bool {
        self.ahead.abs() > MEANS_NOTHING
    }

    /// `this machine's clock is 3 h ahead of the registry's (2026-11-30T12:00:00Z there)`.
    pub fn words(&self) -> String {
        if !self.differs() {
            return format!("the registry's clock agrees ({})", self.registry);
        }
        let way = if self.ahead > 0 { "ahead of" } else { "behind" };
        format!(
            "this machine's clock is {} {way} the registry's ({} there)",
            span(self.ahead.unsigned_abs()),
            self.registry
        )
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn read(date: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(date)
        .ok()
        .map(|time| time.timestamp())
}

/// A time span in its largest unit.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn now() -> Timestamp {
    Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Notes what the newest of these answers say of the time. To be called as soon as they are there.
pub(crate) fn note(probe: &mut Probe<'_>, facts: &[Fact]) {
    let date = facts.iter().rev().find_map(|fact| match fact {
        Fact::Request { headers, .. } => headers.iter().find(|(name, _)| name == "date"),
        _ => None,
    });
    if let Some(clock) = date.and_then(|(_, date)| Clock::of(date, now())) {
        probe.report.clock = Some(clock);
    }
}

/// A certificate was refused for its dates: asks the server for the time, all the same, and says which of the two is wrong.
pub(crate) async fn weigh_certificate(probe: &mut Probe<'_>, repository: &Repository) {
    let failed = probe.report.failure.as_ref();
    let for_its_dates = failed.is_some_and(|failed| {
        failed.step == Step::Tls && failed.cause() == Cause::TlsCertificateExpired
    });
    let shown = probe.report.facts.iter().rev().find_map(|fact| match fact {
        Fact::Tls { certificate, .. } => certificate.clone(),
        _ => None,
    });
    let (true, Some(certificate)) = (for_its_dates, shown) else {
        return;
    };
    let Ok(date) = repository.clock().await else {
        return;
    };
    let Some(clock) = Clock::of(&date, now()) else {
        return;
    };
    let valid_there = valid(&certificate, &clock.registry);
    let Some(failure) = &mut probe.report.failure else {
        return;
    };
    let mut words = clock.words();
    if clock.differs() && valid_there {
        words.push_str(", and by that the certificate is valid");
        failure.cause = Cause::NodeClockSkew.into();
        // One server's word, which its certificate does not vouch for.
        failure.alternatives = vec![Cause::TlsCertificateExpired.into()];
    } else if !clock.differs() {
        failure
            .alternatives
            .retain(|cause| cause.cause() != Cause::NodeClockSkew);
    }
    failure.detail = format!("{}; {words}", failure.detail);
    let (detail, cause) = (failure.detail.clone(), failure.cause().name().to_owned());
    probe.retell(Step::Tls, detail, cause);
    probe.report.clock = Some(clock);
}

/// A token was refused that had just been issued: a clock that agrees is not why, and one that does not is worth a word.
pub(crate) fn weigh_refusal(probe: &mut Probe<'_>) {
    let Some(clock) = probe.report.clock.clone() else {
        return;
    };
    let Some(failure) = &mut probe.report.failure else {
        return;
    };
    let open = |cause: &towline_cause::CauseName| cause.cause() == Cause::NodeClockSkew;
    if failure.step < Step::Authenticate || !failure.alternatives.iter().any(open) {
        return;
    }
    if !clock.differs() {
        failure.alternatives.retain(|cause| !open(cause));
    }
    failure.detail = format!("{}; {}", failure.detail, clock.words());
}

/// Whether a certificate is valid at that time; both are written as RFC 3339 in UTC.
fn valid(certificate: &Certificate, at: &str) -> bool {
    let time = |text: &str| text.parse::<Timestamp>().ok();
    let (from, at, to) = (
        time(&certificate.not_before),
        time(at),
        time(&certificate.not_after),
    );
    from.is_some() && from <= at && at <= to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_in_words() {
        let here: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        for (date, differs, words) in [
            (
                "Mon, 30 Nov 2026 11:59:30 GMT",
                false,
                "the registry's clock agrees (2026-11-30T11:59:30Z)",
            ),
            (
                "Mon, 30 Nov 2026 09:00:00 GMT",
                true,
                "this machine's clock is 3 h ahead of the registry's (2026-11-30T09:00:00Z there)",
            ),
            (
                "Thu, 30 Nov 2028 12:00:00 GMT",
                true,
                "this machine's clock is 731 days behind the registry's (2028-11-30T12:00:00Z there)",
            ),
        ] {
            let clock = Clock::of(date, here).unwrap();
            assert_eq!((clock.differs(), clock.words().as_str()), (differs, words));
        }
        assert!(Clock::of("yesterday", here).is_none());
    }

    #[test]
    fn a_certificate_is_valid_between_its_dates() {
        let certificate = Certificate {
            subject: String::new(),
            issuer: String::new(),
            not_before: "2026-01-01T00:00:00Z".to_owned(),
            not_after: "2027-01-01T00:00:00Z".to_owned(),
            names: Vec::new(),
            self_signed: false,
            chain: 1,
        };
        assert!(valid(&certificate, "2026-06-01T00:00:00Z"));
        assert!(!valid(&certificate, "2025-06-01T00:00:00Z"));
        assert!(!valid(&certificate, "2028-06-01T00:00:00Z"));
        assert!(!valid(&certificate, "never"));
    }
}
