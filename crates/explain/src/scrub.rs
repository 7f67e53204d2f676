//! The last look at an answer: a login that somebody wrote into an image or a URL stays out of it.

use towline_keyring::redact;
use towline_oci::Reference;

use crate::Diagnosis;

/// Takes user information and unknown query values out of every text of an answer.
pub(crate) fn scrub(mut diagnosis: Diagnosis) -> Diagnosis {
    let written = diagnosis.target.image.clone();
    let shown = image(&written);
    let clean = |text: &mut String| {
        // What the pod names stands in messages as it was written.
        if shown != written {
            *text = text.replace(&written, &shown);
        }
        if text.contains("://") {
            *text = redact::text(text);
        }
    };
    clean(&mut diagnosis.summary);
    let facts = diagnosis.evidence.iter_mut().map(|one| &mut one.fact);
    let steps = diagnosis.steps.iter_mut().flat_map(|step| &mut step.facts);
    let sights = diagnosis
        .seen
        .iter_mut()
        .filter_map(|one| one.detail.as_mut());
    let deciders = diagnosis.decided_by.iter_mut();
    let deciders =
        deciders.flat_map(|one| std::iter::once(&mut one.description).chain(one.command.as_mut()));
    facts
        .chain(steps)
        .chain(sights)
        .chain(deciders)
        .chain(&mut diagnosis.unread)
        .for_each(clean);
    for fix in &mut diagnosis.fixes {
        clean(&mut fix.description);
        fix.commands.iter_mut().for_each(clean);
        let files = fix.files.iter_mut();
        files.for_each(|file| clean(&mut file.lines));
    }
    if diagnosis.target.name == written {
        diagnosis.target.name.clone_from(&shown);
    }
    diagnosis.target.image = shown;
    diagnosis
}

/// An image without a login in front of its registry. A reference that parses cannot hold one.
fn image(written: &str) -> String {
    if Reference::parse(written).is_ok() {
        return written.to_owned();
    }
    let start = written.find("://").map_or(0, |at| at + 3);
    let end = written[start..]
        .find('/')
        .map_or(written.len(), |at| start + at);
    match written[start..end].rfind('@') {
        Some(at) => format!("{}{}", &written[..start], &written[start + at + 1..]),
        None => written.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Target;

    #[test]
    fn a_login_in_an_image_is_not_shown() {
        let digest = format!("a.test/x@sha256:{}", "0".repeat(64));
        for (written, shown) in [
            ("https://bob:pw@a.test/x:v1", "https://a.test/x:v1"),
            ("bob:pw@a.test/x:v1", "a.test/x:v1"),
            ("bob:p@w@a.test", "a.test"),
            ("a.test/x:v1", "a.test/x:v1"),
            (&digest, &digest),
        ] {
            let mut diagnosis = Diagnosis::about(Target::image(written));
            diagnosis.summary = format!("cannot read {written}: no");
            let clean = scrub(diagnosis);
            assert_eq!(clean.target.image, shown);
            assert_eq!(clean.summary, format!("cannot read {shown}: no"));
        }
    }
}
