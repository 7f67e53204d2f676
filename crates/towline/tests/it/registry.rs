//! `towline registry` and what it does with what registries hold: ours, and the real docker-registry.

use std::net::SocketAddr;

use serde_json::Value;
use towline_lab::image::{Blob, Builder};
use towline_sys::testing::need_program;

use crate::support::eventually;
use crate::support::program::{Guard, free_port, part, text, towline};
use crate::support::registry::{DockerRegistry, LOGIN, OurRegistry, hello, push};

/// Runs `towline registry ...`, which must end like this; what it printed.
fn run(args: &[&str], expected: i32) -> String {
    let output = towline().arg("registry").args(args).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(expected),
        "{args:?}: {}",
        text(&output)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn of(address: SocketAddr, name: &str) -> String {
    format!("{address}/{name}")
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&run(&[args, &["-o", "json"]].concat(), 0)).unwrap()
}

/// Of the real registry that has `back/app:v3` and `team/app:v1`, both of this digest.
fn answers_are_json(theirs: SocketAddr, digest: &str) {
    let tags = json(&["tags", &of(theirs, "back/app")]);
    assert_eq!(
        (&tags["kind"], &tags["items"][0]),
        (&"TagList".into(), &"v3".into())
    );
    let names = json(&["ls", &theirs.to_string()]);
    assert_eq!(
        (&names["kind"], &names["items"][1]),
        (&"RepositoryList".into(), &"team/app".into())
    );
    let (from, to) = (of(theirs, "team/app:v1"), of(theirs, "json/app:v1"));
    let carried = json(&["copy", &from, &to]);
    assert_eq!(
        (&carried["kind"], &carried["digest"]),
        (&"Carried".into(), &digest.into())
    );
    assert_eq!(carried["apiVersion"], "towline.dev/v1");
    let again = json(&["copy", &from, &to]);
    assert_eq!((&again["blobs"], &again["bytes"]), (&0.into(), &0.into()));
    let seen = run(&["inspect", "-o", "json", &of(theirs, "back/app:v3")], 0);
    let seen: Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["digest"], digest);
    assert_eq!(seen["parts"][0]["what"], "config");
}

#[test]
fn images_are_carried_looked_at_and_deleted() {
    if need_program("docker-registry").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let ours: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let root = path("root");
    let _ours: Guard = part(
        folder.path(),
        "registry",
        &["--listen", &ours.to_string(), "--root", &root],
    );
    eventually("the registry listens", 30, || {
        std::net::TcpStream::connect(ours).map_err(|error| error.to_string())
    });
    let theirs = DockerRegistry::open();
    let image = hello("carried");
    push(&image, theirs.address, "team/app", "v1", None);
    let digest = image.digest().to_string();

    // From the real registry to ours, within ours, out into a layout, and from there back to the real one.
    let copied = run(
        &[
            "copy",
            &of(theirs.address, "team/app:v1"),
            &of(ours, "team/app:v1"),
        ],
        0,
    );
    assert_eq!(copied.trim(), digest);
    run(
        &["copy", &of(ours, "team/app:v1"), &of(ours, "other/app:v2")],
        0,
    );
    let layout = path("layout");
    assert_eq!(
        run(&["export", &of(ours, "team/app:v1"), &layout], 0).trim(),
        digest
    );
    assert_eq!(
        run(&["import", &layout, &of(theirs.address, "back/app:v3")], 0).trim(),
        digest
    );

    assert_eq!(run(&["ls", &ours.to_string()], 0), "other/app\nteam/app\n");
    assert_eq!(
        run(&["ls", &theirs.address.to_string()], 0),
        "back/app\nteam/app\n"
    );
    assert_eq!(run(&["tags", &of(theirs.address, "back/app")], 0), "v3\n");
    answers_are_json(theirs.address, &digest);

    // Deleted, collected by the registry that runs, and found well.
    let young = run(&["gc", "--root", &root, "--grace", "0", "--dry-run"], 0);
    assert!(young.starts_with("0 blobs"), "{young}");
    let gone = json(&["rm", &of(ours, &format!("other/app@{digest}"))]);
    assert_eq!(gone["kind"], "Deleted");
    // What the real one does not allow is told as it says it, with what was attempted.
    let kept = towline()
        .args([
            "registry",
            "rm",
            &of(theirs.address, &format!("back/app@{digest}")),
        ])
        .output()
        .unwrap();
    let said = text(&kept);
    assert!(
        kept.status.code() == Some(1) && said.contains("UNSUPPORTED"),
        "{said}"
    );
    run(&["rm", &of(ours, &format!("team/app@{digest}"))], 0);
    assert_eq!(run(&["tags", &of(ours, "team/app")], 0), "");
    let went: Value = serde_json::from_str(&run(
        &["gc", "--root", &root, "--grace", "0", "-o", "json"],
        0,
    ))
    .unwrap();
    assert!(went["blobs"].as_u64().unwrap() >= 3, "{went}");
    assert!(run(&["check", "--root", &root], 0).contains(" 0 wrong"));
}

#[test]
fn damage_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let shelf = root.join("blobs/sha256/00");
    std::fs::create_dir_all(&shelf).unwrap();
    std::fs::write(shelf.join("0".repeat(64)), "not this").unwrap();
    let said = run(&["check", "--root", &root.display().to_string()], 1);
    assert!(said.contains("its bytes have another digest"), "{said}");
}

#[test]
fn a_wrong_configuration_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.yaml");
    std::fs::write(&file, "limits:\n  blobb: 1GiB\n").unwrap();
    let (root, file) = (folder.path().join("root"), file.display().to_string());
    let output = towline()
        .args([
            "registry",
            "--listen",
            "127.0.0.1:0",
            "--config",
            &file,
            "--root",
        ])
        .arg(root)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(
        said.contains("registry.yaml: ") && said.contains("line 2, column 3"),
        "{said}"
    );
}

