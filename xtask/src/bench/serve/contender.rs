//! The registries that are compared: started on an empty directory, filled with the same things.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use aws_lc_rs::digest::SHA256;

use super::client::{Answer, Client};
use crate::bench::process::Daemon;
use crate::bench::registry::free_address;

/// The repository that everything is in.
pub(super) const REPOSITORY: &str = "bench/one";
/// The repository with many tags.
pub(super) const TAGGED: &str = "bench/tags";
/// Connections that set tags at once.
pub(super) const TAGGERS: usize = 16;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Towline,
    DockerRegistry,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Towline, Self::DockerRegistry];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Towline => "towline",
            Self::DockerRegistry => "docker-registry",
        }
    }
}

/// One that runs.
pub(super) struct Running {
    pub(super) kind: Kind,
    pub(super) address: SocketAddr,
    pub(super) daemon: Daemon,
}

impl Running {
    pub(super) fn start(kind: Kind, towline: &Path, work: &Path) -> anyhow::Result<Self> {
        let root = fresh(work, kind.name())?;
        let address = free_address()?;
        let mut command = match kind {
            Kind::Towline => {
                let mut command = Command::new(towline);
                command.args(["registry", "--listen", &address.to_string(), "--root"]);
                command.arg(&root);
                command
            }
            Kind::DockerRegistry => {
                let config = work.join("docker-registry.json");
                let text = serde_json::json!({
                    "version": "0.1",
                    "log": {"level": "error", "accesslog": {"disabled": true}},
                    "storage": {"filesystem": {"rootdirectory": root}, "delete": {"enabled": true}},
                    "http": {"addr": address.to_string()},
                });
                std::fs::write(&config, text.to_string())?;
                let mut command = Command::new("docker-registry");
                command.arg("serve").arg(config);
                command
            }
        };
        let log = work.join(format!("{}.log", kind.name()));
        let mut daemon = Daemon::start(&mut command, &log)?;
        daemon
            .until(|| TcpStream::connect(address).is_ok())
            .with_context(|| format!("start {}", kind.name()))?;
        Ok(Self {
            kind,
            address,
            daemon,
        })
    }

    pub(super) fn client(&self) -> anyhow::Result<Client> {
        Client::connect(self.address)
    }

    /// Pushes an image whose layer is this, and the tags; the manifest's path and the layer's.
    pub(super) fn fill(&self, layer: &[u8], tags: usize) -> anyhow::Result<()> {
        let mut client = self.client()?;
        let config =
            br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        for repository in [REPOSITORY, TAGGED] {
            push(&mut client, repository, config, None)?;
        }
        push(&mut client, REPOSITORY, layer, None)?;
        let described = |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
        let config = described("application/vnd.oci.image.config.v1+json", config);
        let manifest = |layers: &[serde_json::Value]| {
            serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers})
                .to_string()
        };
        let layer = described("application/vnd.oci.image.layer.v1.tar", layer);
        tag(&mut client, REPOSITORY, "v1", manifest(&[layer]).as_bytes())?;
        let empty = manifest(&[]);
        let part = |first: usize| -> anyhow::Result<()> {
            let mut client = self.client()?;
            for number in (first..tags).step_by(TAGGERS) {
                tag(
                    &mut client,
                    TAGGED,
                    &format!("v{number:05}"),
                    empty.as_bytes(),
                )?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..TAGGERS)
                .map(|at| scope.spawn(move || part(at)))
                .collect();
            all.into_iter().try_for_each(|one| {
                let ended = one.join();
                ended.unwrap_or_else(|_| bail!("a thread that sets tags ended"))
            })
        })
    }
}

fn fresh(work: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let root = work.join(name);
    match std::fs::remove_dir_all(&root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    std::fs::create_dir_all(&root).with_context(|| format!("make {}", root.display()))?;
    Ok(root)
}

/// The digest of bytes.
pub(super) fn digest(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in aws_lc_rs::digest::digest(&SHA256, bytes).as_ref() {
        // Writing to a String does not fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

fn tag(client: &mut Client, repository: &str, tag: &str, manifest: &[u8]) -> anyhow::Result<()> {
    let path = format!("/v2/{repository}/manifests/{tag}");
    let answer = client.send("PUT", &path, &[("Content-Type", MANIFEST)], manifest, true)?;
    expect(&answer, 201)
}

/// Pushes a blob in one piece, or in chunks of so many bytes.
pub(super) fn push(
    client: &mut Client,
    repository: &str,
    bytes: &[u8],
    chunk: Option<usize>,
) -> anyhow::Result<()> {
    let path = format!("/v2/{repository}/blobs/uploads/");
    let answer = client.send("POST", &path, &[], &[], true)?;
    expect(&answer, 202)?;
    let mut place = location(&answer)?;
    let mut rest = bytes;
    if let Some(chunk) = chunk {
        let mut at = 0;
        for piece in bytes.chunks(chunk) {
            let range = format!("{at}-{}", at + piece.len() - 1);
            let headers = [
                ("Content-Type", "application/octet-stream"),
                ("Content-Range", range.as_str()),
            ];
            let answer = client.send("PATCH", &place, &headers, piece, true)?;
            expect(&answer, 202)?;
            place = location(&answer)?;
            at += piece.len();
        }
        rest = &[];
    }
    let mark = if place.contains('?') { '&' } else { '?' };
    let path = format!("{place}{mark}digest={}", digest(bytes));
    let headers = [("Content-Type", "application/octet-stream")];
    expect(&client.send("PUT", &path, &headers, rest, true)?, 201)
}

fn location(answer: &Answer) -> anyhow::Result<String> {
    let place = answer.header("location").context("no Location")?;
    // docker-registry names itself, too.
    let path = place.split_once("://").map_or(Some(place), |(_, rest)| {
        rest.find('/').map(|at| &rest[at..])
    });
    Ok(path.context("a Location without a path")?.to_owned())
}

fn expect(answer: &Answer, status: u16) -> anyhow::Result<()> {
    if answer.status != status {
        let said = String::from_utf8_lossy(&answer.body);
        bail!("answered with {}, not {status}: {said}", answer.status);
    }
    Ok(())
}
