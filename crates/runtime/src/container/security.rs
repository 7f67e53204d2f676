//! What of a security context this runtime can keep, and what it refuses rather than pretend.

use tonic::Status;
use towline_cri::v1;
use v1::security_profile::ProfileType;

/// Checks profiles of seccomp and `AppArmor`. Neither is applied: `RuntimeDefault` runs unconfined (the status of the
/// runtime says so), a profile of the node's is refused.
pub(crate) fn profiles(
    seccomp: Option<&v1::SecurityProfile>,
    apparmor: Option<&v1::SecurityProfile>,
) -> Result<(), Status> {
    for (kind, profile) in [("seccomp", seccomp), ("AppArmor", apparmor)] {
        let Some(profile) = profile else { continue };
        match ProfileType::try_from(profile.profile_type) {
            Ok(ProfileType::Unconfined) => {}
            Ok(ProfileType::RuntimeDefault) => {
                tracing::debug!(
                    kind,
                    "a profile RuntimeDefault is not applied: this runtime has none"
                );
            }
            Ok(ProfileType::Localhost) => {
                return Err(Status::unimplemented(format!(
                    "the {kind} profile {:?} cannot be applied: this runtime has no support for {kind}",
                    profile.localhost_ref
                )));
            }
            Err(_) => {
                return Err(Status::invalid_argument(format!(
                    "unknown {kind} profile type {}",
                    profile.profile_type
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_of_the_node_is_refused() {
        let profile = |kind: ProfileType| v1::SecurityProfile {
            profile_type: kind as i32,
            localhost_ref: "p.json".to_owned(),
        };
        for kind in [ProfileType::RuntimeDefault, ProfileType::Unconfined] {
            assert!(profiles(Some(&profile(kind)), Some(&profile(kind))).is_ok());
        }
        let local = profile(ProfileType::Localhost);
        assert!(profiles(Some(&local), None).is_err());
        assert!(profiles(None, Some(&local)).is_err());
    }
}
