//! The cause that is meant: by its name, by words of its page, by a name that is near.

use towline_cause::{Cause, Page, page};

/// How alike a name has to be, of 1.
const ALIKE: f64 = 0.82;
/// Most near names that are offered.
const MOST_NEAR: usize = 3;

/// The cause of this name, in any case.
pub(super) fn named(name: &str) -> Option<Cause> {
    let mut all = Cause::ALL.into_iter();
    all.find(|cause| cause.name().eq_ignore_ascii_case(name))
}

/// The causes that hold all the words, in what they are called and said to be; where none does, in their whole pages.
pub(super) fn with(words: &[String]) -> Vec<Cause> {
    let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
    let holding = |text: fn(Cause) -> String| -> Vec<Cause> {
        let holds = |cause: &Cause| {
            let text = text(*cause).to_lowercase();
            words.iter().all(|word| text.contains(word.as_str()))
        };
        Cause::ALL.into_iter().filter(holds).collect()
    };
    let found = holding(signs);
    if found.is_empty() {
        holding(|cause| page(cause).to_owned())
    } else {
        found
    }
}

/// What a cause is known by.
fn signs(cause: Cause) -> String {
    let steps = cause.steps().iter().map(|step| step.name());
    let group = cause.group();
    let signs = [
        cause.name(),
        group.name(),
        group.about(),
        cause.summary(),
        cause.fix(),
    ];
    let page = Page::of(cause);
    let all = signs.into_iter().chain(steps).chain(page.messages());
    all.collect::<Vec<&str>>().join("\n")
}

/// Names that are near, the nearest first.
pub(super) fn near(name: &str) -> Vec<&'static str> {
    let name = name.to_lowercase();
    let mut near: Vec<(f64, &'static str)> = Cause::ALL
        .into_iter()
        .map(|cause| {
            let alike = strsim::jaro_winkler(&name, &cause.name().to_lowercase());
            (alike, cause.name())
        })
        .filter(|(alike, _)| *alike >= ALIKE)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let names = near.into_iter().map(|(_, name)| name);
    names.take(MOST_NEAR).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &[&str]) -> Vec<Cause> {
        with(
            &text
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn words_find_what_is_said() {
        for (asked, wanted) in [
            (&["dns"][..], Cause::DnsFailed),
            (&["no such host"], Cause::DnsNameNotFound),
            (&["X509", "expired"], Cause::TlsCertificateExpired),
            (&["toomanyrequests"], Cause::RateLimited),
            (&["mtu"], Cause::PathMtu),
        ] {
            let found = words(asked);
            assert!(found.contains(&wanted), "{asked:?}: {found:?}");
            assert!(found.len() < 15, "{asked:?}: {found:?}");
        }
        assert_eq!(words(&[]).len(), Cause::ALL.len());
        assert!(words(&["dns", "no-such-word"]).is_empty());
    }

    #[test]
    fn a_slip_is_understood() {
        assert_eq!(named("tagnotfound"), Some(Cause::TagNotFound));
        assert_eq!(near("TagNotFond")[0], "TagNotFound");
        assert_eq!(near("tlsunknownautority")[0], "TlsUnknownAuthority");
        assert!(near("MoonPhase").is_empty(), "{:?}", near("MoonPhase"));
    }
}
