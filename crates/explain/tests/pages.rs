//! The pages of the causes and the engine say the same: what a page quotes as a sign of its cause is read as that cause.

use towline_cause::{Cause, Page};
use towline_explain::text;

/// Causes that no message tells apart: their pages say so, and refer to those whose words they share.
const WITHOUT_WORDS: [Cause; 4] = [
    Cause::AlwaysPullsLocalImage,
    Cause::PullSecretNotReferenced,
    Cause::PathMtu,
    Cause::RegistryBlocked,
];

#[test]
fn every_message_of_a_page_is_answered_with_its_cause() {
    let mut wrong = Vec::new();
    for cause in Cause::ALL {
        for message in Page::of(cause).messages() {
            let diagnoses = text::explain(message);
            let answer = &diagnoses[0];
            let named = answer.cause == Some(cause) || answer.alternatives.contains(&cause);
            if !named {
                wrong.push(format!(
                    "{cause}: read as {:?} or {:?}: {message}",
                    answer.cause, answer.alternatives
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_page_without_a_message_says_whose_words_it_shares() {
    for cause in Cause::ALL {
        let page = Page::of(cause);
        let silent = page.messages().next().is_none();
        assert_eq!(silent, WITHOUT_WORDS.contains(&cause), "{cause}");
        assert!(
            !silent || page.looks.contains("words"),
            "{cause}: {}",
            page.looks
        );
    }
}
