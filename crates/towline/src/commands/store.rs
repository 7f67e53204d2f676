//! The image store of a data directory: asked through whoever owns it, a node or a pull, else opened.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use towline_distribution::Client;
use towline_images::{Images, Options};
use towline_node::Facts;
use towline_oci::Platform;
use towline_runtime::control::{self, Answer, ControlError, Question};
use towline_sys::task;

use crate::exit::hinted;
use crate::output;

/// Whoever waits longer than this for another process is told so.
const SOON: Duration = Duration::from_secs(1);
/// How often it is looked whether the other process is done.
const LOOK: Duration = Duration::from_millis(100);
/// The longest path of a socket.
const LONGEST_SOCKET: usize = 107;

/// Which images, and what if another process is at them.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StoreArgs {
    /// Where images are kept [default: /var/lib/towline; for who is not root `towline` below `$XDG_DATA_HOME` or ~/.local/share]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How long to wait while another process is at the data directory; 0 fails at once [default: as long as it takes]
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
}

/// Who owns the images of a data directory and does what is asked of it over its sockets.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    /// `the node NAME`, or `the runtime at SOCKET`.
    pub(crate) name: String,
    /// Its CRI socket.
    pub(crate) cri: PathBuf,
}

impl Owner {
    /// Asks it about its images.
    pub(crate) async fn ask(&self, question: &Question) -> Result<Answer, ControlError> {
        control::ask(&control::socket_beside(&self.cri), question).await
    }
}

/// What images are told, with layers unpacked by this program's own helper.
fn options(root: PathBuf, client: Client, platform: Platform) -> Options {
    Options::new(root, client, platform, super::unpack::here())
}

