//! `towline pull` as a person runs it: what it shows, how it stops and goes on, what it does beside other processes, what it advises.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use towline_lab::image::{Builder, Image, Layer, Platform};
use towline_sys::testing::need_program;

use crate::support::eventually;
use crate::support::program::{Guard, free_port, part, signal, text, towline};
use crate::support::registry::{OurRegistry, hello, push};

/// Bytes that do not compress, the same for the same seed.
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// An image of one layer of so many mebibytes.
pub(crate) fn large(mebibytes: usize, seed: u64) -> Image {
    let layer = Layer::new().file("data", noise(mebibytes << 20, seed));
    Builder::new().layer(layer).build()
}

/// A place of its own to pull into, and nobody's settings.
pub(crate) struct Home {
    folder: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = towline();
        command.args(args).arg("--data-dir").arg(self.data());
        alone(&mut command, self.folder.path());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub(crate) fn well(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        text(&output)
    }

    /// A pull whose events are followed.
    pub(crate) fn follow(&self, args: &[&str]) -> Followed {
        let mut command = self.command(&["pull", "-o", "json"]);
        let mut process = Guard::spawn(
            command
                .args(args)
                .stdout(Stdio::piped())
                .stderr(Stdio::null()),
        );
        let events = BufReader::new(process.0.stdout.take().unwrap());
        Followed { process, events }
    }
}

/// Nothing of who runs the tests.
fn alone(command: &mut Command, home: &Path) {
    for name in [
        "REGISTRY_AUTH_FILE",
        "DOCKER_CONFIG",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "TOWLINE_CREDS",
        "TOWLINE_HOSTS_DIR",
    ] {
        command.env_remove(name);
    }
    command
        .env("HOME", home)
        .env("XDG_RUNTIME_DIR", home.join("run"));
}

pub(crate) struct Followed {
    pub(crate) process: Guard,
    events: BufReader<ChildStdout>,
}

impl Followed {
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        let read = self.events.read_line(&mut line).unwrap();
        (read > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    /// Reads on until so many bytes are here.
    pub(crate) fn until(&mut self, bytes: u64) {
        while let Some(event) = self.next() {
            if event["progress"]["bytes"].as_u64() >= Some(bytes) {
                return;
            }
            assert_ne!(event["event"], "ended", "{event}");
        }
        panic!("the pull ended before {bytes} bytes came");
    }

    /// Every event to the end, and the exit code.
    pub(crate) fn rest(mut self) -> (Vec<Value>, Option<i32>) {
        let mut events = Vec::new();
        while let Some(event) = self.next() {
            events.push(event);
        }
        let status = eventually("the pull ends", 60, || {
            let ended = self.process.0.try_wait().unwrap();
            ended.ok_or_else(|| "it runs".to_owned())
        });
        (events, status.code())
    }
}

pub(crate) fn ended(events: &[Value]) -> Vec<&Value> {
    let ended = events.iter().filter(|event| event["event"] == "ended");
    ended.map(|event| &event["ended"]).collect()
}

/// A registry that is stopped and started again at the same address.
pub(crate) struct Restarted {
    folder: TempDir,
    pub(crate) address: SocketAddr,
    process: Option<Guard>,
}

impl Restarted {
    pub(crate) fn new() -> Self {
        let mut registry = Self {
            folder: tempfile::tempdir().unwrap(),
            address: ([127, 0, 0, 1], free_port()).into(),
            process: None,
        };
        registry.start();
        registry
    }

    fn start(&mut self) {
        let (root, listen) = (self.folder.path().join("data"), self.address.to_string());
        let args = ["--listen", &listen, "--root", root.to_str().unwrap()];
        self.process = Some(part(self.folder.path(), "registry", &args));
        eventually("the registry listens", 30, || {
            std::net::TcpStream::connect(self.address).map_err(|error| error.to_string())
        });
    }

    /// As a crash: connections end in the middle.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.0.kill().unwrap();
        process.0.wait().unwrap();
    }
}

#[test]
fn a_registry_that_restarts_does_not_end_a_pull() {
    let mut registry = Restarted::new();
    push(&large(8, 1), registry.address, "big", "1", None);
    let image = format!("{}/big:1", registry.address);
    let home = Home::new();
    let mut pull = home.follow(&[&image, "--limit-rate", "4M"]);
    pull.until(2 << 20);
    registry.kill();
    // As long as a service takes to come back: longer than a request is tried again.
    std::thread::sleep(Duration::from_secs(3));
    registry.start();
    let (events, code) = pull.rest();
    assert_eq!(code, Some(0), "{events:?}");
    let mut phases = events.iter().filter(|event| event["event"] == "phase");
    assert_eq!(phases.next_back().unwrap()["phase"], "done", "{events:?}");
}

