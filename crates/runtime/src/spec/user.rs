//! Which ids a container's first process gets, from CRI's wishes, the image's USER, and the rootfs's own files.

use std::collections::BTreeSet;

/// The largest id that is accepted: larger ones turn negative in programs that keep ids in 32 signed bits.
const MAX_ID: i64 = 0x7fff_ffff;

/// What decides about the ids.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes<'a> {
    pub(crate) run_as_user: Option<i64>,
    pub(crate) run_as_username: &'a str,
    pub(crate) run_as_group: Option<i64>,
    pub(crate) supplemental_groups: &'a [i64],
    /// Whether groups of the rootfs's /etc/group stay out.
    pub(crate) strict: bool,
    /// `USER` of the image.
    pub(crate) image_user: &'a str,
}

/// The ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Ascending, with `gid` among them: a process must not lose its primary group when it changes its gid.
    pub(crate) groups: Vec<u32>,
    /// Home directory, where /etc/passwd names one.
    pub(crate) home: Option<String>,
}

/// Why no ids can be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UserError {
    #[error("{what} {id} is out of range (0 to {MAX_ID})")]
    Range { what: &'static str, id: String },
    #[error("a group is given without a user")]
    GroupWithoutUser,
    #[error("user {0:?} is not in /etc/passwd of the image")]
    NoUser(String),
    #[error("group {0:?} is not in /etc/group of the image")]
    NoGroup(String),
    #[error("{0:?} is not a user of the form name, uid, name:group or uid:gid")]
    Form(String),
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Finds the ids; `passwd` and `group` are the rootfs's files, empty where missing.
pub(crate) fn resolve(wishes: &Wishes<'_>, passwd: &str, group: &str) -> Result<User, UserError> {
    let (user, image_group) = wanted(wishes)?;
    let entry = find_user(&user, passwd);
    let (uid, mut gid, name) = match (&entry, numeric(&user)) {
        (Some(entry), _) => (entry.uid, entry.gid, entry.name),
        (None, Some(uid)) => (id("user id", &uid)?, 0, ""),
        (None, None) => return Err(UserError::NoUser(user)),
    };
    if let Some(wanted) = &image_group {
        gid = find_group(wanted, group)?;
    }
    if let Some(wanted) = wishes.run_as_group {
        gid = id("group id", &wanted.to_string())?;
    }
    let mut groups = BTreeSet::from([gid]);
    for wanted in wishes.supplemental_groups {
        groups.insert(id("supplemental group", &wanted.to_string())?);
    }
    if !wishes.strict && !name.is_empty() {
        groups.extend(memberships(name, group));
    }
    Ok(User {
        uid,
        gid,
        groups: groups.into_iter().collect(),
        home: entry.map(|e| e.home.to_owned()).filter(|h| !h.is_empty()),
    })
}

/// The user to look for, and the group that the image names with it.
fn wanted(wishes: &Wishes<'_>) -> Result<(String, Option<String>), UserError> {
    if let Some(uid) = wishes.run_as_user {
        id("user id", &uid.to_string())?;
        return Ok((uid.to_string(), None));
    }
    if !wishes.run_as_username.is_empty() {
        return Ok((wishes.run_as_username.to_owned(), None));
    }
    if wishes.run_as_group.is_some() {
        return Err(UserError::GroupWithoutUser);
    }
    let text = wishes.image_user;
    let form = || UserError::Form(text.chars().take(64).collect());
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) || text.len() > 512 {
        return Err(form());
    }
    match text.split_once(':') {
        None if text.is_empty() => Ok(("0".to_owned(), None)),
        None => Ok((text.to_owned(), None)),
        Some((_, group)) if group.contains(':') => Err(form()),
        Some((user, group)) => Ok((
            if user.is_empty() { "0" } else { user }.to_owned(),
            Some(group.to_owned()).filter(|g| !g.is_empty()),
        )),
    }
}

/// Text that is meant as a number, sign included.
fn numeric(text: &str) -> Option<String> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| text.to_owned())
}

fn id(what: &'static str, text: &str) -> Result<u32, UserError> {
    text.parse::<i64>()
        .ok()
        .filter(|n| (0..=MAX_ID).contains(n) && !text.starts_with('+'))
        .and_then(|n| u32::try_from(n).ok())
        .ok_or_else(|| UserError::Range {
            what,
            id: text.chars().take(32).collect(),
        })
}

/// The entry by name or, for a number, by uid.
fn find_user<'a>(user: &str, passwd: &'a str) -> Option<Entry<'a>> {
    passwd.lines().find_map(|line| {
        let mut parts = line.split(':');
        let (name, _, uid, gid) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let (uid, gid) = (id("user id", uid).ok()?, id("group id", gid).ok()?);
        let matches = !name.is_empty() && (name == user || uid.to_string() == user);
        matches.then(|| Entry {
            name,
            uid,
            gid,
            home: parts.nth(1).unwrap_or_default(),
        })
    })
}

