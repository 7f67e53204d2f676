//! The image store as people look after it: lists, sizes, removal, verification. The same answers whether this process owns the store or
//! asks the runtime that does, over a socket beside its CRI socket that root and the runtime's own user may use.
//!
//! One connection is one question, a line of JSON, and one answer, a line of JSON.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use towline_cause::{Cause, Failure, Step};
use towline_images::{Damage, Image, Images, Plan, Progress, PullRequest, Verified};
use towline_keyring::{Credential, Secret};
use towline_oci::{Digest, ImageConfig, Reference};
use towline_sys::fs::{self, At as _, FsError};

use crate::server::Socket;

/// The most bytes of a question.
const MOST_QUESTION: u64 = 1 << 20;
/// The most bytes of an answer: some ten thousand images.
const MOST_ANSWER: u64 = 64 << 20;
/// How long a question may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Question {
    /// Every image.
    Images,
    /// What the store takes on the disk.
    Usage,
    /// What these images are; by name, id, or the beginning of an id.
    Inspect(Vec<String>),
    /// Remove these images with all their names.
    Remove(Vec<String>),
    /// Remove what nothing uses, interrupted downloads too; with `true` also every image that no container holds and that is not pinned.
    Prune(bool),
    /// Compare everything with its digests and checksums.
    Verify,
    /// Put aside what is damaged, unless a container holds it, until it came again.
    SetAside(Vec<Damage>),
    /// Put back what was put aside and did not come again.
    Conclude,
    /// Unpack again what these images lack, from compressed layers that are kept; no registry is asked.
    Restore(Vec<String>),
    /// Keep no compressed layer any more.
    ForgetKept,
    /// How far the pulls are that run now.
    Running,
    /// What a pull of this image with this login would do.
    Plan(String, Option<Login>),
}

/// A login, for whoever pulls in the place of who asks.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Login {
    /// User and password.
    Basic(String, String),
    /// A refresh token.
    IdentityToken(String),
    /// A token that is sent as it is.
    RegistryToken(String),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Login {
    /// The login of a credential; `None` for nobody's.
    pub fn of(credential: &Credential) -> Option<Self> {
        Some(match credential {
            Credential::Basic { username, password } => {
                Self::Basic(username.clone(), password.expose().to_owned())
            }
            Credential::IdentityToken(token) => Self::IdentityToken(token.expose().to_owned()),
            Credential::RegistryToken(token) => Self::RegistryToken(token.expose().to_owned()),
            Credential::Anonymous => return None,
        })
    }
}

impl From<Login> for Credential {
    fn from(login: Login) -> Self {
        match login {
            Login::Basic(user, password) => Self::basic(user, Secret::new(password)),
            Login::IdentityToken(token) => Self::IdentityToken(Secret::new(token)),
            Login::RegistryToken(token) => Self::RegistryToken(Secret::new(token)),
        }
    }
}

/// What the store answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// Every image.
    Images(Vec<Listed>),
    /// One row for each kind of thing.
    Usage(Vec<Taken>),
    /// As asked for, in order; `None` where there is no such image.
    Inspected(Vec<Option<Inspected>>),
    /// As asked for, in order: whether there was such an image.
    Removed(Vec<bool>),
    /// What went.
    Pruned(Pruned),
    /// What is damaged.
    Verified {
        /// How many images there are.
        images: u64,
        /// What is wrong.
        damage: Vec<Damage>,
        /// How many lists, files and directories could not be compared.
        #[serde(default)]
        uncompared: u64,
    },
    /// As given, in order: whether it is put aside.
    SetAside(Vec<bool>),
    /// Digests of what was put back.
    Concluded(Vec<Digest>),
    /// As asked for, in order: whether the image lacks nothing any more.
    Restored(Vec<bool>),
    /// Canonical names, and how far each is.
    Running(Vec<(String, Progress)>),
    /// What a pull would do.
    Plan(Plan),
}

