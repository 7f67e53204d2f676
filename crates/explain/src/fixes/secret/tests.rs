//! Logins that are named and made: nobody else loses one.

use towline_cause::{Cause, Confidence};
use towline_oci::Reference;

use crate::decide::Verdict;
use crate::fixes::{Ground, fixes};
use crate::secrets::{SecretFact, SecretState};
use crate::{Action, Fix, Owner, Target};

/// A pod of namespace `shop` whose image is at `r.test`, and what is known around it.
struct Case {
    owner: Option<&'static str>,
    spare: Option<&'static str>,
    secrets: Vec<SecretFact>,
    account: Option<Vec<String>>,
    free_name: Option<&'static str>,
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
            free_name: Some("regcred"),
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
            free_name: self.free_name,
            proof: None,
            runtime: None,
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

fn fact(name: &str, state: SecretState, others: &[&str]) -> SecretFact {
    SecretFact {
        name: name.to_owned(),
        state,
        others: names(others),
        extensible: false,
    }
}

fn wrong(others: &[&str]) -> SecretFact {
    let entry = |host: &&str| ((*host).to_owned(), "another host".to_owned());
    fact(
        "mine",
        SecretState::WrongHost(others.iter().map(entry).collect()),
        others,
    )
}

#[test]
fn a_bare_pod_that_names_secrets_gets_none_of_its_account() {
    for account in [names(&[]), names(&["good"])] {
        let case = Case {
            spare: Some("good"),
            secrets: vec![fact("ghost", SecretState::Missing, &[])],
            account: Some(account),
            ..Case::of(None)
        };
        let fixes = case.fixes(Cause::PullSecretMissing);
        assert!(fixes[0].commands[0].contains("create secret docker-registry ghost "));
        let edit = &fixes[1];
        assert!(edit.commands.is_empty(), "{edit:?}");
        assert!(
            edit.description
                .contains("kubectl -n shop replace --force -f pod.yaml")
        );
    }
    // One whose list is its account's gets what the account names by now.
    let case = Case {
        spare: Some("good"),
        secrets: vec![fact("ghost", SecretState::Missing, &[])],
        account: Some(names(&["ghost", "good"])),
        ..Case::of(None)
    };
    let fixes = case.fixes(Cause::PullSecretMissing);
    assert!(
        fixes
            .iter()
            .any(|fix| fix.description.contains("names the secret \"good\" by now"))
    );
}

#[test]
fn logins_for_other_hosts_are_not_lost() {
    let commands = |owner, secret: SecretFact, cause| {
        let case = Case {
            secrets: vec![secret],
            free_name: Some("regcred-r-test"),
            ..Case::of(owner)
        };
        let fix = case.fixes(cause).remove(0);
        (fix.commands.join("\n"), fix.description)
    };
    let (told, words) = commands(
        Some("Deployment"),
        wrong(&["ghcr.io", "quay.io"]),
        Cause::PullSecretWrongHost,
    );
    assert!(told.contains("create secret docker-registry regcred-r-test "));
    assert!(
        told.contains("patch deployment web") && !told.contains("replace"),
        "{told}"
    );
    assert!(words.contains("ghcr.io, quay.io"), "{words}");
    let keys = || SecretState::Matches(towline_keyring::Keys::new(Vec::new()));
    for (owner, secret, cause) in [
        (
            None,
            wrong(&["ghcr.io", "quay.io"]),
            Cause::PullSecretWrongHost,
        ),
        (
            None,
            fact("mine", keys(), &["ghcr.io"]),
            Cause::WrongCredentials,
        ),
        (
            Some("Deployment"),
            fact("mine", keys(), &["ghcr.io"]),
            Cause::ExpiredCredentials,
        ),
    ] {
        let (told, words) = commands(owner, secret, cause);
        assert_eq!(told, "");
        assert!(words.contains("holds the logins for ghcr.io"), "{words}");
    }
    let (told, words) = commands(None, wrong(&["ghcr.io"]), Cause::PullSecretWrongHost);
    assert!(told.contains("replace --force") && words.contains("loses its login for ghcr.io"));
    let (told, words) = commands(None, fact("mine", keys(), &[]), Cause::WrongCredentials);
    assert!(told.contains("replace --force") && !words.contains("loses"));
}

#[test]
fn a_login_is_added_where_the_secret_can_hold_another() {
    let keys = || SecretState::Matches(towline_keyring::Keys::new(Vec::new()));
    for (secret, cause) in [
        (wrong(&["ghcr.io"]), Cause::PullSecretWrongHost),
        (fact("mine", keys(), &["ghcr.io"]), Cause::WrongCredentials),
    ] {
        let case = Case {
            secrets: vec![SecretFact {
                extensible: true,
                ..secret
            }],
            ..Case::of(None)
        };
        let fix = case.fixes(cause).remove(0);
        assert!(
            matches!(&fix.actions[..], [Action::AddLogin { name, server, .. }] if name == "mine" && server == "r.test"),
            "{fix:?}"
        );
        assert!(fix.description.contains("keeps that for ghcr.io"));
        assert_eq!(
            fix.commands,
            [
                r#"kubectl -n shop patch secret mine -p "$(kubectl -n shop get secret mine -o json | jq --arg user USER --arg password PASSWORD '{data:{".dockerconfigjson":(.data[".dockerconfigjson"]|@base64d|fromjson|.auths["r.test"]={username:$user,password:$password}|tojson|@base64)}}')""#
            ]
        );
        assert!(!fix.certain);
    }
}

#[test]
fn a_name_that_is_taken_is_not_created_again() {
    let image = Reference::parse("r.test:5000/team/app:v1").unwrap();
    assert_eq!(
        super::names(&image)[..3],
        ["regcred", "regcred-r-test-5000", "regcred-r-test-5000-2"]
    );
    let taken = Case {
        free_name: Some("regcred-r-test"),
        ..Case::of(Some("Deployment"))
    };
    let told = taken.fixes(Cause::NoCredentials).remove(0).commands;
    assert!(
        told.iter().all(|one| one.contains("regcred-r-test")),
        "{told:?}"
    );
    let unknown = Case {
        free_name: None,
        ..Case::of(Some("Deployment"))
    };
    let words = unknown.fixes(Cause::NoCredentials).remove(0).description;
    assert!(words.contains("choose another name"), "{words}");
}

#[test]
fn a_pod_that_would_stay_as_it_is_goes() {
    for (owner, cause) in [
        ("StatefulSet", Cause::NoCredentials),
        ("Job", Cause::NoCredentials),
        ("StatefulSet", Cause::NeverPull),
        ("StatefulSet", Cause::DigestNotFound),
    ] {
        let told = Case::of(Some(owner)).fixes(cause).remove(0).commands;
        let last = told.last().map(String::as_str);
        assert_eq!(
            last,
            Some("kubectl -n shop delete pod web-1"),
            "{owner} {cause:?}"
        );
    }
}

#[test]
fn a_job_is_changed_by_no_patch() {
    for cause in [
        Cause::NoCredentials,
        Cause::NeverPull,
        Cause::DigestNotFound,
    ] {
        let words = Case::of(Some("CronJob")).fixes(cause).remove(0).description;
        assert!(words.ends_with("delete it"), "{words}");
    }
    let own = Case {
        spare: Some("good"),
        secrets: vec![fact("ghost", SecretState::Missing, &[])],
        ..Case::of(Some("Job"))
    };
    let fixes = own.fixes(Cause::PullSecretMissing);
    assert!(fixes[1].commands.is_empty());
    assert!(fixes[1].description.contains("in the template of Job web"));
}
