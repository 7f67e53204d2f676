//! Logins as people leave them: in the files of docker and podman, in helpers, on the command line; with a registry that sends to a
//! token service.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use towline_lab::faults::{self, Proxy};
use towline_lab::token;

use crate::support::program::{text, towline};
use crate::support::registry::{OurRegistry, hello, push};

/// `alice:secret` in base64.
const ALICE: &str = "YWxpY2U6c2VjcmV0";

/// A registry whose images need a token of a service, and a home directory without anything.
struct Place {
    runtime: Runtime,
    tokens: token::Server,
    proxy: Proxy,
    registry: OurRegistry,
    home: TempDir,
}

impl Place {
    fn new() -> Self {
        let registry = OurRegistry::start();
        for repository in ["team/app", "public/app"] {
            push(&hello("x"), registry.address, repository, "1", None);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (tokens, proxy) = runtime.block_on(async {
            let tokens = token::Server::start(token::Options {
                users: [("alice".to_owned(), "secret".to_owned())].into(),
                public: vec!["public/*".to_owned()],
                service: "lab".to_owned(),
                ..token::Options::default()
            })
            .await
            .unwrap();
            let proxy = Proxy::start(faults::Options {
                upstream: Some(registry.address),
                bearer: Some(tokens.issuer()),
                ..faults::Options::default()
            })
            .await
            .unwrap();
            (tokens, proxy)
        });
        let home = tempfile::tempdir().unwrap();
        Self {
            runtime,
            tokens,
            proxy,
            registry,
            home,
        }
    }

    fn host(&self) -> String {
        self.proxy.local_addr().to_string()
    }

    fn image(&self, repository: &str) -> String {
        format!("{}/{repository}:1", self.host())
    }

    /// A file of this text below the home directory.
    fn write(&self, name: &str, text: &str) {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn forget(&self) {
        for entry in std::fs::read_dir(self.home.path()).unwrap() {
            let path = entry.unwrap().path();
            std::fs::remove_dir_all(&path)
                .or_else(|_| std::fs::remove_file(&path))
                .unwrap();
        }
    }

    /// Asks for manifest and config of an image, with nothing of this machine's own in the environment.
    fn plan(&self, repository: &str, args: &[&str], env: &[(&str, &str)]) -> Output {
        self.plan_image(&self.image(repository), args, env)
    }

    fn plan_image(&self, image: &str, args: &[&str], env: &[(&str, &str)]) -> Output {
        let data = tempfile::tempdir().unwrap();
        let mut command = self.towline(env);
        command.args(["pull", "--dry-run", "--data-dir"]);
        command.arg(data.path()).arg(image).args(args);
        command.output().unwrap()
    }

    /// The program, with nothing of this machine's own in the environment.
    fn towline(&self, env: &[(&str, &str)]) -> Command {
        let mut command = towline();
        command
            .env("HOME", self.home.path())
            .env("PATH", self.home.path().join("bin"));
        for name in [
            "REGISTRY_AUTH_FILE",
            "DOCKER_CONFIG",
            "XDG_CONFIG_HOME",
            "TOWLINE_CREDS",
        ] {
            command.env_remove(name);
        }
        command.env("XDG_RUNTIME_DIR", self.home.path().join("run"));
        command.envs(env.iter().copied());
        command
    }

    /// Whether a user's token was asked for since the last look, and whose.
    fn last_user(&self) -> Option<String> {
        self.tokens.asked().pop().and_then(|asked| asked.user)
    }
}

fn entry(host: &str) -> String {
    format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"{ALICE}\"}}}}}}")
}

#[test]
fn logins_are_found_where_docker_and_podman_leave_them() {
    let place = Place::new();
    let refused = place.plan("team/app", &[], &[]);
    assert!(!refused.status.success());
    assert!(
        text(&refused).contains("NoCredentials"),
        "{}",
        text(&refused)
    );
    let good = entry(&place.host());
    let somewhere = place.home.path().join("elsewhere");
    let named = somewhere.join("auth.json").display().to_string();
    let folder = somewhere.display().to_string();
    for (file, args, env) in [
        (".docker/config.json", &[][..], &[][..]),
        (
            "elsewhere/config.json",
            &[],
            &[("DOCKER_CONFIG", folder.as_str())],
        ),
        ("run/containers/auth.json", &[], &[]),
        (".config/containers/auth.json", &[], &[]),
        (
            "elsewhere/auth.json",
            &[],
            &[("REGISTRY_AUTH_FILE", named.as_str())],
        ),
        ("elsewhere/auth.json", &["--authfile", named.as_str()], &[]),
    ] {
        place.forget();
        place.write(file, &good);
        let pulled = place.plan("team/app", args, env);
        assert!(pulled.status.success(), "{file}: {}", text(&pulled));
        assert_eq!(place.last_user().as_deref(), Some("alice"), "{file}");
        assert!(!text(&pulled).contains("secret"));
    }
    // The first file that has a login for the host is the one; a file for another host is passed over.
    place.forget();
    place.write("run/containers/auth.json", &entry("other.corp"));
    place.write(".docker/config.json", &good);
    assert!(place.plan("team/app", &[], &[]).status.success());
    // A port is part of the place.
    place.write(".docker/config.json", &entry("127.0.0.1:1"));
    assert!(!place.plan("team/app", &[], &[]).status.success());
    // Who names a file wants no other one.
    place.write(".docker/config.json", &good);
    place.write("elsewhere/auth.json", "{}");
    let env = [("REGISTRY_AUTH_FILE", named.as_str())];
    assert!(!place.plan("team/app", &[], &env).status.success());
    // What is said on the command line counts before all files.
    place.write(
        ".docker/config.json",
        &entry(&place.host()).replace(ALICE, "ZXZlOng="),
    );
    let said = place.plan("team/app", &["--creds", "alice:secret"], &[]);
    assert!(said.status.success(), "{}", text(&said));
    drop(place.runtime);
}

#[test]
fn broken_files_and_helpers_do_not_stop_a_public_image() {
    let place = Place::new();
    place.write(".docker/config.json", "{\"auths\": [broken");
    let pulled = place.plan("public/app", &[], &[]);
    assert!(pulled.status.success(), "{}", text(&pulled));
    assert!(
        text(&pulled).contains(".docker/config.json"),
        "{}",
        text(&pulled)
    );
    let file = place.home.path().join(".docker/config.json");
    let named = place.plan("public/app", &["--authfile", file.to_str().unwrap()], &[]);
    assert!(!named.status.success(), "whoever names it is told");
    // A helper that is not installed: a note, and no login.
    place.write(".docker/config.json", "{\"credsStore\":\"desktop\"}");
    let pulled = place.plan("public/app", &[], &[]);
    assert!(pulled.status.success(), "{}", text(&pulled));
    assert!(
        text(&pulled).contains("docker-credential-desktop"),
        "{}",
        text(&pulled)
    );
    // One that is.
    let helper =
        "#!/bin/sh\nread server\nprintf '{\"Username\":\"alice\",\"Secret\":\"secret\"}'\n";
    place.write("bin/docker-credential-desktop", helper);
    let program = place.home.path().join("bin/docker-credential-desktop");
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let pulled = place.plan("team/app", &[], &[]);
    assert!(pulled.status.success(), "{}", text(&pulled));
    assert_eq!(place.last_user().as_deref(), Some("alice"));
    drop(place.runtime);
}

/// A mirror has the login that is stored for its own host and port, and never the image's.
#[test]
fn a_mirror_is_logged_in_to_with_its_own_login() {
    let place = Place::new();
    let upstream = OurRegistry::start();
    let image = format!("{}/team/app:1", upstream.address);
    let folder = upstream.address.to_string().replace(':', "_") + "_";
    let hosts = format!("[host.\"http://{}\"]\n", place.host());
    place.write(&format!("certs.d/{folder}/hosts.toml"), &hosts);
    let certs = place.home.path().join("certs.d");
    let certs = certs.to_str().unwrap();
    // The upstream does not have the image: only the mirror can give it.
    let none = place.plan_image(&image, &["--hosts-dir", certs], &[]);
    assert!(!none.status.success());
    let of_the_image = place.plan_image(
        &image,
        &["--hosts-dir", certs, "--creds", "alice:secret"],
        &[],
    );
    assert!(
        !of_the_image.status.success(),
        "the image's login is not the mirror's"
    );
    assert!(
        place
            .tokens
            .asked()
            .iter()
            .all(|asked| asked.user.is_none())
    );
    place.write(".docker/config.json", &entry(&place.host()));
    let own = place.plan_image(&image, &["--hosts-dir", certs], &[]);
    assert!(own.status.success(), "{}", text(&own));
    assert_eq!(place.last_user().as_deref(), Some("alice"));
    // One that is for HTTPS there is not for HTTP.
    place.write(
        ".docker/config.json",
        &entry(&format!("https://{}", place.host())),
    );
    let bound = place.plan_image(&image, &["--hosts-dir", certs], &[]);
    assert!(!bound.status.success(), "{}", text(&bound));
    assert!(Path::new(certs).is_dir() && place.registry.address.port() > 0);
    drop(place.runtime);
}

/// A login that was stored for HTTPS is not sent where the registry speaks HTTP, by no command.
#[test]
fn an_entry_for_https_is_not_for_http_whoever_asks() {
    let place = Place::new();
    let image = place.image("team/app");
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{containers: [{{name: a, image: \"{image}\"}}]}}\n"
    );
    for (scheme, is_let_in) in [("http://", true), ("https://", false), ("", true)] {
        place.forget();
        let entry = entry(&format!("{scheme}{}", place.host()));
        place.write(".docker/config.json", &entry);
        place.write("pod.yaml", &pod);
        let file = place.home.path().join("pod.yaml");
        for args in [
            ["why", &image],
            ["check", file.to_str().unwrap()],
            ["registry", "tags"],
        ] {
            let before = place.tokens.asked().len();
            let mut command = place.towline(&[]);
            command.args(args);
            if args[1] == "tags" {
                command.arg(&image);
            }
            let output = command.output().unwrap();
            assert_eq!(
                output.status.success(),
                is_let_in,
                "{scheme} {args:?}: {}",
                text(&output)
            );
            let asked = place.tokens.asked();
            let users = asked[before..]
                .iter()
                .filter_map(|asked| asked.user.as_ref());
            assert_eq!(users.count() > 0, is_let_in, "{scheme} {args:?}: {asked:?}");
        }
    }
}

#[test]
fn a_ceiling_is_named_and_raised() {
    let place = Place::new();
    let data = tempfile::tempdir().unwrap();
    let pull = |args: &[&str]| {
        let mut command = towline();
        command
            .args(["pull", "--data-dir"])
            .arg(data.path())
            .arg(format!("{}/team/app:1", place.registry.address))
            .args(args);
        command.output().unwrap()
    };
    let refused = pull(&["--ceiling", "layer-bytes=1K"]);
    assert!(!refused.status.success());
    let said = text(&refused);
    assert!(said.contains("ImageTooLarge"), "{said}");
    assert!(
        said.contains("the ceiling of 1024; --ceiling layer-bytes=NUMBER raises it"),
        "{said}"
    );
    let wrong = pull(&["--ceiling", "layers=many"]);
    assert_eq!(wrong.status.code(), Some(64), "{}", text(&wrong));
    let pulled = pull(&["--ceiling", "layer-bytes=1G,ratio=5000"]);
    assert!(pulled.status.success(), "{}", text(&pulled));
}
