//! `registries.conf`, version 2, as podman and CRI-O read it, with the files of `registries.conf.d` beside it.
//!
//! What it says of short names is read and has no effect: in Kubernetes `nginx` always means `docker.io/library/nginx`.

use std::path::{Path, PathBuf};

use towline_oci::Reference;

use super::file::{self, ConfigError, Item, Place, Source};

const MOST_FILES: usize = 200;
const MOST_REGISTRIES: usize = 2000;
const MOST_MIRRORS: usize = 64;

const TOP_KEYS: [&str; 7] = [
    "registry",
    "unqualified-search-registries",
    "short-name-mode",
    "aliases",
    "credential-helpers",
    "additional-layer-store-auth-helper",
    "mirror-by-digest-only",
];
const REGISTRY_KEYS: [&str; 6] = [
    "prefix",
    "location",
    "insecure",
    "blocked",
    "mirror",
    "mirror-by-digest-only",
];
const MIRROR_KEYS: [&str; 3] = ["location", "insecure", "pull-from-mirror"];

/// For which images a mirror is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    All,
    DigestOnly,
    TagOnly,
}

#[derive(Debug, Clone)]
pub(crate) struct Mirror {
    pub(crate) location: String,
    pub(crate) insecure: bool,
    pub(crate) from: From,
    pub(crate) place: Place,
}

/// One `[[registry]]`.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    pub(crate) prefix: String,
    /// What takes the prefix's place; empty leaves the name as it is.
    pub(crate) location: String,
    pub(crate) insecure: bool,
    pub(crate) blocked: bool,
    pub(crate) mirrors: Vec<Mirror>,
    pub(crate) place: Place,
}

/// Reads a file and those of the directory beside it (`registries.conf.d`), in the order of their names; a later registry with the same
/// prefix replaces an earlier one.
pub(crate) fn read(path: &Path) -> Result<Vec<Registry>, ConfigError> {
    let mut files = vec![path.to_owned()];
    let mut directory = path.as_os_str().to_owned();
    directory.push(".d");
    files.extend(drop_ins(Path::new(&directory))?);
    let mut registries: Vec<Registry> = Vec::new();
    for (at, file) in files.iter().enumerate() {
        let Some(text) = file::read(file)? else {
            if at == 0 && files.len() == 1 {
                return Err(ConfigError::whole(path, "it does not exist"));
            }
            continue;
        };
        for registry in parse(file, &text)? {
            registries.retain(|before| before.prefix != registry.prefix);
            registries.push(registry);
        }
        if registries.len() > MOST_REGISTRIES {
            return Err(ConfigError::whole(
                file,
                format!("more than {MOST_REGISTRIES} registries"),
            ));
        }
    }
    Ok(registries)
}

fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let cannot = |error: std::io::Error| {
        ConfigError::whole(directory, format!("it cannot be listed: {error}"))
    };
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(cannot)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(cannot)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "conf")
        {
            files.push(path);
        }
        if files.len() > MOST_FILES {
            return Err(ConfigError::whole(
                directory,
                format!("more than {MOST_FILES} files"),
            ));
        }
    }
    files.sort();
    Ok(files)
}

/// Reads one file.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Vec<Registry>, ConfigError> {
    let source = Source { path, text };
    let document = source.parse()?;
    let mut registries: Vec<Registry> = Vec::new();
    for item in source.items(document.get_ref()) {
        match item.key {
            "registry" => {
                for table in item.array()? {
                    let registry = registry(&table)?;
                    if registries.iter().any(|one| one.prefix == registry.prefix) {
                        return Err(table.wrong_key(format!(
                            "registry {:?} is there twice in one file",
                            registry.prefix
                        )));
                    }
                    registries.push(registry);
                }
            }
            "registries" => {
                return Err(item.wrong_key(
                    "this is version 1 of the format, which podman and CRI-O have given up: write [[registry]] tables",
                ));
            }
            // Of short names, helpers of podman's own, or other programs' business.
            known if TOP_KEYS.contains(&known) && known != "mirror-by-digest-only" => {}
            _ => return Err(item.unknown(&TOP_KEYS[..6])),
        }
    }
    Ok(registries)
}

