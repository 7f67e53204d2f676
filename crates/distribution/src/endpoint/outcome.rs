//! Several endpoints' outcomes, made one failure: the one that says most, the others beside it.

use towline_cause::{Cause, Failure, Group, Step};

/// Whether an endpoint gave no answer at all.
pub(crate) fn is_unreached(failure: &Failure) -> bool {
    let never_connected = matches!(failure.step(), Step::Dns | Step::Connect | Step::Tls);
    (never_connected || matches!(failure.cause().group(), Group::Network | Group::Tls))
        && !matches!(
            failure.cause(),
            Cause::BlobHostUnreachable | Cause::TokenServiceUnreachable
        )
}

fn is_absent(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::TagNotFound | Cause::DigestNotFound | Cause::RepositoryNotFound | Cause::BlobMissing
    )
}

/// What the image's own registry says decides; then what a mirror refuses; that a mirror has no copy is nothing unusual.
fn weight(mirror: bool, failure: &Failure) -> u8 {
    match (mirror, is_unreached(failure)) {
        (false, false) => 5,
        (true, false) if !is_absent(failure.cause()) => 4,
        (false, true) => 3,
        (true, false) => 2,
        (true, true) => 1,
    }
}

/// Folds outcomes, each with whether it is a mirror's. `None` where there is none.
pub(crate) fn fold(mut failures: Vec<(bool, Failure)>) -> Option<Failure> {
    // Stable: among equals, the plan's order decides.
    failures.sort_by_key(|(mirror, failure)| std::cmp::Reverse(weight(*mirror, failure)));
    let mut failures = failures.into_iter().map(|(_, failure)| failure);
    let best = failures.next()?;
    let others: Vec<Failure> = failures.collect();
    if others.is_empty() {
        return Some(best);
    }
    let list: Vec<String> = others.iter().map(line).collect();
    // Where the registry itself could not be asked, what its mirrors said stays possible.
    let mut open: Vec<Cause> = Vec::new();
    if is_unreached(&best) {
        let answers = others.iter().filter(|other| !is_unreached(other));
        open.extend(answers.map(Failure::cause));
        open.dedup();
    }
    Some(
        best.or_else(open)
            .adding(&format!(
                "; other endpoints failed too: {}",
                list.join("; ")
            ))
            .and_others(others),
    )
}

fn line(failure: &Failure) -> String {
    const MOST: usize = 240;
    let place = failure.endpoint().unwrap_or("an endpoint");
    let mut detail: String = failure.detail().chars().take(MOST).collect();
    if detail.len() < failure.detail().len() {
        detail.push_str("...");
    }
    format!("{place} ({}): {detail}", failure.cause())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(cause: Cause) -> Failure {
        Failure::new(cause, Step::Resolve, "words").at("https://x")
    }

    #[test]
    fn what_says_most_comes_first() {
        for (outcomes, want) in [
            (
                vec![(true, Cause::NoCredentials), (false, Cause::TagNotFound)],
                Cause::TagNotFound,
            ),
            (
                vec![
                    (true, Cause::TagNotFound),
                    (false, Cause::ConnectionTimeout),
                ],
                Cause::ConnectionTimeout,
            ),
            (
                vec![
                    (true, Cause::NoCredentials),
                    (false, Cause::ConnectionTimeout),
                ],
                Cause::NoCredentials,
            ),
            (
                vec![(true, Cause::ConnectionRefused), (true, Cause::TagNotFound)],
                Cause::TagNotFound,
            ),
            (
                vec![(true, Cause::RateLimited), (true, Cause::NoCredentials)],
                Cause::RateLimited,
            ),
        ] {
            let count = outcomes.len() - 1;
            let failures = outcomes
                .iter()
                .map(|(mirror, cause)| (*mirror, failure(*cause)))
                .collect();
            let folded = fold(failures).unwrap();
            assert_eq!(folded.cause(), want, "{outcomes:?}");
            assert_eq!(folded.others().len(), count);
            assert!(folded.detail().contains("other endpoints failed too"));
        }
        let unsure = fold(vec![
            (true, failure(Cause::TagNotFound)),
            (false, failure(Cause::ConnectionTimeout)),
        ]);
        assert_eq!(unsure.unwrap().alternatives(), [Cause::TagNotFound]);
        assert!(fold(vec![]).is_none());
        assert_eq!(
            fold(vec![(false, failure(Cause::TagNotFound))])
                .unwrap()
                .detail(),
            "words"
        );
    }
}
