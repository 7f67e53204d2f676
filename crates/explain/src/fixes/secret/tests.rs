//! Logins that are named and made: nobody else loses one.

use towline_cause::{Cause, Confidence};
use towline_oci::Reference;

use crate::decide::Verdict;
use crate::fixes::{Ground, fixes};
use crate::secrets::SecretFact;
use crate::{Action, Fix, Owner, Target};

/// A pod of namespace `shop` whose image is at `r.test`, and what is known around it.
struct Case {
    owner: Option<&'static str>,
    spare: Option<&'static str>,
    secrets: Vec<SecretFact>,
    account: Option<Vec<String>>,
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|&name| name.to_owned()).collect()
}

impl Case {
    fn of(owner: Option<&'static str>) -> Self {
        Self {
            owner,
            spare: None,
            secrets: Vec::new(),
            account: Some(Vec::new()),
        }
    }

    fn fixes(&self, cause: Cause) -> Vec<Fix> {
        let target = Target {
            kind: "Pod".into(),
            namespace: Some("shop".into()),
            name: "web-1".into(),
            container: Some("app".into()),
            init: false,
            image: "r.test/team/app:v1".into(),
            node: None,
            owner: self.owner.map(|kind| Owner {
                kind: kind.into(),
                name: "web".into(),
            }),
        };
        let image = Reference::parse(&target.image).unwrap();
        let ground = Ground {
            target: &target,
            image: Some(&image),
            secrets: &self.secrets,
            spare_secret: self.spare,
            elsewhere: None,
            service_account: "default",
            account_secrets: self.account.as_deref(),
            proof: None,
        };
        let verdict = Verdict {
            cause: Some(cause),
            step: None,
            confidence: Confidence::Proven,
            alternatives: vec![],
        };
        fixes(&ground, &verdict)
    }
}

#[test]
fn a_service_account_keeps_the_secrets_that_it_names() {
    let case = Case {
        spare: Some("good"),
        account: Some(names(&["a", "b"])),
        ..Case::of(None)
    };
    for (cause, new) in [
        (Cause::NoCredentials, "regcred"),
        (Cause::PullSecretNotReferenced, "good"),
    ] {
        let fix = &case.fixes(cause)[0];
        let patch = format!(
            r#"kubectl -n shop patch serviceaccount default -p '{{"imagePullSecrets":[{{"name":"a"}},{{"name":"b"}},{{"name":"{new}"}}]}}'"#
        );
        assert_eq!(fix.commands.last(), Some(&patch));
        assert!(
            matches!(fix.actions.last(), Some(Action::ReferenceSecret { beside, .. }) if beside == &["a", "b"])
        );
        assert!(
            fix.description.contains("every pod that uses it"),
            "{}",
            fix.description
        );
        assert!(!fix.certain);
    }
}

#[test]
fn a_list_that_was_not_read_is_not_replaced_unseen() {
    let case = Case {
        spare: Some("good"),
        account: None,
        ..Case::of(None)
    };
    for cause in [Cause::NoCredentials, Cause::PullSecretNotReferenced] {
        let fix = &case.fixes(cause)[0];
        assert!(fix.actions.is_empty(), "{fix:?}");
        for words in [
            "replaces the account's list",
            "kubectl -n shop get serviceaccount default -o jsonpath='{.imagePullSecrets[*].name}'",
        ] {
            assert!(fix.description.contains(words), "{}", fix.description);
        }
    }
}

#[test]
fn a_template_merges_by_name_and_needs_no_other() {
    let case = Case {
        account: Some(names(&["a"])),
        ..Case::of(Some("Deployment"))
    };
    let fix = &case.fixes(Cause::NoCredentials)[0];
    assert!(fix.commands[1].ends_with(
        r#"patch deployment web -p '{"spec":{"template":{"spec":{"imagePullSecrets":[{"name":"regcred"}]}}}}'"#
    ));
    assert!(!fix.description.contains("account"));
}
