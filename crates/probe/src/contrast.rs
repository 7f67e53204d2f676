//! Whether a registry that refuses a pull hides what is not there: it is asked for a repository that nobody has.

use towline_cause::{Cause, Failure, Step};
use towline_keyring::Candidate;
use towline_oci::{Reference, nobodys};

use crate::run::Probe;

/// Registries that are known to hide what is not there, so that asking them tells nothing.
pub(crate) const HIDING: [&str; 4] = ["docker.io", "ghcr.io", "quay.io", "registry.gitlab.com"];

/// Causes that are out of the question where the same asker learns of another repository that it does not exist: this one does, and
/// the way to the registry is open.
const RULED_OUT: [Cause; 2] = [Cause::RepositoryNotFound, Cause::AccessRestricted];

/// Asks for a repository beside the refused one that certainly does not exist, as the same user. A registry that says so of that one,
/// and refuses this one, has this one.
pub(crate) async fn with_nobodys(probe: &mut Probe<'_>, reference: &Reference, failure: &Failure) {
    let refused = matches!(
        failure.cause(),
        Cause::NoCredentials | Cause::InsufficientPermission
    );
    let open = failure
        .alternatives()
        .iter()
        .any(|cause| RULED_OUT.contains(cause));
    if !refused || !open || HIDING.contains(&reference.registry()) {
        return;
    }
    let Some(nobodys) = beside(reference) else {
        return;
    };
    let candidates = &probe.request.candidates;
    let anonymous = Candidate::anonymous();
    let asker = match failure.cause() {
        Cause::NoCredentials => Some(&anonymous),
        // Whose refusal it is of several is not known.
        _ if candidates.len() == 1 => candidates.first(),
        _ => None,
    };
    let Some(asker) = asker else { return };
    let answer = probe
        .repository(&nobodys, asker)
        .head_manifest(&nobodys.target())
        .await;
    probe.new_facts();
    let absent = answer.err().is_some_and(|failure| {
        matches!(
            failure.cause(),
            Cause::RepositoryNotFound | Cause::TagNotFound
        )
    });
    if !absent {
        return;
    }
    if let Some(report) = &mut probe.report.failure {
        report
            .alternatives
            .retain(|cause| !RULED_OUT.contains(&cause.cause()));
    }
    let step = probe
        .report
        .steps
        .iter_mut()
        .find(|one| one.step == Step::Authenticate);
    if let Some(step) = step {
        step.text.push_str(
            "; of a repository that nobody has the registry says so, and of this one not",
        );
        step.facts
            .insert("contrast".to_owned(), nobodys.repository().to_owned());
    }
}

/// A name beside the repository's that nobody has.
fn beside(reference: &Reference) -> Option<Reference> {
    let path = nobodys::beside(reference.repository(), fastrand::u64(..));
    Reference::parse(&format!("{}/{path}:latest", reference.registry())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_lies_beside() {
        let of = |image: &str| beside(&Reference::parse(image).unwrap()).unwrap();
        let found = of("r.test:5000/team/app/web:v1");
        assert_eq!(found.registry(), "r.test:5000");
        assert!(found.repository().starts_with("team/app/"));
        assert!(nobodys::is_one(found.repository()));
        assert!(nobodys::is_one(of("r.test/web").repository()));
    }
}