impl StoreArgs {
    /// The data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        let env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let usual = || default_data_dir(towline_node::is_root(), env);
        self.data_dir.clone().unwrap_or_else(usual)
    }

    fn root(&self) -> PathBuf {
        self.data_dir().join("runtime")
    }

    /// Where a pull that owns the store answers questions.
    fn socket(&self) -> Option<PathBuf> {
        let path = std::path::absolute(self.root().join("pull.img")).ok()?;
        (path.as_os_str().len() <= LONGEST_SOCKET).then_some(path)
    }

    /// The node or the runtime alone that runs on the data directory. What one that was killed has left there counts for nothing.
    pub(crate) async fn owner(&self) -> Option<Owner> {
        let node = Facts::read(&self.data_dir()).map(|facts| Owner {
            name: format!("the node {}", facts.node),
            cri: facts.cri,
        });
        let runtime = control::socket_of(&self.root()).map(|cri| Owner {
            name: format!("the runtime at {}", cri.display()),
            cri,
        });
        for owner in node.into_iter().chain(runtime) {
            match tokio::net::UnixStream::connect(&owner.cri).await {
                Err(error) if is_gone(error.kind()) => {}
                // Somebody else's, who may not be asked, is one all the same.
                _ => return Some(owner),
            }
        }
        None
    }

    /// Opens the images of a data directory on which no node or runtime runs, once no other process is at them; [`Started`] where one owns them by then.
    pub(crate) async fn open(
        &self,
        client: Client,
        platform: Platform,
        change: impl FnOnce(&mut Options),
    ) -> anyhow::Result<Images> {
        let root = self.root();
        let during = || format!("make {}", root.display());
        towline_sys::fs::create_dir_all_mode(&root, 0o755).map_err(|error| {
            self.unusable(
                error.source.kind(),
                anyhow::Error::new(error).context(during()),
            )
        })?;
        let mut options = options(root.join("images"), client, platform);
        change(&mut options);
        let mut waiting = Waiting::new(self);
        loop {
            let failure = match Images::open(options.clone()) {
                Ok(images) => return Ok(images),
                Err(failure) => failure,
            };
            match towline_images::in_use_by(&failure) {
                Some(holder) => waiting.look_again(holder).await?,
                None => return Err(self.cannot_open(failure)),
            }
        }
    }

    /// As [`StoreArgs::open`], for who only looks: where there is no store, none is made, and there are no images.
    pub(crate) async fn open_to_look(
        &self,
        client: Client,
        platform: Platform,
        change: impl FnOnce(&mut Options),
    ) -> anyhow::Result<(Images, Option<TempDir>)> {
        if self.root().join("images").exists() {
            return Ok((self.open(client, platform, change).await?, None));
        }
        let empty = tempfile::tempdir().context("make a folder for what is looked at")?;
        let images = Images::open(options(empty.path().join("images"), client, platform))
            .map_err(|failure| self.cannot_open(failure))?;
        Ok((images, Some(empty)))
    }

    /// A folder that was named and has no store is most often another one than was meant.
    fn refuse_where_none_is(&self) -> anyhow::Result<()> {
        let Some(named) = &self.data_dir else {
            return Ok(());
        };
        Err(hinted(
            format!("there is no image store at {}", named.display()),
            "--data-dir names where one is; `towline pull` and `towline up` make one",
        ))
    }

    /// Answers what other commands ask of these images, until the answer is dropped.
    pub(crate) fn answer_others(&self, images: &Images) -> Answering {
        let Some(socket) = self.socket() else {
            return Answering(None);
        };
        let images = images.clone();
        Answering(Some(task::spawn("questions", async move {
            // Where there cannot be a socket, the others wait.
            control::offer(images, socket).await.ok();
        })))
    }

    fn cannot_open(&self, failure: towline_cause::Failure) -> anyhow::Error {
        use towline_cause::Cause;
        let kind = match failure.cause() {
            Cause::FilesystemReadOnly => std::io::ErrorKind::ReadOnlyFilesystem,
            _ if failure.chain().contains("ermission denied") => {
                std::io::ErrorKind::PermissionDenied
            }
            _ => std::io::ErrorKind::Other,
        };
        let data_dir = self.data_dir();
        let during = format!("open the images of {}", data_dir.display());
        self.unusable(kind, anyhow::Error::new(failure).context(during))
    }

    /// Adds what helps against a directory that cannot be used.
    fn unusable(&self, kind: std::io::ErrorKind, error: anyhow::Error) -> anyhow::Error {
        let hint = match kind {
            std::io::ErrorKind::PermissionDenied if self.data_dir.is_none() => {
                "name a folder that this user may write with --data-dir"
            }
            std::io::ErrorKind::PermissionDenied => {
                "this user may not write there: name another folder with --data-dir, or run it as root"
            }
            std::io::ErrorKind::ReadOnlyFilesystem => {
                "nothing can be written there: name a folder on another file system with --data-dir"
            }
            std::io::ErrorKind::NotADirectory | std::io::ErrorKind::AlreadyExists => {
                "there is a file in the way: name another folder with --data-dir"
            }
            _ => return error,
        };
        let words = format!("{error:#}");
        hinted(words, hint)
    }
}

/// Where images are kept by default.
fn default_data_dir(is_root: bool, env: impl Fn(&str) -> Option<std::ffi::OsString>) -> PathBuf {
    let named = |name: &str| {
        env(name)
            .filter(|value| Path::new(value).is_absolute())
            .map(PathBuf::from)
    };
    if is_root {
        return PathBuf::from(crate::cli::DEFAULT_DATA_DIR);
    }
    let home = || named("HOME").map(|home| home.join(".local/share"));
    let base = named("XDG_DATA_HOME").or_else(home);
    base.map_or_else(
        || PathBuf::from(crate::cli::DEFAULT_DATA_DIR),
        |base| base.join("towline"),
    )
}

/// Questions of other commands are answered as long as this lives.
pub(crate) struct Answering(Option<JoinHandle<()>>);

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// A node or a runtime owns the images now, so that it is to be asked instead of waited for.
#[derive(Debug, thiserror::Error)]
#[error("{0} was started on {place} meanwhile", place = .1.display())]
pub(crate) struct Started(String, PathBuf);