/// An image in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Digest of its config.
    pub id: String,
    /// Names with tags.
    pub tags: Vec<String>,
    /// Names with digests.
    pub digests: Vec<String>,
    /// Bytes as the registry stores them.
    pub size: u64,
    /// Bytes of its compressed layers that are kept.
    #[serde(default)]
    pub kept: u64,
}

/// What one kind of thing takes on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// The kind.
    pub what: String,
    /// How many.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
}

/// An image with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspected {
    /// Digest of its config.
    pub id: String,
    /// Names with tags.
    pub tags: Vec<String>,
    /// Names with digests.
    pub digests: Vec<String>,
    /// Digest of the manifest that was unpacked.
    pub manifest: String,
    /// Bytes as the registry stores them.
    pub size: u64,
    /// Bytes of the unpacked layers.
    pub unpacked_size: u64,
    /// Never removed by itself.
    pub pinned: bool,
    /// Digests of the unpacked layers, lowest first.
    pub layers: Vec<String>,
    /// Digests of the compressed layers that are kept.
    #[serde(default)]
    pub blobs: Vec<String>,
    /// Their directories, the top one first.
    pub directories: Vec<PathBuf>,
    /// How it starts.
    pub config: ImageConfig,
}

/// What a removal of unused things came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pruned {
    /// Images.
    pub images: u64,
    /// Layers besides those of the images.
    pub layers: u64,
    /// Blobs besides those of the images: manifests, configs, compressed layers that were kept.
    pub blobs: u64,
    /// Interrupted downloads.
    #[serde(default)]
    pub downloads: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The runtime cannot be reached.
    #[error("ask the node at {}", path.display())]
    Connect {
        /// Its socket.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// What came is not an answer to this.
    #[error("the node does not answer this: it may be of another version")]
    Answer,
    /// The store refused.
    #[error("{words} ({cause})")]
    Store {
        /// What it says.
        words: String,
        /// Its cause.
        cause: Cause,
        /// Where it failed, as far as that was told.
        step: Option<Step>,
    },
}

impl From<Failure> for ControlError {
    fn from(failure: Failure) -> Self {
        Self::Store {
            words: failure.chain(),
            cause: failure.cause(),
            step: Some(failure.step()),
        }
    }
}

/// An answer as it goes over the socket.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Reply {
    Answer(Answer),
    Refused {
        words: String,
        cause: Cause,
        #[serde(default)]
        step: Option<Step>,
    },
}

/// The socket for questions beside a runtime's CRI socket: `cri.img` beside `cri.sock`, so that it is never too long where that one is not.
pub fn socket_beside(cri: &Path) -> PathBuf {
    cri.with_extension("img")
}

/// The file in a runtime's directory that names its CRI socket, so that who finds its store in use can ask it: which socket it is, and its
/// path.
const PLACE: &str = "owner";
const MOST_PLACE: u64 = 8192;

/// The CRI socket of the runtime that keeps its images below `root`. Where that one was killed, another one's socket may have its path by
/// now: that is none of this directory.
pub fn socket_of(root: &Path) -> Option<PathBuf> {
    let text = fs::read_bounded(root.join(PLACE), MOST_PLACE).ok()?;
    let mut parts = text.splitn(2, |byte| *byte == b' ');
    let (said, path) = (parts.next()?, parts.next()?);
    let socket = PathBuf::from(OsStr::from_bytes(path));
    match identity(&socket) {
        Ok(own) => (own.as_bytes() == said).then_some(socket),
        // Somebody else's, who may not be asked.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Some(socket),
        Err(_) => None,
    }
}

/// Which socket it is, whatever its path. A file system gives the number of one that is gone to the next: the time tells them apart, which
/// nothing changes after the socket was made.
fn identity(socket: &Path) -> io::Result<String> {
    let meta = std::fs::metadata(socket)?;
    let (number, time) = ((meta.dev(), meta.ino()), (meta.mtime(), meta.mtime_nsec()));
    Ok(format!(
        "{}:{}:{}.{:09}",
        number.0, number.1, time.0, time.1
    ))
}

