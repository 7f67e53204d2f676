//! Rules: the first one whose pattern fits a repository decides.

use super::users::Users;
use crate::names::Repository;
use crate::route::Action;

/// Who may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Anyone, without a login.
    Anyone,
    /// Every user that can log in.
    AnyUser,
    /// These users.
    Users(Vec<String>),
    /// Nobody.
    Nobody,
}

/// What may be done to the repositories that fit a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// A repository name; `*` stands for any characters, also `/`.
    pub repositories: String,
    /// Who reads.
    pub pull: Who,
    /// Who adds.
    pub push: Who,
    /// Who removes.
    pub delete: Who,
}

/// The rules and the users. A repository that no rule fits is nobody's.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// In order: the first that fits decides.
    pub rules: Vec<Rule>,
    /// Who can log in.
    pub users: Users,
}

/// What the rules say of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It goes on.
    Allow,
    /// A login might help.
    LoginNeeded,
    /// The rules allow it, the token does not.
    ScopeNeeded,
    /// This user may not.
    Forbidden,
}

impl Access {
    /// Anyone may do everything.
    pub fn open() -> Self {
        Self {
            rules: vec![Rule::new("*", Who::Anyone, Who::Anyone)],
            users: Users::default(),
        }
    }

    /// Users may do everything, others nothing.
    pub fn private(users: Users) -> Self {
        Self {
            rules: vec![Rule::new("*", Who::AnyUser, Who::AnyUser)],
            users,
        }
    }

    /// Whether somebody without a login may change any repository.
    pub(crate) fn anyone_may_change(&self) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.push == Who::Anyone || rule.delete == Who::Anyone)
    }

    /// Whether there is a way to log in.
    pub(crate) fn wants_login(&self) -> bool {
        !self.users.is_empty()
    }

    /// Decides for a user (`None`: nobody logged in).
    pub(crate) fn decide(
        &self,
        user: Option<&str>,
        repository: &Repository,
        action: Action,
    ) -> Decision {
        let rule = self
            .rules
            .iter()
            .find(|rule| fits(&rule.repositories, repository.as_str()));
        let who = rule.map_or(&Who::Nobody, |rule| match action {
            Action::Pull => &rule.pull,
            Action::Push => &rule.push,
            Action::Delete => &rule.delete,
        });
        let allowed = match who {
            Who::Anyone => true,
            Who::AnyUser => user.is_some(),
            Who::Users(names) => user.is_some_and(|user| names.iter().any(|name| name == user)),
            Who::Nobody => false,
        };
        match (allowed, user) {
            (true, _) => Decision::Allow,
            // Whether a name exists, and is nobody's, is not told to strangers where logins exist.
            (false, None) if self.wants_login() => Decision::LoginNeeded,
            (false, _) => Decision::Forbidden,
        }
    }
}

impl Rule {
    /// A rule by which those who add may also remove.
    pub fn new(repositories: &str, pull: Who, push: Who) -> Self {
        Self {
            repositories: repositories.to_owned(),
            pull,
            delete: push.clone(),
            push,
        }
    }
}

/// Whether a name fits a pattern in which `*` stands for any characters.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.into_iter().any(|at| fits(rest, &name[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*", "a/b", true),
            ("a", "a", true),
            ("a", "a/b", false),
            ("a/*", "a/b/c", true),
            ("a/*", "a", false),
            ("*/c", "a/b/c", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let mut users = Users::default();
        users.insert_hash("ann", "$2b$04$x").unwrap();
        let access = Access {
            rules: vec![
                Rule::new("public/*", Who::Anyone, Who::Users(vec!["ann".to_owned()])),
                Rule::new("closed/*", Who::Nobody, Who::Nobody),
                Rule::new("*", Who::AnyUser, Who::AnyUser),
            ],
            users,
        };
        for (user, name, action, expected) in [
            (None, "public/a", Action::Pull, Decision::Allow),
            (None, "public/a", Action::Push, Decision::LoginNeeded),
            (Some("ann"), "public/a", Action::Delete, Decision::Allow),
            (Some("bob"), "public/a", Action::Push, Decision::Forbidden),
            (Some("ann"), "closed/a", Action::Pull, Decision::Forbidden),
            (None, "closed/a", Action::Pull, Decision::LoginNeeded),
            (Some("bob"), "team/a", Action::Push, Decision::Allow),
            (None, "team/a", Action::Pull, Decision::LoginNeeded),
        ] {
            let name = Repository::parse(name).unwrap();
            assert_eq!(
                access.decide(user, &name, action),
                expected,
                "{user:?} {name} {action:?}"
            );
        }
        let nobody = Access::default();
        let name = Repository::parse("a").unwrap();
        assert_eq!(
            nobody.decide(None, &name, Action::Pull),
            Decision::Forbidden
        );
        assert!(Access::open().anyone_may_change() && !access.anyone_may_change());
    }
}
