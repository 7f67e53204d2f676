//! Logins of the command line: the file that was named, or those where docker and podman leave theirs.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use towline_distribution::{Client, MirrorLogins, MirrorPlace, Trace};
use towline_keyring::helper::{self, HelperError};
use towline_keyring::login::MAX_FILE;
use towline_keyring::{Candidate, Credential, Login, Origin};
use towline_oci::Reference;

use crate::output;

/// How long a credential helper may take: some open a window or ask a cloud.
const HELPER: std::time::Duration = std::time::Duration::from_secs(20);

/// The login files that count, the first one with a login for an image wins.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logins {
    files: Vec<File>,
    /// Somebody named the file: what is wrong with it is an error, else a note.
    named: bool,
}

#[derive(Debug, Clone)]
struct File {
    path: PathBuf,
    logins: towline_keyring::Logins,
}

impl Logins {
    /// Reads the file that was named, else `REGISTRY_AUTH_FILE`, else what podman and docker have left: podman's `auth.json` of the
    /// session and of the home directory, docker's `config.json`.
    pub(crate) fn read(authfile: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(path) = authfile {
            return Ok(Self {
                files: vec![read(path)?.with_context(|| {
                    format!("read the login file {}: there is none", path.display())
                })?],
                named: true,
            });
        }
        let env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let mut all = Self::default();
        for path in usual(&env) {
            match read(&path) {
                Ok(file) => all.files.extend(file),
                // A public image needs no login: a broken file of another program is no reason to stop.
                Err(error) => output::note(format!("{error:#}; it is passed over")),
            }
        }
        Ok(all)
    }

    /// Whether an image's own registry is spoken to over TLS, where it depends on that which login the image gets, and as far as it can be told.
    /// It is asked for nothing but whether it is there.
    pub(crate) async fn tls(&self, client: &Client, image: &Reference) -> Option<bool> {
        if !self.depend_on_tls(image) {
            return None;
        }
        let nobody = client.repository(image, Credential::Anonymous, Trace::default());
        // What it speaks is known after any answer, and who pulls will say why there is none.
        nobody.ping().await.ok();
        let plan = client.plan(image).ok()?;
        let own = plan.endpoints.iter().find(|endpoint| !endpoint.mirror)?;
        Some(own.url.starts_with("https://"))
    }

    /// Whether it depends on TLS which login an image gets: an entry that names a scheme is for that alone.
    fn depend_on_tls(&self, image: &Reference) -> bool {
        self.files.iter().any(|file| {
            let at = |tls| file.logins.find_at(image, Some(tls), &file.path);
            match (at(true), at(false)) {
                (Login::Stored(with), Login::Stored(without)) => {
                    with.credential != without.credential
                }
                (Login::Helper { .. }, Login::Helper { .. }) | (Login::None, Login::None) => false,
                _ => true,
            }
        })
    }

    /// The login for an image at a place that is spoken to over TLS or not, where that is known.
    pub(crate) fn find_at(
        &self,
        image: &Reference,
        tls: Option<bool>,
    ) -> anyhow::Result<Option<Candidate>> {
        for file in &self.files {
            let origin = Origin::AuthFile(file.path.clone());
            match file.logins.find_at(image, tls, &file.path) {
                Login::Stored(candidate) => return Ok(Some(candidate)),
                Login::None => {}
                Login::Helper { helper, server } => {
                    match helper::get(&helper, &server, HELPER) {
                        Ok(credential) => return Ok(Some(Candidate { credential, origin })),
                        // A helper that knows no login for this registry is as a file without one: the image may be public.
                        Err(HelperError::NotFound { .. }) => {}
                        Err(error) => self.helper_failed(error, &file.path, &server)?,
                    }
                }
            }
        }
        Ok(None)
    }

    fn helper_failed(&self, error: HelperError, file: &Path, server: &str) -> anyhow::Result<()> {
        let error = anyhow::Error::new(error).context(format!(
            "ask the credential helper that {} names for {server}",
            file.display()
        ));
        if self.named {
            return Err(error);
        }
        output::note(format!("{error:#}; no login is used"));
        Ok(())
    }

    /// Logins of mirrors from the same files. A helper is asked once for each place.
    pub(crate) fn of_mirrors(self) -> MirrorLogins {
        if self.files.is_empty() {
            return MirrorLogins::default();
        }
        let known: Arc<Mutex<HashMap<String, Option<Credential>>>> = Arc::default();
        MirrorLogins::new(move |place: &MirrorPlace| {
            let key = format!(
                "{} {}/{}",
                place.tls,
                place.image.registry(),
                place.image.repository()
            );
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            let found = known.entry(key).or_insert_with(|| {
                match in_place(|| self.find_at(&place.image, Some(place.tls))) {
                    Ok(found) => found.map(|candidate| candidate.credential),
                    Err(error) => {
                        output::note(format!("{error:#}; the mirror gets no login"));
                        None
                    }
                }
            });
            found.clone()
        })
    }
}