/// Says where the runtime of a directory is asked, until dropped.
#[derive(Debug)]
pub(crate) struct Place(PathBuf);

impl Place {
    /// Whoever marks it owns the directory's store, and listens at the socket.
    pub(crate) fn mark(root: &Path, socket: &Path) -> Result<Self, FsError> {
        let place = root.join(PLACE);
        let socket = std::path::absolute(socket).at("make absolute", socket)?;
        let mut text = identity(&socket).at("look at", &socket)?.into_bytes();
        text.push(b' ');
        text.extend(socket.as_os_str().as_bytes());
        fs::write_atomic_mode(&place, &text, 0o644)?;
        Ok(Self(place))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // One that stays leads to nobody.
        fs::remove_file(&self.0).ok();
    }
}

/// Asks the runtime that owns the store.
pub async fn ask(socket: &Path, question: &Question) -> Result<Answer, ControlError> {
    let connect = |source| ControlError::Connect {
        path: socket.to_owned(),
        source,
    };
    let mut stream = UnixStream::connect(socket).await.map_err(connect)?;
    send(&mut stream, question).await.map_err(connect)?;
    match receive(&mut stream, MOST_ANSWER).await.map_err(connect)? {
        Some(Reply::Answer(answer)) => Ok(answer),
        Some(Reply::Refused { words, cause, step }) => {
            Err(ControlError::Store { words, cause, step })
        }
        None => Err(ControlError::Answer),
    }
}

/// Questions that are answered at the same time.
pub(crate) const ASKED_AT_ONCE: usize = 8;

/// Answers for a store that this process owns, at this socket, until dropped; root and this process's user may ask.
pub async fn offer(images: Images, socket: PathBuf) -> Result<(), FsError> {
    let connections = Socket::bind(&socket).await?.connections();
    connections
        .for_each_concurrent(ASKED_AT_ONCE, |stream| async {
            let answered = match stream {
                Ok(stream) => serve(stream, &images).await,
                Err(error) => Err(error),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "a question about images was not answered");
            }
        })
        .await;
    Ok(())
}

/// Answers one connection.
pub(crate) async fn serve(mut stream: UnixStream, images: &Images) -> io::Result<()> {
    let question = tokio::time::timeout(PATIENCE, receive(&mut stream, MOST_QUESTION)).await??;
    // Whoever asks what this version does not know gets no answer, and says so.
    let Some(question) = question else {
        return Ok(());
    };
    let reply = match answer(images, question).await {
        Ok(answer) => Reply::Answer(answer),
        Err(failure) => Reply::Refused {
            words: failure.chain(),
            cause: failure.cause(),
            step: Some(failure.step()),
        },
    };
    send(&mut stream, &reply).await
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&serde_json::to_vec(message)?).await?;
    stream.shutdown().await
}

/// Reads to the end; `None` for what is too long or not understood.
async fn receive<T: serde::de::DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    most: u64,
) -> io::Result<Option<T>> {
    let mut bytes = Vec::new();
    let read = stream.take(most + 1).read_to_end(&mut bytes).await?;
    if read as u64 > most {
        return Ok(None);
    }
    Ok(serde_json::from_slice(&bytes).ok())
}