fn registry(table: &Item<'_, '_>) -> Result<Registry, ConfigError> {
    let (mut prefix, mut location) = (None, None);
    let (mut insecure, mut blocked) = (false, false);
    let mut by_digest = None;
    let mut mirrors = Vec::new();
    let mut place = table.place();
    for (at, item) in table.table()?.iter().enumerate() {
        if at == 0 {
            place = item.place();
        }
        match item.key {
            "prefix" => prefix = Some(prefix_of(item)?),
            "location" => location = Some(location_of(item, true)?),
            "insecure" => insecure = item.flag()?,
            "blocked" => blocked = item.flag()?,
            "mirror-by-digest-only" => by_digest = item.flag()?.then_some(*item),
            "mirror" => {
                for mirror in item.array()? {
                    mirrors.push(mirror_of(&mirror)?);
                }
                if mirrors.len() > MOST_MIRRORS {
                    return Err(item.wrong_key(format!("more than {MOST_MIRRORS} mirrors")));
                }
            }
            _ => return Err(item.unknown(&REGISTRY_KEYS)),
        }
    }
    if let Some(item) = by_digest {
        for (mirror, said) in &mut mirrors {
            if *said {
                return Err(item.wrong_key(
                    "\"mirror-by-digest-only\" and a mirror's \"pull-from-mirror\" exclude each other",
                ));
            }
            mirror.from = From::DigestOnly;
        }
    }
    let is_pattern = prefix
        .as_ref()
        .is_some_and(|prefix: &String| prefix.starts_with("*."));
    let (prefix, location) = match (prefix, location) {
        (None, None) => {
            return Err(table.wrong_key("a registry needs a \"location\" or a \"prefix\""));
        }
        (None, Some(location)) => (location.clone(), location),
        (Some(prefix), Some(location)) => (prefix, location),
        (Some(prefix), None) if is_pattern => (prefix, String::new()),
        (Some(prefix), None) => (prefix.clone(), prefix),
    };
    if prefix.is_empty() {
        return Err(table.wrong_key("a registry needs a \"location\" or a \"prefix\""));
    }
    Ok(Registry {
        prefix,
        location,
        insecure,
        blocked,
        mirrors: mirrors.into_iter().map(|(mirror, _)| mirror).collect(),
        place,
    })
}

/// A mirror, and whether it says itself for which images it is.
fn mirror_of(table: &Item<'_, '_>) -> Result<(Mirror, bool), ConfigError> {
    let mut location = None;
    let mut insecure = false;
    let mut from = None;
    let mut place = table.place();
    for item in &table.table()? {
        match item.key {
            "location" => {
                place = item.place();
                location = Some(location_of(item, false)?);
            }
            "insecure" => insecure = item.flag()?,
            "pull-from-mirror" => {
                from = Some(match item.text()? {
                    "all" | "" => From::All,
                    "digest-only" => From::DigestOnly,
                    "tag-only" => From::TagOnly,
                    other => {
                        return Err(
                            item.wrong(format!("{other:?} is none of all, digest-only, tag-only"))
                        );
                    }
                });
            }
            _ => return Err(item.unknown(&MIRROR_KEYS)),
        }
    }
    let location = location.ok_or_else(|| table.wrong_key("a mirror needs a \"location\""))?;
    let said = from.is_some();
    Ok((
        Mirror {
            location,
            insecure,
            from: from.unwrap_or(From::All),
            place,
        },
        said,
    ))
}

/// `host[:port][/path]`.
fn location_of(item: &Item<'_, '_>, may_be_empty: bool) -> Result<String, ConfigError> {
    let text = item.text()?.trim_end_matches('/');
    if text.is_empty() && may_be_empty {
        return Ok(String::new());
    }
    if text.contains("://") {
        return Err(item.wrong(format!(
            "{text:?} has a scheme; write host[:port][/path], and insecure = true where there is no TLS"
        )));
    }
    let whole = if text.contains('/') {
        Reference::parse(text)
    } else {
        Reference::parse(&format!("{text}/x"))
    };
    match whole {
        Ok(reference)
            if reference.names_registry()
                && reference.digest().is_none()
                && reference.tag().is_none() =>
        {
            Ok(text.to_owned())
        }
        _ => Err(item.wrong(format!("{text:?} is not host[:port][/path]"))),
    }
}

fn prefix_of(item: &Item<'_, '_>) -> Result<String, ConfigError> {
    let text = item.text()?;
    match text.strip_prefix("*.") {
        Some(host) if host.contains(['/', ':', '*']) || host.is_empty() => {
            Err(item.wrong(format!("{text:?}: after \"*.\" comes a host name alone")))
        }
        Some(_) => Ok(text.to_owned()),
        None => {
            let text = text.trim_end_matches('/');
            // A prefix may go on to a tag or a digest.
            let name = text.split('@').next().unwrap_or(text);
            let whole = if name.contains('/') {
                Reference::parse(name)
            } else {
                Reference::parse(&format!("{name}/x"))
            };
            match whole {
                Ok(_) => Ok(text.to_owned()),
                Err(_) => {
                    Err(item.wrong(format!("{text:?} is not the beginning of an image's name")))
                }
            }
        }
    }
}

/// How much of an image's full name a prefix covers; `None` where it does not match.
pub(crate) fn covered(prefix: &str, name: &str) -> Option<usize> {
    if let Some(suffix) = prefix.strip_prefix('*') {
        let host_end = name.find(['/', ':', '@']).unwrap_or(name.len());
        let host = &name[..host_end];
        return (host.len() > suffix.len() && host.ends_with(suffix)).then_some(host_end);
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with(['/', ':', '@'])).then_some(prefix.len())
}