#[test]
fn a_stopped_pull_keeps_what_came_and_says_so() {
    let registry = OurRegistry::start();
    push(&large(24, 2), registry.address, "big", "1", None);
    let image = registry.image("big:1");
    let home = Home::new();
    for (name, code, bytes) in [("INT", 130, 2 << 20), ("TERM", 143, 3 << 20)] {
        let mut pull = home.follow(&[&image, "--limit-rate", "2M"]);
        pull.until(bytes);
        signal(pull.process.0.id(), name);
        let (events, ends) = pull.rest();
        assert_eq!(ends, Some(code), "{events:?}");
        let [stopped] = ended(&events)[..] else {
            panic!("one image ends once: {events:?}");
        };
        assert_eq!(stopped["stopped"], format!("SIG{name}"), "{stopped}");
        assert_eq!(stopped["cause"], Value::Null, "no registry is at fault");
        let words = stopped["error"].as_str().unwrap();
        assert!(words.contains("is kept"), "{stopped}");
    }

    let plan = home.run(&["pull", "--dry-run", "-o", "json", &image]);
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    let (kept, total) = (
        plan[0]["layers"][0]["kept"].as_u64(),
        plan[0]["total"].as_u64(),
    );
    assert!(kept >= Some(2 << 20) && kept < total, "{plan}");
    home.well(&["pull", &image]);
    assert!(
        home.well(&["verify"])
            .contains("1 images, 0 things are damaged")
    );
}

