//! Five clients, one registry: what each pushes, all pull, and all of them name the same digest.
//!
//! `TOWLINE_TEST_IMAGES=DIR` takes every OCI layout below DIR, too: images as large as one likes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use towline_lab::image::{self, Builder, Compression, Dialect, Image, Index, Layer, Platform};
use towline_sys::testing::{need_program, need_root};

use crate::support::eventually;
use crate::support::program::{Guard, free_port, part, text, towline};
use crate::support::registry::push;

/// What no client needs here, and where it would write.
const CONTAINERD: &str = "version = 3\ndisabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.cri.v1.images', 'io.containerd.cri.v1.runtime', 'io.containerd.nri.v1.nri']\n\
    [plugins.'io.containerd.internal.v1.opt']\npath = 'OPT'\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Skopeo,
    Crane,
    Podman,
    Containerd,
    Towline,
}

const ALL: [Client; 5] = [
    Client::Skopeo,
    Client::Crane,
    Client::Podman,
    Client::Containerd,
    Client::Towline,
];

impl Client {
    /// The repository that this client pushes an image to.
    fn repository(self, image: &str) -> String {
        format!("by-{self:?}/{image}").to_lowercase()
    }
}

/// A registry, and the clients with a folder of their own.
struct Place {
    registry: SocketAddr,
    _containerd: Guard,
    _registry: Guard,
    folder: TempDir,
}

fn words(program: &str, output: &std::process::Output) -> String {
    format!("{program}: {}", text(output))
}

