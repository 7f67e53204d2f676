//! Tags and repositories that a person may have meant.

use towline_oci::Reference;

/// The most tags that are offered.
const MOST: usize = 5;
/// Two tags that are less alike than this are not offered.
const ALIKE: f64 = 0.5;

/// Tags like `wanted`, nearest first. Tags that differ only in characters that look alike (`O` and `0`, `l`, `I` and `1`, case, `_`, `-`
/// and `.`) come before all others; then by likeness; then as the registry lists them.
pub fn near(wanted: &str, tags: &[String]) -> Vec<String> {
    let plain = looks(wanted);
    let mut scored: Vec<(bool, f64, &String)> = tags
        .iter()
        .filter(|tag| tag.as_str() != wanted)
        .map(|tag| {
            let likeness = strsim::jaro_winkler(wanted, tag)
                .max(strsim::normalized_levenshtein(&plain, &looks(tag)));
            (looks(tag) == plain, likeness, tag)
        })
        .filter(|(same, likeness, _)| *same || *likeness >= ALIKE)
        .collect();
    scored.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)));
    scored
        .into_iter()
        .take(MOST)
        .map(|(_, _, tag)| tag.clone())
        .collect()
}

/// The most repositories that are offered, and how alike they have to be: a wrong one leads further astray than a wrong tag.
const MOST_REPOSITORIES: usize = 3;
const REPOSITORY_ALIKE: f64 = 0.75;

/// Repositories like `wanted`, nearest first; one of the same last name in another place counts as like it. What is no name of a
/// repository is none, whatever a registry lists.
pub(crate) fn repositories(wanted: &str, names: &[String]) -> Vec<String> {
    fn last(path: &str) -> &str {
        path.rsplit('/').next().unwrap_or(path)
    }
    let plain = looks(wanted);
    let likeness = |name: &String| {
        let moved = if last(name) == last(wanted) { 0.8 } else { 0.0 };
        strsim::normalized_levenshtein(&plain, &looks(name)).max(moved)
    };
    let others = names
        .iter()
        .filter(|name| name.as_str() != wanted && is_repository(name));
    let mut scored: Vec<(f64, &String)> = others
        .map(|name| (likeness(name), name))
        .filter(|(likeness, _)| *likeness >= REPOSITORY_ALIKE)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let names = scored.into_iter().take(MOST_REPOSITORIES);
    names.map(|(_, name)| name.clone()).collect()
}

fn is_repository(name: &str) -> bool {
    let written = format!("registry.test/{name}");
    Reference::parse(&written).is_ok_and(|parsed| parsed.repository() == name)
}

/// The one tag that differs from `wanted` in nothing but characters that look alike; `None` where there are none or several.
pub(crate) fn sole_alike<'a>(wanted: &str, tags: &'a [String]) -> Option<&'a String> {
    let plain = looks(wanted);
    let mut alike = tags
        .iter()
        .filter(|tag| tag.as_str() != wanted && looks(tag) == plain);
    let first = alike.next()?;
    alike.next().is_none().then_some(first)
}

/// The text with characters that look alike made the same.
fn looks(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            'O' | 'o' => '0',
            'I' | 'l' | 'i' | 'L' => '1',
            '_' | '.' => '-',
            'S' | 's' => '5',
            'B' => '8',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_offered_where_one_may_be_meant() {
        let names: Vec<String> = ["team/app", "team/api", "infra/web", "other/thing", "a/b"]
            .map(str::to_owned)
            .into();
        for (wanted, want) in [
            ("team/aap", vec!["team/app", "team/api"]),
            ("team/app", vec!["team/api"]),
            ("web", vec!["infra/web"]),
            ("shop/backend", vec![]),
        ] {
            assert_eq!(repositories(wanted, &names), want, "{wanted}");
        }
    }

    #[test]
    fn what_is_no_name_is_not_offered() {
        let names = [
            "x\u{1b}[2K/app",
            "team/app\nrm -rf",
            "team/app:v1",
            "Team/app",
            "team/$(id)/app",
            "other/app",
        ];
        let names: Vec<String> = names.map(str::to_owned).into();
        assert_eq!(repositories("team/app", &names), ["other/app"]);
    }

    #[test]
    fn the_nearest_comes_first() {
        for (wanted, tags, want) in [
            ("1.O", &["1.1", "1.0", "2.0"][..], Some("1.0")),
            ("v1.2.l", &["v1.2.0", "v1.2.1", "v1.2.7"], Some("v1.2.1")),
            (
                "1.27.4-alpine",
                &["1.27.3-alpine", "1.27.4", "alpine", "latest"],
                Some("1.27.3-alpine"),
            ),
            ("latst", &["stable", "latest", "1.0"], Some("latest")),
            ("Release", &["releases", "release"], Some("release")),
            ("1_0", &["1.1", "1-0"], Some("1-0")),
            ("zzz", &["1.0", "2.0"], None),
            ("1.0", &[], None),
        ] {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            assert_eq!(
                near(wanted, &tags).first().map(String::as_str),
                want,
                "{wanted}"
            );
        }
    }

    #[test]
    fn one_that_looks_the_same_is_meant_and_of_two_neither() {
        let tags =
            |tags: &[&str]| -> Vec<String> { tags.iter().map(ToString::to_string).collect() };
        let sole = |wanted: &str, list: &[&str]| sole_alike(wanted, &tags(list)).cloned();
        assert_eq!(sole("v1.O", &["v1.0", "v1.1"]).as_deref(), Some("v1.0"));
        assert_eq!(sole("v1.O", &["v1.0", "v1-0"]), None);
        assert_eq!(sole("v1.2", &["v1.3"]), None);
    }

    #[test]
    fn few_are_offered() {
        let tags: Vec<String> = (0..100).map(|n| format!("1.{n}")).collect();
        assert_eq!(near("1.x", &tags).len(), MOST);
    }
}
