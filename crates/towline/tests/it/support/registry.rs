//! The real docker-registry, open or with a login, and images pushed to it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use towline_lab::image::{self, Image};

use super::eventually;
use super::program::{Guard, free_port, part};

/// A docker-registry on loopback.
pub(crate) struct DockerRegistry {
    pub(crate) address: SocketAddr,
    pub(crate) folder: TempDir,
    _process: Guard,
}

/// The one user of a registry with a login.
pub(crate) const LOGIN: (&str, &str) = ("alice", "s3cret-of-alice");

impl DockerRegistry {
    pub(crate) fn open() -> Self {
        Self::start(false, false)
    }

    pub(crate) fn with_login() -> Self {
        Self::start(true, false)
    }

    /// With a certificate of an authority that nobody knows: `ca.pem` in its folder. Its images are those of another registry.
    pub(crate) fn with_tls(other: &Self) -> Self {
        let mut registry = Self::start(false, true);
        registry.copy_of(other);
        registry
    }

    /// Pushing speaks plain HTTP, so images are laid into this registry's storage as another received them.
    fn copy_of(&mut self, other: &Self) {
        let from = format!("{}/data", other.folder.path().display());
        let copied = Command::new("cp")
            .args(["-a", &from, &self.folder.path().display().to_string()])
            .status()
            .unwrap();
        assert!(copied.success());
    }

    pub(crate) fn ca(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }

    fn start(login: bool, tls: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let auth = if login {
            htpasswd(folder.path())
        } else {
            String::new()
        };
        let tls = if tls {
            certificate(folder.path())
        } else {
            String::new()
        };
        let config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\nstorage: {{filesystem: {{rootdirectory: {0}/data}}}}\nhttp: {{addr: {address}{tls}}}\n{auth}",
            folder.path().display()
        );
        std::fs::write(folder.path().join("config.yml"), config).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Guard::spawn(
            Command::new("docker-registry")
                .args(["serve", folder.path().join("config.yml").to_str().unwrap()])
                .stdout(log.try_clone().unwrap())
                .stderr(Stdio::from(log)),
        );
        eventually("docker-registry listens", 20, || {
            std::net::TcpStream::connect(address).map_err(|error| error.to_string())
        });
        Self {
            address,
            folder,
            _process: process,
        }
    }

    /// Pushes an image; with a login where the registry wants one (it ignores one otherwise).
    pub(crate) fn push(&self, image: &Image, repository: &str, tag: &str) {
        push(image, self.address, repository, tag, Some(LOGIN));
    }

    /// Lines of the access log that ask for this path.
    pub(crate) fn requests(&self, path: &str) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
        log.lines()
            .filter(|line| line.contains(path))
            .map(str::to_owned)
            .collect()
    }
}

fn certificate(folder: &Path) -> String {
    let ca = towline_lab::tls::Ca::new("an authority nobody knows");
    let leaf = ca.leaf(&["127.0.0.1"], towline_lab::tls::Flaw::None);
    for (name, pem) in [
        ("ca.pem", ca.pem()),
        ("cert.pem", leaf.certificate_pem),
        ("key.pem", leaf.key_pem),
    ] {
        std::fs::write(folder.join(name), pem).unwrap();
    }
    format!(
        ", tls: {{certificate: {0}/cert.pem, key: {0}/key.pem}}",
        folder.display()
    )
}

fn htpasswd(folder: &Path) -> String {
    let output = Command::new("htpasswd")
        .args(["-nbB", LOGIN.0, LOGIN.1])
        .output()
        .unwrap();
    std::fs::write(folder.join("htpasswd"), output.stdout).unwrap();
    format!(
        "auth: {{htpasswd: {{realm: test, path: {}/htpasswd}}}}\n",
        folder.display()
    )
}

/// A small image that prints a line and waits.
pub(crate) fn hello(text: &str) -> Image {
    image::guest().cmd(["hello", text]).build()
}

pub(crate) fn push(
    image: &Image,
    registry: SocketAddr,
    repository: &str,
    tag: &str,
    login: Option<(&str, &str)>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(image.push(registry, repository, tag, login))
        .unwrap();
}

/// `towline registry` alone.
pub(crate) struct OurRegistry {
    _process: Guard,
    pub(crate) address: SocketAddr,
    folder: TempDir,
}

impl OurRegistry {
    pub(crate) fn start() -> Self {
        Self::with(tempfile::tempdir().unwrap(), &[])
    }

    /// With a login, and `public/*` for anyone to pull.
    pub(crate) fn with_login() -> Self {
        let folder = tempfile::tempdir().unwrap();
        htpasswd(folder.path());
        let users = folder.path().join("htpasswd").display().to_string();
        Self::with(
            folder,
            &["--htpasswd", &users, "--anonymous-pull", "public/*"],
        )
    }

    /// With a token service and a login, and `public/*` for anyone to pull.
    pub(crate) fn with_tokens() -> Self {
        let folder = tempfile::tempdir().unwrap();
        htpasswd(folder.path());
        let config = folder.path().join("registry.yaml");
        let rules = "users: htpasswd\nlogin: token\nrules:\n\
            - {repositories: 'public/*', pull: anyone, push: users}\n\
            - {repositories: '*', pull: users, push: users}\n";
        std::fs::write(&config, rules).unwrap();
        let config = config.display().to_string();
        Self::with(folder, &["--config", &config])
    }

    fn with(folder: TempDir, options: &[&str]) -> Self {
        let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let root = folder.path().join("data");
        let listen = address.to_string();
        let mut args = vec!["--listen", &listen, "--root", root.to_str().unwrap()];
        args.extend(options);
        let process = part(folder.path(), "registry", &args);
        eventually("the registry listens", 20, || {
            std::net::TcpStream::connect(address).map_err(|error| error.to_string())
        });
        Self {
            _process: process,
            address,
            folder,
        }
    }

    /// Where it keeps everything.
    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}
