//! Scopes: what a client asks for, and what a token gives.

use std::collections::{BTreeMap, BTreeSet};

use super::Access;
use crate::names::Repository;
use crate::route::Action;

/// Scopes of one request that are read.
const MOST: usize = 64;

/// Something that a client wants to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// `registry:catalog:*`: list the repositories.
    Catalog,
    /// `repository:NAME:ACTIONS`.
    Repository(Repository, Vec<Action>),
}

impl Scope {
    /// Reads `type:name:actions`. What this registry does not know is asked for in vain.
    fn read(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        match kind {
            "registry" if name == "catalog" && actions.split(',').any(|action| action == "*") => {
                Some(Self::Catalog)
            }
            "repository" => {
                let asked = |action: &Action| {
                    let mut written = actions.split(',');
                    written.any(|written| written == "*" || written == action.name())
                };
                let name = Repository::parse(name).ok()?;
                let actions = Action::ALL.into_iter().filter(asked).collect();
                Some(Self::Repository(name, actions))
            }
            _ => None,
        }
    }

    /// Reads scopes, each of which may hold several with spaces between them.
    pub(crate) fn read_all<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<Self> {
        let each = texts.into_iter().flat_map(|text| text.split(' '));
        each.take(MOST).filter_map(Self::read).collect()
    }

    /// The scope as a challenge names it: who may push needs to pull too, to see what is there already.
    pub(crate) fn wanted(name: &Repository, action: Action) -> String {
        let actions = match action {
            Action::Pull => "pull",
            Action::Push => "pull,push",
            Action::Delete => "delete",
        };
        format!("repository:{name}:{actions}")
    }
}

/// What a token gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grants {
    /// The list of repositories.
    pub(crate) catalog: bool,
    repositories: BTreeMap<String, BTreeSet<Action>>,
}

impl Grants {
    /// All that these scopes ask for.
    pub(crate) fn of(scopes: &[Scope]) -> Self {
        let mut grants = Self::default();
        for scope in scopes {
            match scope {
                Scope::Catalog => grants.catalog = true,
                Scope::Repository(name, actions) => {
                    let name = name.as_str().to_owned();
                    grants.repositories.entry(name).or_default().extend(actions);
                }
            }
        }
        grants.repositories.retain(|_, actions| !actions.is_empty());
        grants
    }

    /// Whether this is among it.
    pub(crate) fn has(&self, name: &Repository, action: Action) -> bool {
        let actions = self.repositories.get(name.as_str());
        actions.is_some_and(|actions| actions.contains(&action))
    }

    pub(super) fn access(&self) -> Vec<Access> {
        let catalog = self.catalog.then(|| Access {
            kind: "registry".to_owned(),
            name: "catalog".to_owned(),
            actions: vec!["*".to_owned()],
        });
        let repositories = self.repositories.iter().map(|(name, actions)| Access {
            kind: "repository".to_owned(),
            name: name.clone(),
            actions: actions
                .iter()
                .map(|action| action.name().to_owned())
                .collect(),
        });
        catalog.into_iter().chain(repositories).collect()
    }

    pub(super) fn from_access(access: &[Access]) -> Self {
        let text = |access: &Access| {
            format!(
                "{}:{}:{}",
                access.kind,
                access.name,
                access.actions.join(",")
            )
        };
        let texts: Vec<String> = access.iter().map(text).collect();
        Self::of(&Scope::read_all(texts.iter().map(String::as_str)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_and_what_is_unknown_gives_nothing() {
        let a = Repository::parse("a/b").unwrap();
        let grants = |text: &str| Grants::of(&Scope::read_all([text]));
        for (text, pull, push, delete) in [
            ("repository:a/b:pull", true, false, false),
            ("repository:a/b:pull,push", true, true, false),
            ("repository:a/b:*", true, true, true),
            (
                "repository:a/b:delete repository:a/b:pull",
                true,
                false,
                true,
            ),
            ("repository:a:pull,push,delete", false, false, false),
            ("repository:a/b:pullx", false, false, false),
            ("repository(plugin):a/b:pull", false, false, false),
            ("repository:a/b", false, false, false),
            ("repository:A/B:pull", false, false, false),
            ("registry:catalog:*", false, false, false),
            ("", false, false, false),
        ] {
            let grants = grants(text);
            let has = Action::ALL.map(|action| grants.has(&a, action));
            assert_eq!(has, [pull, push, delete], "{text}");
            assert_eq!(grants.catalog, text.starts_with("registry"), "{text}");
            assert_eq!(Grants::from_access(&grants.access()), grants, "{text}");
        }
        let many = (0..100)
            .map(|n| format!("repository:r{n}:pull"))
            .collect::<Vec<_>>();
        let read = Scope::read_all(many.iter().map(String::as_str));
        assert_eq!(read.len(), MOST);
    }
}