/// A request over a connection from one of loopback's addresses; the answer's status and text.
fn ask(from: &str, registry: SocketAddr, path: &str) -> (u16, String) {
    let to = format!("http://{registry}{path}");
    let output = std::process::Command::new("curl")
        .args(["-sS", "-i", "--interface", from, &to])
        .output()
        .unwrap();
    let said = text(&output);
    let status = said.split_ascii_whitespace().nth(1);
    let status = status.and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{path}: {said}")), said)
}

/// Each client has its own rate, and the file that says it is read again while the registry runs.
#[test]
fn clients_are_limited_each_by_its_address_as_the_file_says() {
    if need_program("curl").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let limit = |rate: u32| format!("limits: {{requests: {{perSecond: {rate}, burst: 3}}}}\n");
    std::fs::write(path("registry.yaml"), limit(1)).unwrap();
    let ours: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let (listen, root, config) = (ours.to_string(), path("root"), path("registry.yaml"));
    let args = ["--listen", &listen, "--root", &root, "--config", &config];
    let _ours = part(folder.path(), "registry", &args);
    eventually("the registry listens", 30, || {
        std::net::TcpStream::connect(ours).map_err(|error| error.to_string())
    });
    let limited = || {
        (0..200)
            .map(|_| ask("127.0.0.1", ours, "/v2/"))
            .find(|(status, _)| *status == 429)
    };
    let (_, said) = limited().expect("more than the burst and the rate");
    let lower = said.to_ascii_lowercase();
    assert!(
        lower.contains("retry-after: ") && said.contains("TOOMANYREQUESTS"),
        "{said}"
    );
    // Somebody else is not held up, nor who looks after it.
    assert_eq!(ask("127.0.0.2", ours, "/v2/").0, 200);
    assert_eq!(ask("127.0.0.1", ours, "/healthz").0, 200);
    std::fs::write(path("registry.yaml"), limit(100_000)).unwrap();
    eventually("the new limit counts", 60, || {
        let refused = (0..20)
            .map(|_| ask("127.0.0.1", ours, "/v2/"))
            .any(|(status, _)| status == 429);
        if refused {
            Err("still limited".to_owned())
        } else {
            Ok(())
        }
    });
}

/// The real registry keeps no list of referrers: whoever copies them writes the list that clients then look for, and finds it again.
#[test]
fn referrers_survive_a_registry_that_does_not_know_them() {
    if need_program("docker-registry").is_none() || need_program("curl").is_none() {
        return;
    }
    let (ours, theirs) = (OurRegistry::start(), DockerRegistry::open());
    let image = hello("signed");
    push(&image, ours.address, "team/app", "v1", None);
    let subject = image.digest();
    let mut note = Builder::new()
        .raw_config("{}")
        .annotation("note", "signed")
        .build();
    let mut manifest: Value = serde_json::from_slice(&note.manifest.bytes).unwrap();
    let size = image.manifest.bytes.len();
    manifest["subject"] = serde_json::json!({"mediaType": image.manifest.media_type, "digest": subject, "size": size});
    manifest["artifactType"] = "application/vnd.test.note".into();
    note.manifest = Blob::new(note.manifest.media_type.clone(), manifest.to_string());
    push(&note, ours.address, "team/app", "note", None);
    let there = format!("{}/mirror/app:v1", theirs.address);
    run(
        &["copy", "--referrers", &ours.image("team/app:v1"), &there],
        0,
    );
    // Twice changes nothing.
    run(
        &["copy", "--referrers", &ours.image("team/app:v1"), &there],
        0,
    );
    run(
        &["copy", "--referrers", &there, &ours.image("back/app:v1")],
        0,
    );
    for place in [there, ours.image("back/app:v1")] {
        let seen: Value =
            serde_json::from_str(&run(&["inspect", "-o", "json", &place], 0)).unwrap();
        let referrers: Vec<&str> = seen["referrers"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|one| one["digest"].as_str())
            .collect();
        assert_eq!(referrers, [note.manifest.digest.as_str()], "{place}");
    }
}

/// Where tokens are issued nobody is refused the list, so the login is given unasked; one that is wrong is an error, and an image that
/// cannot be deleted hides none that was.
#[test]
fn a_login_shows_its_list_and_half_a_deletion_is_told_whole() {
    if need_program("htpasswd").is_none() {
        return;
    }
    let ours = OurRegistry::with_tokens();
    for name in ["public/app", "team/app"] {
        push(&hello(name), ours.address, name, "v1", Some(LOGIN));
    }
    let address = ours.address.to_string();
    let creds = format!("{}:{}", LOGIN.0, LOGIN.1);
    assert_eq!(run(&["ls", &address], 0), "public/app\n");
    let all = run(&["ls", "--creds", &creds, &address], 0);
    assert_eq!(all, "public/app\nteam/app\n");
    run(&["ls", "--creds", "alice:wrong", &address], 1);
    let (there, absent) = (ours.image("team/app:v1"), ours.image("team/app:v9"));
    let args = ["rm", "-o", "json", "--creds", &creds, &absent, &there];
    let gone: Value = serde_json::from_str(&run(&args, 1)).unwrap();
    assert_eq!(gone["items"], serde_json::json!([there]));
    let failed = &gone["failed"][0];
    assert_eq!(failed["image"], absent.as_str());
    let words = failed["error"].as_str().unwrap();
    assert!(words.contains("MANIFEST_UNKNOWN"), "{words}");
}