/// Name, gid and members of each group.
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut parts = line.split(':');
        let (name, _, gid) = (parts.next()?, parts.next()?, parts.next()?);
        Some((
            name,
            id("group id", gid).ok()?,
            parts.next().unwrap_or_default(),
        ))
    })
}

fn find_group(wanted: &str, text: &str) -> Result<u32, UserError> {
    if let Some(number) = numeric(wanted) {
        return id("group id", &number);
    }
    groups(text)
        .find(|(name, _, _)| *name == wanted)
        .map(|(_, gid, _)| gid)
        .ok_or_else(|| UserError::NoGroup(wanted.chars().take(64).collect()))
}

fn memberships<'a>(user: &'a str, text: &'a str) -> impl Iterator<Item = u32> + 'a {
    groups(text)
        .filter(move |(_, _, members)| members.split(',').any(|m| m.trim() == user))
        .map(|(_, gid, _)| gid)
}

/// `USER` as CRI reports it: a uid or a name; the group is left out.
pub(crate) fn image_user(text: &str) -> (Option<i64>, String) {
    let user = text.split(':').next().unwrap_or_default();
    match user.parse::<i64>() {
        Ok(uid) if (0..=MAX_ID).contains(&uid) => (Some(uid), String::new()),
        _ => (None, user.chars().take(512).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www:/var/www:/bin/false\nbroken\n\
                          app:x:1000:1001::/home/app:/bin/sh\nhuge:x:4294967296:0::/:/\n";
    const GROUP: &str =
        "root:x:0:\nwww-data:x:33:\napp:x:1001:\nextra:x:50000:app,www-data\nother:x:7:nobody\n";

    fn image(user: &str) -> Result<User, UserError> {
        resolve(
            &Wishes {
                image_user: user,
                ..Wishes::default()
            },
            PASSWD,
            GROUP,
        )
    }

    #[test]
    fn the_images_user() {
        for (user, uid, gid, groups) in [
            ("", 0, 0, &[0][..]),
            ("0", 0, 0, &[0]),
            ("app", 1000, 1001, &[1001, 50000]),
            ("1000", 1000, 1001, &[1001, 50000]),
            ("1000:0", 1000, 0, &[0, 50000]),
            ("app:extra", 1000, 50000, &[50000]),
            ("4711", 4711, 0, &[0]),
            ("4711:4712", 4711, 4712, &[4712]),
            ("2147483647", 2_147_483_647, 0, &[0]),
            (":33", 0, 33, &[33]),
            ("www-data:", 33, 33, &[33, 50000]),
        ] {
            let found = image(user).unwrap();
            assert_eq!(
                (found.uid, found.gid, found.groups.as_slice()),
                (uid, gid, groups),
                "{user}"
            );
        }
    }

    #[test]
    fn ids_that_would_wrap_are_refused() {
        for user in [
            "2147483648",
            "4294967296",
            "4294967295",
            "99999999999999999999999999",
            "-1",
            "+0",
            "1:4294967296",
            "1:-1",
            "huge",
            "nobody-here",
            "app:nogroup",
            "a:b:c",
            "a b",
            "app\n",
        ] {
            assert!(image(user).is_err(), "{user}");
        }
    }

    #[test]
    fn the_pods_wishes_win() {
        let both = Wishes {
            run_as_user: Some(1000),
            run_as_group: Some(7),
            supplemental_groups: &[5, 9],
            image_user: "www-data",
            ..Wishes::default()
        };
        let user = resolve(&both, PASSWD, GROUP).unwrap();
        assert_eq!(
            (user.uid, user.gid, user.groups),
            (1000, 7, vec![5, 7, 9, 50000])
        );
        let strict = Wishes {
            strict: true,
            ..both.clone()
        };
        assert_eq!(resolve(&strict, PASSWD, GROUP).unwrap().groups, [5, 7, 9]);
        let named = Wishes {
            run_as_username: "www-data",
            ..Wishes::default()
        };
        assert_eq!(
            resolve(&named, PASSWD, GROUP).unwrap().home.as_deref(),
            Some("/var/www")
        );
        let alone = Wishes {
            run_as_group: Some(7),
            ..Wishes::default()
        };
        assert_eq!(
            resolve(&alone, PASSWD, GROUP),
            Err(UserError::GroupWithoutUser)
        );
        for (user, group) in [(-1, 0), (0, -1), (1 << 31, 0), (0, 1 << 32)] {
            let wishes = Wishes {
                run_as_user: Some(user),
                run_as_group: Some(group),
                ..Wishes::default()
            };
            assert!(resolve(&wishes, PASSWD, GROUP).is_err());
        }
    }

    #[test]
    fn as_cri_reports_it() {
        assert_eq!(image_user("1002"), (Some(1002), String::new()));
        assert_eq!(image_user("1003:1003"), (Some(1003), String::new()));
        assert_eq!(
            image_user("www-data:www-data"),
            (None, "www-data".to_owned())
        );
        assert_eq!(image_user(""), (None, String::new()));
    }
}