#[test]
fn others_ask_the_pull_that_runs_or_wait_for_it() {
    let registry = OurRegistry::start();
    push(&large(6, 3), registry.address, "big", "1", None);
    push(&hello("small"), registry.address, "small", "1", None);
    let (big, small) = (registry.image("big:1"), registry.image("small:1"));
    let home = Home::new();
    home.well(&["pull", &small]);
    let mut pull = home.follow(&[&big, "--limit-rate", "1M"]);
    pull.until(1 << 20);
    assert!(home.well(&["images"]).contains(&small));
    assert!(home.well(&["df"]).contains("images"));
    assert!(home.well(&["inspect", &small]).contains("unpackedSize"));
    let refused = home.run(&["pull", "--wait", "0", &small]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    let words = text(&refused);
    assert!(
        words.contains("in use by process") && words.contains("hint:") && words.contains("--wait"),
        "{words}"
    );
    assert_eq!(
        pull.process.0.try_wait().unwrap(),
        None,
        "it ran all the time"
    );
    let waited = home.well(&["pull", &small]);
    assert!(waited.contains("waits for process"), "{waited}");
    let (events, code) = pull.rest();
    assert_eq!(code, Some(0), "{events:?}");
    let list = home.well(&["images"]);
    assert!(list.contains(&big) && list.contains(&small), "{list}");
}

#[test]
fn four_first_pulls_at_once_all_succeed() {
    let registry = OurRegistry::start();
    push(&hello("four"), registry.address, "app", "1", None);
    let (image, home) = (registry.image("app:1"), Home::new());
    let pulls: Vec<Child> = (0..4)
        .map(|_| {
            let mut command = home.command(&["pull", &image]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for pull in pulls {
        let output = pull.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
}

#[test]
fn each_image_ends_when_it_ends_and_a_bad_one_stops_no_other() {
    let registry = OurRegistry::start();
    push(&large(4, 4), registry.address, "big", "1", None);
    push(&hello("quick"), registry.address, "quick", "1", None);
    let (big, quick) = (registry.image("big:1"), registry.image("quick:1"));
    let home = Home::new();
    let pull = home.follow(&[&big, "not:a:name", &quick, "--limit-rate", "1M"]);
    let (events, code) = pull.rest();
    assert_eq!(code, Some(1));
    let ended = ended(&events);
    assert_eq!(ended.len(), 3, "{events:?}");
    assert_eq!(ended[2]["image"], big.as_str(), "the slow one comes last");
    assert!(ended[2]["id"].is_string(), "{events:?}");
    let bad = ended.iter().find(|one| one["image"] == "not:a:name");
    assert_eq!(bad.unwrap()["cause"], "InvalidReference");

    let plan = home.run(&["pull", "--dry-run", "-o", "json", &quick, "not:a:name"]);
    assert_eq!(plan.status.code(), Some(1));
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(plan[0]["toFetch"], 0, "{plan}");
    assert_eq!(plan[1]["cause"], "InvalidReference", "{plan}");
}

#[test]
fn a_bad_login_file_fails_each_image_by_itself() {
    let registry = OurRegistry::start();
    push(&hello("x"), registry.address, "app", "1", None);
    let home = Home::new();
    let file = home.folder.path().join("auth.json");
    std::fs::write(&file, "{").unwrap();
    let image = registry.image("app:1");
    let pull = home.follow(&[&image, "--authfile", file.to_str().unwrap()]);
    let (events, code) = pull.rest();
    assert_eq!((code, ended(&events).len()), (Some(1), 1), "{events:?}");
    // A helper that cannot be run concerns its own registry alone.
    let helpers = format!(
        r#"{{"credHelpers":{{"{}":"towline-has-no-such-helper","other.example":"neither"}}}}"#,
        registry.address
    );
    std::fs::write(&file, helpers).unwrap();
    let other = OurRegistry::start();
    push(&hello("y"), other.address, "app", "1", None);
    let elsewhere = other.image("app:1");
    let pull = home.follow(&[&image, &elsewhere, "--authfile", file.to_str().unwrap()]);
    let (events, code) = pull.rest();
    assert_eq!(code, Some(1));
    for one in ended(&events) {
        let cause = if one["image"] == image.as_str() {
            Value::from("CredentialProviderFailed")
        } else {
            Value::Null
        };
        assert_eq!(one["cause"], cause, "{one}");
    }
}

#[test]
fn the_hint_is_for_who_typed_the_command() {
    let registry = OurRegistry::with_login();
    let login = Some(crate::support::registry::LOGIN);
    push(&hello("x"), registry.address, "team/app", "1", login);
    let home = Home::new();
    let image = registry.image("team/app:1");
    let failed = text(&home.run(&["pull", &image]));
    assert!(
        failed.contains("--creds")
            && failed.contains("docker login")
            && failed.contains("towline why"),
        "{failed}"
    );
    assert!(
        !failed.contains("imagePullSecret") && !failed.contains(".;"),
        "{failed}"
    );

    let strange = Builder::new()
        .layer(Layer::new().file("f", "x"))
        .platform(Platform::linux("s390x"))
        .build();
    let open = OurRegistry::start();
    push(&strange, open.address, "strange", "1", None);
    let strange = open.image("strange:1");
    let failed = text(&home.run(&["pull", &strange]));
    assert!(
        failed.contains("--platform") && !failed.contains("nodeSelector"),
        "{failed}"
    );
    home.well(&["pull", "--platform", "linux/s390x", &strange]);
}

#[test]
fn looking_makes_nothing() {
    let registry = OurRegistry::start();
    push(&hello("x"), registry.address, "app", "1", None);
    let (image, home) = (registry.image("app:1"), Home::new());
    let plan = home.well(&["pull", "--dry-run", &image]);
    assert!(plan.contains("to download"), "{plan}");
    for command in ["images", "df"] {
        let none = home.run(&[command]);
        assert_eq!(none.status.code(), Some(1), "{}", text(&none));
        assert!(text(&none).contains("no image store"), "{}", text(&none));
    }
    let wrong = home.run(&["pull", "--ceiling", "foo=1", &image]);
    assert_eq!(wrong.status.code(), Some(64), "{}", text(&wrong));
    assert!(!home.data().exists());
}

#[test]
fn damage_is_an_exit_code_also_when_nobody_reads() {
    let registry = OurRegistry::start();
    push(&hello("x"), registry.address, "app", "1", None);
    let home = Home::new();
    home.well(&["pull", &registry.image("app:1")]);
    let layers = home.data().join("runtime/images/layers");
    let file = a_file(&layers).unwrap();
    std::fs::write(file, "damaged").unwrap();
    let mut command = home.command(&["verify"]);
    let mut verify = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(verify.stdout.take());
    assert_eq!(verify.wait().unwrap().code(), Some(1));
}

/// Some file below a folder.
pub(crate) fn a_file(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.flatten().find_map(|entry| {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            a_file(&entry.path())
        } else {
            let inside = entry
                .path()
                .components()
                .any(|part| part.as_os_str() == "fs");
            (kind.is_file() && inside).then(|| entry.path())
        }
    })
}

#[test]
fn on_a_terminal_no_line_is_wider_than_it() {
    if need_program("script").is_none() || need_program("stty").is_none() {
        return;
    }
    let registry = OurRegistry::start();
    let images: Vec<String> = (0..3)
        .map(|number| {
            let name = format!("a/rather/long/path/of/some/team/application-{number}");
            push(
                &large(2, 10 + number),
                registry.address,
                &name,
                "1.2.3",
                None,
            );
            registry.image(&format!("{name}:1.2.3"))
        })
        .collect();
    let home = Home::new();
    let program = env!("CARGO_BIN_EXE_towline");
    let line = format!(
        "stty cols 80 rows 24; exec {program} pull --limit-rate 1M --data-dir {} {}",
        home.data().display(),
        images.join(" ")
    );
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]);
    alone(&mut command, home.folder.path());
    let output = command
        .env_remove("COLUMNS")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("downloading"), "{shown}");
    let drawn = shown.split("\u{1b}[J").skip(1);
    let mut lines = 0;
    for frame in drawn {
        // What is printed once an image has ended is an answer and no drawing.
        for line in frame.split('\n').filter(|line| line.contains('…')) {
            let width = line
                .trim_end_matches('\r')
                .chars()
                .take_while(|c| !matches!(c, '\r' | '\u{1b}'))
                .count();
            assert!(width < 80, "{width}: {line:?}");
            lines += 1;
        }
    }
    assert!(lines > 3, "{shown}");
}