/// The registry that is configured for an image: the longest prefix wins.
pub(crate) fn choose<'r>(registries: &'r [Registry], name: &str) -> Option<(&'r Registry, usize)> {
    registries
        .iter()
        .filter_map(|registry| covered(&registry.prefix, name).map(|length| (registry, length)))
        .max_by_key(|(registry, _)| registry.prefix.len())
}

/// The image's name with `location` in the place of its first `length` bytes.
pub(crate) fn rewrite(name: &str, length: usize, location: &str) -> Option<Reference> {
    if location.is_empty() {
        return Reference::parse(name).ok();
    }
    let rest = name.get(length..)?;
    Reference::parse(&format!("{location}{rest}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Registry>, ConfigError> {
        parse(Path::new("r.conf"), text)
    }

    #[test]
    fn a_file_with_everything() {
        let registries = read(
            r#"
unqualified-search-registries = ["docker.io"]
short-name-mode = "enforcing"
[aliases]
"fedora" = "registry.fedoraproject.org/fedora"

[[registry]]
prefix = "docker.io/library"
location = "cache.corp/hub"
[[registry.mirror]]
location = "m1.corp:5000/hub"
insecure = true
[[registry.mirror]]
location = "m2.corp"
pull-from-mirror = "digest-only"

[[registry]]
location = "quay.io"
blocked = true

[[registry]]
prefix = "*.corp"
mirror-by-digest-only = true
[[registry.mirror]]
location = "m3.corp"
"#,
        )
        .unwrap();
        assert_eq!(registries.len(), 3);
        assert_eq!(registries[0].location, "cache.corp/hub");
        assert_eq!(registries[0].mirrors[0].place.to_string(), "r.conf:11");
        assert!(registries[0].mirrors[0].insecure);
        assert_eq!(registries[0].mirrors[1].from, From::DigestOnly);
        assert!(registries[1].blocked && registries[1].prefix == "quay.io");
        assert_eq!(registries[2].location, "");
        assert_eq!(registries[2].mirrors[0].from, From::DigestOnly);
    }

    #[test]
    fn prefixes_end_where_names_do() {
        for (prefix, name, want) in [
            ("docker.io", "docker.io/library/nginx:1", Some(9)),
            ("docker.io/library", "docker.io/library/nginx:1", Some(17)),
            ("docker.io/lib", "docker.io/library/nginx:1", None),
            ("r.corp", "r.corp:5000/a", Some(6)),
            ("r.corp/a:1", "r.corp/a:1", Some(10)),
            ("*.corp", "r.corp/a", Some(6)),
            ("*.corp", "a.r.corp:5000/a", Some(8)),
            ("*.corp", "corp/a", None),
            ("*.corp", "rcorp/a", None),
            ("*.corp", "r.corp.evil/a", None),
        ] {
            assert_eq!(covered(prefix, name), want, "{prefix} {name}");
        }
    }

    #[test]
    fn names_are_rewritten() {
        let name = "docker.io/library/nginx:1";
        for (length, location, want) in [
            (9, "m.corp", Some("m.corp/library/nginx:1")),
            (17, "m.corp:5000/hub", Some("m.corp:5000/hub/nginx:1")),
            (9, "", Some(name)),
        ] {
            let got = rewrite(name, length, location).map(|reference| reference.to_string());
            assert_eq!(got.as_deref(), want, "{length} {location}");
        }
    }

    #[test]
    fn whatever_is_wrong_has_a_place() {
        for (text, want) in [
            (
                "[[registry]]\nlocaton = \"a.b\"",
                "r.conf:2:1: unknown key \"localton\"",
            ),
            (
                "[[registry]]\nblocked = true",
                "a registry needs a \"location\" or a \"prefix\"",
            ),
            (
                "[[registry]]\nlocation = \"https://a.b\"",
                "r.conf:2:12: \"https://a.b\" has a scheme",
            ),
            (
                "[[registry]]\nlocation = \"a.b\"\n[[registry.mirror]]\nlocation = \"m.b\"\npull-from-mirror = \"never\"",
                "r.conf:5:20: \"never\" is none of all, digest-only, tag-only",
            ),
            (
                "[[registry]]\nlocation = \"a.b\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"m.b\"\npull-from-mirror = \"all\"",
                "r.conf:3:1: \"mirror-by-digest-only\" and a mirror's",
            ),
            (
                "[registries.search]\nregistries = []",
                "r.conf:1:2: this is version 1",
            ),
            (
                "[[registry]]\nlocation = \"a.b\"\n[[registry]]\nlocation = \"a.b\"",
                "is there twice in one file",
            ),
            (
                "[[registry]]\nprefix = \"*.a/b\"",
                "after \"*.\" comes a host name alone",
            ),
            (
                "[[registry]]\nlocation = \"short\"",
                "\"short\" is not host[:port][/path]",
            ),
        ] {
            let error = read(text).unwrap_err().to_string();
            let want = want.replace("localton", "locaton");
            assert!(error.contains(&want), "{text}\n{error}");
        }
    }
}
