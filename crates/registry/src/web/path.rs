//! The addresses of the pages: none of them is below `/v2/`.

use towline_oci::Digest;

use crate::names::{Repository, Tag};
use crate::route::{ManifestName, percent_decoded};

/// A page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// What a browser that knows only the host asks for.
    Root,
    /// The repositories.
    Repositories,
    /// The tags of one.
    Repository(Repository),
    /// An image, or whatever a manifest is.
    Image(Repository, ManifestName),
    /// What was refused lately.
    Refusals,
    /// The registries that this one is a cache of.
    Upstreams,
    /// Where a browser asks for name and password.
    Login,
    /// The stylesheet.
    Style,
    /// The icon.
    Icon,
    /// A name below `/ui/` that nothing has.
    Nowhere,
}

/// Reads the path of a request; none if it is not for a page.
pub(super) fn read(path: &str) -> Option<Page> {
    if path == "/" {
        return Some(Page::Root);
    }
    if path == "/ui" {
        return Some(Page::Root);
    }
    let rest = path.strip_prefix("/ui/")?;
    if rest == super::style_name() {
        return Some(Page::Style);
    }
    Some(match rest {
        "" => Page::Repositories,
        "refusals" => Page::Refusals,
        "upstreams" => Page::Upstreams,
        "login" => Page::Login,
        "icon.svg" => Page::Icon,
        _ => named(rest).unwrap_or(Page::Nowhere),
    })
}

fn named(rest: &str) -> Option<Page> {
    let decoded = percent_decoded(rest)?;
    let (kind, name) = decoded.split_once('/')?;
    match kind {
        "repository" => Some(Page::Repository(Repository::parse(name).ok()?)),
        "image" => {
            let (name, which) = if let Some((name, digest)) = name.split_once('@') {
                (name, ManifestName::Digest(Digest::parse(digest).ok()?))
            } else {
                let (name, tag) = name.split_once(':')?;
                (name, ManifestName::Tag(Tag::parse(tag).ok()?))
            };
            Some(Page::Image(Repository::parse(name).ok()?, which))
        }
        _ => None,
    }
}

/// The page of a repository. A name's characters need no encoding.
pub(super) fn repository(name: &str) -> String {
    format!("/ui/repository/{name}")
}

/// The page of what a tag names.
pub(super) fn tag(name: &Repository, tag: &str) -> String {
    format!("/ui/image/{name}:{tag}")
}

/// The page of a manifest.
pub(super) fn digest(name: &Repository, digest: &Digest) -> String {
    format!("/ui/image/{name}@{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_addresses_and_nothing_of_the_api_is_one() {
        let name = Repository::parse("team/app").unwrap();
        let digest_ = Digest::of(b"x");
        let image = |which| Some(Page::Image(name.clone(), which));
        for (path, expected) in [
            ("/".to_owned(), Some(Page::Root)),
            ("/ui/".to_owned(), Some(Page::Repositories)),
            (repository("team/app"), Some(Page::Repository(name.clone()))),
            (
                tag(&name, "v1.0"),
                image(ManifestName::Tag(Tag::parse("v1.0").unwrap())),
            ),
            (
                digest(&name, &digest_),
                image(ManifestName::Digest(digest_.clone())),
            ),
            (
                digest(&name, &digest_).replace(':', "%3A"),
                image(ManifestName::Digest(digest_.clone())),
            ),
            ("/ui/image/team/app".to_owned(), Some(Page::Nowhere)),
            ("/ui/repository/../x".to_owned(), Some(Page::Nowhere)),
            ("/ui/repository/%2e%2e/x".to_owned(), Some(Page::Nowhere)),
            ("/ui/repository/<script>".to_owned(), Some(Page::Nowhere)),
            ("/ui/image/a:<b>".to_owned(), Some(Page::Nowhere)),
            ("/v2/".to_owned(), None),
            ("/v2/ui/tags/list".to_owned(), None),
            ("/uix".to_owned(), None),
            ("/token".to_owned(), None),
        ] {
            assert_eq!(read(&path), expected, "{path}");
        }
    }
}