/// Runs what may take a while, as a helper does, so that other tasks go on meanwhile.
fn in_place<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let shared = Handle::try_current()
        .is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if shared {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

/// Where login files are looked for, in this order. An environment variable that names one leaves no other.
fn usual(env: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    if let Some(named) = env("REGISTRY_AUTH_FILE") {
        return vec![named.into()];
    }
    let home = env("HOME").map(PathBuf::from);
    let session = env("XDG_RUNTIME_DIR")
        .map(|dir| PathBuf::from(dir).join("containers"))
        .or_else(|| Some(PathBuf::from(format!("/run/containers/{}", user()?))));
    let config = env("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| home.as_ref().map(|home| home.join(".config")));
    let docker = env("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| home.map(|home| home.join(".docker")));
    let mut places = Vec::new();
    places.extend(session.map(|dir| dir.join("auth.json")));
    places.extend(config.map(|dir| dir.join("containers/auth.json")));
    places.extend(docker.map(|dir| dir.join("config.json")));
    places
}

/// This process's user, where the system tells it without a system call.
fn user() -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    Some(std::fs::metadata("/proc/self").ok()?.uid())
}

/// Reads one file; `None` where there is none.
fn read(path: &Path) -> anyhow::Result<Option<File>> {
    let during = || format!("read the login file {}", path.display());
    let bytes = match std::fs::File::open(path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            let most = MAX_FILE as u64 + 1;
            std::io::Read::read_to_end(&mut std::io::Read::take(file, most), &mut bytes)
                .with_context(during)?;
            bytes
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(during),
    };
    let logins = towline_keyring::Logins::parse(&bytes).with_context(during)?;
    Ok(Some(File {
        path: path.to_owned(),
        logins,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(set: &[(&str, &str)]) -> Vec<String> {
        let env = |name: &str| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        usual(&env)
            .into_iter()
            .map(|path| path.display().to_string())
            .collect()
    }

    #[test]
    fn files_are_looked_for_where_podman_and_docker_leave_them() {
        assert_eq!(
            places(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r")]),
            [
                "/r/containers/auth.json",
                "/h/.config/containers/auth.json",
                "/h/.docker/config.json"
            ]
        );
        assert_eq!(
            places(&[
                ("HOME", "/h"),
                ("XDG_RUNTIME_DIR", "/r"),
                ("XDG_CONFIG_HOME", "/c"),
                ("DOCKER_CONFIG", "/d")
            ]),
            [
                "/r/containers/auth.json",
                "/c/containers/auth.json",
                "/d/config.json"
            ]
        );
        assert_eq!(
            places(&[("HOME", "/h"), ("REGISTRY_AUTH_FILE", "/a.json")]),
            ["/a.json"]
        );
        assert_eq!(places(&[]).len(), 1);
    }

    #[test]
    fn the_first_file_with_a_login_counts_and_a_mirrors_is_bound_to_its_place() {
        let folder = std::env::temp_dir().join(format!("towline-logins-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            read(&path).unwrap().unwrap()
        };
        let logins = Logins {
            files: vec![
                file(
                    "a",
                    r#"{"auths":{"r.io/team":{"username":"team","password":"p"}}}"#,
                ),
                file(
                    "b",
                    r#"{"auths":{"r.io":{"username":"host","password":"p"},"https://m.io:5000":{"username":"mirror","password":"p"}}}"#,
                ),
            ],
            named: false,
        };
        let find = |image: &str, tls| {
            let image = Reference::parse(image).unwrap();
            let found = logins.find_at(&image, tls).unwrap();
            found.map_or_else(|| "nobody".to_owned(), |found| found.credential.to_string())
        };
        for (image, tls, want) in [
            ("r.io/team/x", None, "user team"),
            ("r.io/x", None, "user host"),
            ("m.io:5000/x", Some(true), "user mirror"),
            ("m.io:5000/x", Some(false), "nobody"),
            ("m.io/x", Some(true), "nobody"),
            ("m.io:5001/x", Some(true), "nobody"),
            ("nginx", None, "nobody"),
        ] {
            assert_eq!(find(image, tls), want, "{image} {tls:?}");
        }
        assert!(read(&folder.join("none")).unwrap().is_none());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