/// Answers for a store that this process owns.
pub async fn answer(images: &Images, question: Question) -> Result<Answer, Failure> {
    Ok(match question {
        Question::Images => Answer::Images(images.list().into_iter().map(listed).collect()),
        Question::Usage => Answer::Usage(usage(images).await?),
        Question::Inspect(names) => Answer::Inspected(
            names
                .iter()
                .map(|name| images.get(name).map(|image| inspected(images, image)))
                .collect(),
        ),
        Question::Remove(names) => {
            let mut removed = Vec::new();
            for name in &names {
                removed.push(images.remove(name).await?);
            }
            Answer::Removed(removed)
        }
        Question::Prune(all) => Answer::Pruned(prune(images, all).await?),
        Question::Verify => {
            let Verified { damage, uncompared } = images.compare().await?;
            let images = images.list().len() as u64;
            Answer::Verified {
                images,
                damage,
                uncompared,
            }
        }
        Question::SetAside(damage) => {
            let mut gone = Vec::new();
            for each in &damage {
                gone.push(images.set_aside(each).await?);
            }
            Answer::SetAside(gone)
        }
        Question::Conclude => Answer::Concluded(images.conclude().await?),
        Question::Restore(names) => {
            let mut restored = Vec::new();
            for name in &names {
                restored.push(images.restore(name).await?);
            }
            Answer::Restored(restored)
        }
        Question::ForgetKept => {
            let collected = images.forget_kept().await?;
            Answer::Pruned(Pruned {
                blobs: collected.blobs,
                bytes: collected.bytes,
                ..Pruned::default()
            })
        }
        Question::Running => Answer::Running(images.running()),
        Question::Plan(image, login) => Answer::Plan(plan(images, &image, login).await?),
    })
}

async fn plan(images: &Images, image: &str, login: Option<Login>) -> Result<Plan, Failure> {
    let reference = Reference::parse(image).map_err(|error| {
        Failure::new(Cause::InvalidReference, Step::Reference, error.to_string())
    })?;
    let credential = login.map_or(Credential::Anonymous, Into::into);
    images.plan(PullRequest::new(reference, credential)).await
}

/// Where an image can be had by digest. The one that its name led to belongs to the last image that was pulled so.
fn digests(image: &Image) -> Vec<String> {
    if image.repo_digests.is_empty() {
        image.sources.clone()
    } else {
        image.repo_digests.clone()
    }
}

fn listed(image: Image) -> Listed {
    Listed {
        id: image.id.to_string(),
        digests: digests(&image),
        tags: image.repo_tags,
        size: image.size,
        kept: image.kept.1,
    }
}

fn inspected(images: &Images, image: Image) -> Inspected {
    Inspected {
        id: image.id.to_string(),
        manifest: image.manifest.to_string(),
        size: image.size,
        unpacked_size: image.unpacked_size,
        pinned: image.pinned,
        layers: image.diff_ids.iter().map(ToString::to_string).collect(),
        blobs: image.kept.0.iter().map(ToString::to_string).collect(),
        directories: images.lower_dirs(&image),
        digests: digests(&image),
        tags: image.repo_tags,
        config: image.config,
    }
}

fn unused(images: &Images) -> Vec<Image> {
    let held: Vec<_> = images.holds().into_iter().map(|(_, id)| id).collect();
    let mut list = images.list();
    list.retain(|image| !image.pinned && !held.contains(&image.id));
    list
}

async fn usage(images: &Images) -> Result<Vec<Taken>, Failure> {
    let usage = images.usage().await?;
    let row = |what: &str, count, bytes| Taken {
        what: what.to_owned(),
        count,
        bytes,
    };
    let of = |what: &str, list: Vec<Image>| {
        let bytes = list.iter().map(|image| image.unpacked_size).sum();
        row(what, list.len() as u64, bytes)
    };
    Ok(vec![
        of("images", images.list()),
        of("images no container holds", unused(images)),
        row("layers", usage.layer_count, usage.layers),
        row("files, directories, links", usage.inodes, usage.layers),
        row("manifests and configs", usage.blob_count, usage.blobs),
        row("kept compressed layers", usage.kept_count, usage.kept),
        row("interrupted downloads", usage.spool_count, usage.spool),
    ])
}

async fn prune(images: &Images, all: bool) -> Result<Pruned, Failure> {
    let before = images.usage().await?.bytes();
    let mut pruned = Pruned::default();
    if all {
        for image in unused(images) {
            images.remove(&image.id.to_string()).await?;
            pruned.images += 1;
        }
    }
    let collected = images.prune().await?;
    pruned.layers = collected.layers;
    pruned.blobs = collected.blobs;
    pruned.downloads = collected.downloads;
    pruned.bytes = before.saturating_sub(images.usage().await?.bytes());
    Ok(pruned)
}