impl Place {
    /// Starts everything, if all of it is there. The registry mounts nothing, so that every push brings every byte.
    fn open() -> Option<Self> {
        let programs = ["skopeo", "crane", "podman", "containerd", "ctr"];
        if !need_root()
            || programs
                .iter()
                .any(|program| need_program(program).is_none())
        {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("registry.yaml"), "mount: never\n").unwrap();
        let registry: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let (listen, root, config) = (registry.to_string(), path("data"), path("registry.yaml"));
        let args = ["--listen", &listen, "--root", &root, "--config", &config];
        let serving = part(folder.path(), "registry", &args);
        let plain = format!("[[registry]]\nlocation = \"{registry}\"\ninsecure = true\n");
        std::fs::write(path("registries.conf"), plain).unwrap();
        let settings = CONTAINERD.replace("OPT", &path("opt"));
        std::fs::write(path("containerd.toml"), settings).unwrap();
        let log = std::fs::File::create(path("containerd.log")).unwrap();
        let mut command = Command::new("containerd");
        for (option, name) in [
            ("--config", "containerd.toml"),
            ("--root", "containerd"),
            ("--state", "state"),
            ("--address", "sock"),
        ] {
            command.args([option, &path(name)]);
        }
        let containerd = Guard::spawn(command.stdout(Stdio::null()).stderr(log));
        let place = Self {
            registry,
            _containerd: containerd,
            _registry: serving,
            folder,
        };
        eventually("the registry listens", 60, || {
            std::net::TcpStream::connect(registry).map_err(|error| error.to_string())
        });
        eventually("containerd is ready", 60, || {
            place.try_run("ctr", &["version"])
        });
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An image's name in this registry.
    fn name(&self, repository: &str) -> String {
        format!("{}/{repository}:v1", self.registry)
    }

    /// Runs a client with what it needs to keep to its folder; what it printed.
    fn try_run(&self, program: &str, args: &[&str]) -> Result<String, String> {
        let mut command = match program {
            "towline" => towline(),
            program => Command::new(program),
        };
        match program {
            "podman" => {
                command.arg("--root").arg(self.path("podman"));
                command.arg("--runroot").arg(self.path("podman-run"));
                command.args(["--storage-driver", "vfs"]);
                // podman 4.3 asks by TLS for what goes into a list, whatever --tls-verify says.
                command.env("CONTAINERS_REGISTRIES_CONF", self.path("registries.conf"));
            }
            "ctr" => {
                command.arg("--address").arg(self.path("sock"));
            }
            _ => {}
        }
        let output = command.args(args).stdin(Stdio::null()).output().unwrap();
        if !output.status.success() {
            return Err(format!("{args:?}: {}", words(program, &output)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        self.try_run(program, args)
            .unwrap_or_else(|words| panic!("{words}"))
    }

    /// A folder that is not there yet.
    fn fresh(&self, name: &str) -> String {
        let path = self.path(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).unwrap();
        }
        path.display().to_string()
    }

    /// The digest that the registry gives a name.
    fn digest(&self, name: &str) -> String {
        let seen = self.run("towline", &["registry", "inspect", "-o", "json", name]);
        let seen: Value = serde_json::from_str(&seen).unwrap();
        seen["digest"].as_str().unwrap().to_owned()
    }

    /// Lets a client push what is at one name to another one; the digest that it says it pushed.
    fn push(&self, client: Client, from: &str, to: &str, is_index: bool) -> String {
        match client {
            Client::Skopeo => {
                let (from, to) = (format!("docker://{from}"), format!("docker://{to}"));
                let file = self.path("skopeo.digest");
                let plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
                let how = ["copy", "-q", "--insecure-policy", "--all", "--digestfile"];
                let what = [file.to_str().unwrap(), &from, &to];
                self.run("skopeo", &[&how[..1], &plain, &how[1..], &what].concat());
                std::fs::read_to_string(file).unwrap()
            }
            Client::Crane => {
                self.run("crane", &["copy", "--insecure", from, to]);
                self.run("crane", &["digest", "--insecure", to])
            }
            Client::Podman => self.podman_push(from, to, is_index),
            Client::Containerd => {
                let fetch = ["content", "fetch", "--plain-http", "--all-platforms", from];
                self.run("ctr", &fetch);
                self.run("ctr", &["images", "push", "--plain-http", to, from]);
                self.listed(from)
            }
            Client::Towline => self.run("towline", &["registry", "copy", from, to]),
        }
    }

    /// podman packs layers anew and makes lists anew: what it pushes is its own, under the digest that it says.
    fn podman_push(&self, from: &str, to: &str, is_index: bool) -> String {
        let file = self.path("podman.digest").display().to_string();
        let plain = "--tls-verify=false";
        if is_index {
            let from = format!("docker://{from}");
            self.run(
                "podman",
                &["manifest", "create", "--all", plain, "list", &from],
            );
            let to = format!("docker://{to}");
            let how = ["manifest", "push", "--all", plain, "--digestfile", &file];
            self.run("podman", &[&how[..], &["list", &to]].concat());
            self.run("podman", &["manifest", "rm", "list"]);
        } else {
            self.run("podman", &["pull", "-q", plain, from]);
            self.run(
                "podman",
                &["push", "-q", plain, "--digestfile", &file, from, to],
            );
        }
        std::fs::read_to_string(file).unwrap()
    }

    /// The digest that containerd has under a name.
    fn listed(&self, name: &str) -> String {
        let listed = self.run("ctr", &["images", "ls", &format!("name=={name}")]);
        let line = listed.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name}: {listed}"));
        line.split_whitespace().nth(2).unwrap().to_owned()
    }

    /// Lets a client pull a name; the digests by which it knows what it got.
    fn pull(&self, client: Client, name: &str) -> Vec<String> {
        match client {
            Client::Skopeo => {
                let out = self.fresh("skopeo");
                let (from, to) = (format!("docker://{name}"), format!("dir:{out}"));
                let how = ["copy", "-q", "--insecure-policy", "--all"];
                let what = ["--src-tls-verify=false", &from, &to];
                self.run("skopeo", &[&how[..], &what].concat());
                let manifest = std::fs::read(Path::new(&out).join("manifest.json")).unwrap();
                vec![image::sha256(&manifest)]
            }
            Client::Crane => {
                let out = self.fresh("crane");
                self.run("crane", &["pull", "--insecure", "--format=oci", name, &out]);
                let index = std::fs::read(Path::new(&out).join("index.json")).unwrap();
                let index: Value = serde_json::from_slice(&index).unwrap();
                vec![index["manifests"][0]["digest"].as_str().unwrap().to_owned()]
            }
            Client::Podman => {
                self.run("podman", &["pull", "-q", "--tls-verify=false", name]);
                let how = [
                    "image",
                    "inspect",
                    "--format",
                    "{{json .RepoDigests}}",
                    name,
                ];
                let digests: Vec<String> = serde_json::from_str(&self.run("podman", &how)).unwrap();
                self.run("podman", &["rmi", "--force", name]);
                let digests = digests.into_iter();
                digests
                    .filter_map(|name| Some(name.split_once('@')?.1.to_owned()))
                    .collect()
            }
            Client::Containerd => {
                let fetch = ["content", "fetch", "--plain-http", "--all-platforms", name];
                self.run("ctr", &fetch);
                let digest = self.listed(name);
                self.run("ctr", &["images", "rm", "--sync", name]);
                vec![digest]
            }
            Client::Towline => {
                let out = self.fresh("towline");
                self.run("towline", &["pull", "--data-dir", &out, name]);
                let images = self.run("towline", &["images", "-o", "json", "--data-dir", &out]);
                let images: Value = serde_json::from_str(&images).unwrap();
                let digests = images[0]["digests"].as_array().unwrap().iter();
                let digests = digests.filter_map(|name| name.as_str()?.split_once('@'));
                digests.map(|(_, digest)| digest.to_owned()).collect()
            }
        }
    }

    /// Every client pushes what lies at `origin/IMAGE`, and every client pulls what each of them pushed.
    fn agree(&self, image: &str, digest: &str, is_index: bool) {
        let origin = self.name(&format!("origin/{image}"));
        assert_eq!(self.digest(&origin), digest, "{image}");
        for pusher in ALL {
            let name = self.name(&pusher.repository(image));
            let pushed = self.push(pusher, &origin, &name, is_index);
            assert_eq!(
                self.digest(&name),
                pushed.trim(),
                "{image} pushed by {pusher:?}"
            );
            if pusher != Client::Podman {
                assert_eq!(pushed.trim(), digest, "{image} pushed by {pusher:?}");
            }
            for puller in ALL {
                let digests = self.pull(puller, &name);
                assert!(
                    digests.iter().any(|got| got == pushed.trim()),
                    "{image} pushed by {pusher:?} as {pushed}, pulled by {puller:?} as {digests:?}"
                );
            }
        }
    }
}

fn layers(builder: Builder, compression: Compression) -> Builder {
    let one = |number: u32| {
        let text = number.to_string().repeat(50_000);
        let layer = Layer::new().file(&format!("data/{number}"), text);
        layer.compression(compression)
    };
    builder.layer(one(1)).layer(one(2))
}

fn both(dialect: Dialect) -> Image {
    let one = |architecture: &str| {
        let builder = Builder::new()
            .dialect(dialect)
            .platform(Platform::linux(architecture));
        layers(builder, Compression::Gzip).build()
    };
    let index = Index::new().dialect(dialect);
    index.image(one("amd64")).image(one("arm64")).build()
}

#[test]
fn five_clients_agree_on_images_of_every_kind() {
    let Some(place) = Place::open() else { return };
    let gzip = |dialect| layers(Builder::new().dialect(dialect), Compression::Gzip).build();
    let zstd = layers(Builder::new(), Compression::Zstd).build();
    for (name, image, is_index) in [
        ("oci", gzip(Dialect::Oci), false),
        ("docker", gzip(Dialect::Docker), false),
        ("zstd", zstd, false),
        ("multi-arch", both(Dialect::Oci), true),
        ("docker-list", both(Dialect::Docker), true),
    ] {
        push(
            &image,
            place.registry,
            &format!("origin/{name}"),
            "v1",
            None,
        );
        place.agree(name, image.digest(), is_index);
    }
}

#[test]
fn five_clients_agree_on_images_of_a_folder() {
    let Some(images) = std::env::var_os("TOWLINE_TEST_IMAGES") else {
        println!("skipped: needs TOWLINE_TEST_IMAGES");
        return;
    };
    let Some(place) = Place::open() else { return };
    let mut names: Vec<String> = std::fs::read_dir(&images)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| Path::new(&images).join(name).join("oci-layout").is_file())
        .collect();
    names.sort();
    for name in names {
        let layout = Path::new(&images).join(&name);
        let index = std::fs::read(layout.join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        let top = &index["manifests"][0];
        let is_index = top["mediaType"]
            .as_str()
            .is_some_and(|kind| kind.contains("index"));
        let origin = place.name(&format!("origin/{name}"));
        place.run(
            "towline",
            &["registry", "import", layout.to_str().unwrap(), &origin],
        );
        place.agree(&name, top["digest"].as_str().unwrap(), is_index);
    }
}

/// A signature of an image, a document about the signature, and one about a platform: they go where the image goes, each by every
/// client that carries it, and the registry lists them under what they refer to.
#[test]
fn referrers_go_with_their_image() {
    let Some(place) = Place::open() else { return };
    let top = both(Dialect::Oci);
    push(&top, place.registry, "origin/app", "v1", None);
    let origin = format!("{}/origin/app", place.registry);
    let about = |subject: &str, kind: &str| refer(&place, "origin/app", subject, kind);
    let signature = about(top.digest(), "application/vnd.test.signature");
    let note = about(&signature, "application/vnd.test.note");
    let index: Value = serde_json::from_slice(&top.manifest.bytes).unwrap();
    let platform = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let sbom = about(&platform, "application/vnd.test.sbom");
    // All of them with the image, by us.
    let copy = place.name("by-towline/app");
    place.run(
        "towline",
        &[
            "registry",
            "copy",
            "--referrers",
            &format!("{origin}:v1"),
            &copy,
        ],
    );
    // Each alone, as anything that has a digest, by whoever carries artifacts.
    let all = [
        (top.digest(), &signature),
        (&signature, &note),
        (&platform, &sbom),
    ];
    for (subject, referrer) in all {
        let from = format!("{origin}@{referrer}");
        place.run(
            "crane",
            &["copy", "--insecure", &from, &place.name("by-crane/app")],
        );
        let plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
        let ends = [
            format!("docker://{from}"),
            format!("docker://{}", place.name("by-skopeo/app")),
        ];
        let how = ["copy", "-q", "--insecure-policy", &ends[0], &ends[1]];
        place.run("skopeo", &[&how[..3], &plain, &how[3..]].concat());
        place.run("ctr", &["content", "fetch", "--plain-http", &from]);
        let to = place.name("by-containerd/app");
        place.run("ctr", &["images", "push", "--plain-http", &to, &from]);
        for client in [
            Client::Towline,
            Client::Crane,
            Client::Skopeo,
            Client::Containerd,
        ] {
            let repository = client.repository("app");
            let path = format!("/v2/{repository}/referrers/{subject}");
            let listed: Value = serde_json::from_str(&get(place.registry, &path)).unwrap();
            let found = listed["manifests"].as_array().unwrap().iter();
            let digests: Vec<&str> = found.filter_map(|one| one["digest"].as_str()).collect();
            assert_eq!(digests, [referrer.as_str()], "{client:?}: {listed}");
        }
    }
}

/// Pushes an artifact that refers to a manifest; its digest.
fn refer(place: &Place, repository: &str, subject: &str, kind: &str) -> String {
    let base = format!("http://{}/v2/{repository}", place.registry);
    let seen = get(
        place.registry,
        &format!("/v2/{repository}/manifests/{subject}"),
    );
    let empty = image::sha256(b"{}");
    let upload = format!("{base}/blobs/uploads/?digest={empty}");
    place.run(
        "curl",
        &["-fsS", "-o", "/dev/null", "--data-binary", "{}", &upload],
    );
    let oci = "application/vnd.oci.image.manifest.v1+json";
    let about: Value = serde_json::from_str(&seen).unwrap();
    let part = serde_json::json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2});
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": oci, "artifactType": kind, "config": part, "layers": [part],
        "subject": {"mediaType": about["mediaType"], "digest": subject, "size": seen.len()},
    })
    .to_string();
    let digest = image::sha256(manifest.as_bytes());
    let header = format!("Content-Type: {oci}");
    let to = format!("{base}/manifests/{digest}");
    let how = [
        "-fsS",
        "-X",
        "PUT",
        "-H",
        &header,
        "--data-binary",
        &manifest,
        &to,
    ];
    place.run("curl", &how);
    digest
}

fn get(registry: SocketAddr, path: &str) -> String {
    let output = Command::new("curl")
        .args([
            "-fsS",
            "-H",
            "Accept: */*",
            &format!("http://{registry}{path}"),
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{path}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}