/// The wait for another process.
struct Waiting<'a> {
    store: &'a StoreArgs,
    begun: Instant,
    told: bool,
}

impl<'a> Waiting<'a> {
    fn new(store: &'a StoreArgs) -> Self {
        Self {
            store,
            begun: Instant::now(),
            told: false,
        }
    }

    /// Waits a moment; says on whom, once; fails when it took as long as it may.
    async fn look_again(&mut self, holder: &str) -> anyhow::Result<()> {
        let place = self.store.data_dir();
        let waited = self.begun.elapsed();
        if let Some(owner) = self.store.owner().await {
            return Err(Started(owner.name, place).into());
        }
        if self.store.wait.is_some_and(|most| waited.as_secs() >= most) {
            return Err(hinted(
                format!("the images of {} are in use by {holder}", place.display()),
                "let it end, wait for it with a larger --wait or none, or use another --data-dir",
            ));
        }
        if waited >= SOON && !self.told {
            self.told = true;
            output::note(format!(
                "waits for {holder}, which is at the images of {}",
                place.display()
            ));
        }
        tokio::time::sleep(LOOK).await;
        Ok(())
    }
}

/// Asks the store. The answer is of the kind that the question asks for.
pub(crate) async fn ask(store: &StoreArgs, question: Question) -> anyhow::Result<Answer> {
    // Nothing is asked of a registry through it.
    let client = Client::new(towline_distribution::Options::default())?;
    let mut waiting = Waiting::new(store);
    loop {
        if let Some(owner) = store.owner().await {
            let answer = owner.ask(&question).await;
            return answer.with_context(|| format!("ask {}", owner.name));
        }
        let client = client.clone();
        let root = store.root().join("images");
        if !Images::are_at(&root) {
            store.refuse_where_none_is()?;
            let looking = store.open_to_look(client, Platform::host(), |_| {});
            let (images, _empty) = match looking.await {
                Err(error) if error.is::<Started>() => continue,
                looking => looking?,
            };
            return Ok(control::answer(&images, question).await?);
        }
        let failure = match Images::open(options(root, client, Platform::host())) {
            Ok(images) => {
                let answer = control::answer(&images, question).await;
                let during = || format!("look into the images of {}", store.data_dir().display());
                return answer.with_context(during);
            }
            Err(failure) => failure,
        };
        let Some(holder) = towline_images::in_use_by(&failure) else {
            return Err(store.cannot_open(failure));
        };
        if let Some(socket) = store.socket() {
            match control::ask(&socket, &question).await {
                Ok(answer) => return Ok(answer),
                Err(error @ ControlError::Store { .. }) => return Err(error.into()),
                // It does not listen, or has ended meanwhile.
                Err(_) => {}
            }
        }
        match waiting.look_again(holder).await {
            Err(error) if error.is::<Started>() => {}
            looked => looked?,
        }
    }
}

/// Whether nobody listens at a socket any more.
fn is_gone(kind: std::io::ErrorKind) -> bool {
    matches!(
        kind,
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
    )
}

/// What is said where a node of another version answers something else.
pub(crate) fn unexpected() -> anyhow::Error {
    anyhow::anyhow!("the node answers something else than was asked: it is of another version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_place_that_may_be_written() {
        for (is_root, set, want) in [
            (true, &[("HOME", "/h")][..], "/var/lib/towline"),
            (false, &[("HOME", "/h")][..], "/h/.local/share/towline"),
            (
                false,
                &[("HOME", "/h"), ("XDG_DATA_HOME", "/d")][..],
                "/d/towline",
            ),
            (
                false,
                &[("HOME", "/h"), ("XDG_DATA_HOME", "d")][..],
                "/h/.local/share/towline",
            ),
            (false, &[][..], "/var/lib/towline"),
        ] {
            let env = |name: &str| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| value.into())
            };
            assert_eq!(default_data_dir(is_root, env), Path::new(want));
        }
    }
}
