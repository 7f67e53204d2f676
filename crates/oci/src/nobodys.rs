//! Names of repositories that nobody has: asked for to see what a registry says of what is not there.

/// How the last part of such a name begins.
const START: &str = "towline-asks-";
/// Hexadecimal digits after that.
const DIGITS: usize = 16;

/// A name beside a repository's own that nobody has, made from a random number.
pub fn beside(repository: &str, random: u64) -> String {
    let name = format!("{START}{random:016x}");
    match repository.rsplit_once('/') {
        Some((parent, _)) => format!("{parent}/{name}"),
        None => name,
    }
}

/// Whether a repository's name is such a name: whoever asks for it only wants to see the refusal.
pub fn is_one(repository: &str) -> bool {
    let last = repository.rsplit('/').next().unwrap_or_default();
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    last.strip_prefix(START)
        .is_some_and(|digits| digits.len() == DIGITS && digits.bytes().all(is_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_lies_beside_and_is_known_again() {
        assert_eq!(beside("web", 7), "towline-asks-0000000000000007");
        assert_eq!(
            beside("team/app/web", u64::MAX),
            "team/app/towline-asks-ffffffffffffffff"
        );
        for (name, expected) in [
            (beside("web", 1).as_str(), true),
            (beside("team/app", 255).as_str(), true),
            ("towline-asks-", false),
            ("towline-asks-0000000000000007/app", false),
            ("team/towline-asks-000000000000000g", false),
            ("team/towline-asks-00000000000000070", false),
            ("team/app", false),
        ] {
            assert_eq!(is_one(name), expected, "{name}");
        }
    }
}
