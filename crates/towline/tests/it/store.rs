//! The image store from the command line while a node owns it.

use std::path::{Path, PathBuf};

use towline_lab::image;
use towline_sys::testing::{need_program, need_root};

use crate::support::node::Node;
use crate::support::program::{text, towline};
use crate::support::registry::{OurRegistry, hello, push};

/// Whoever mistypes a folder is told so, and gets no store there.
#[test]
fn looking_at_a_store_makes_none() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("mistyped");
    for args in [
        &["verify"][..],
        &["images"],
        &["df"],
        &["prune", "--all"],
        &["inspect", "app"],
        &["rm", "app"],
    ] {
        let mut command = towline();
        command.args(args).arg("--data-dir").arg(&folder);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = text(&output);
        let want = format!("there is no image store at {}", folder.display());
        assert!(said.contains(&want) && said.contains("hint:"), "{said}");
        assert!(!folder.exists(), "{args:?}");
    }
}

/// Without a node: what rotted is fetched again, and while its registry is gone it stays as it is.
#[test]
fn a_repair_takes_away_nothing_that_it_cannot_replace() {
    let registry = OurRegistry::start();
    push(&hello("rots"), registry.address, "lib/app", "1", None);
    let image = registry.image("lib/app:1");
    let home = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = towline();
        command.args(args).arg("--data-dir").arg(home.path());
        let output = command.output().unwrap();
        (output.status.code(), text(&output))
    };
    let (code, said) = run(&["pull", &image]);
    assert_eq!(code, Some(0), "{said}");
    let (_, found) = run(&["inspect", &image, "-o", "json"]);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let dir = found[0]["directories"][0].as_str().unwrap();
    let (rotten, extra) = (format!("{dir}/etc/passwd"), format!("{dir}/extra"));
    let passwd = std::fs::read(&rotten).unwrap();
    std::fs::write(&rotten, "rotten").unwrap();
    std::fs::write(&extra, "x").unwrap();

    // The registry loses everything for a while.
    let lost = registry.data().with_extension("lost");
    std::fs::rename(registry.data(), &lost).unwrap();
    let (code, said) = run(&["verify", "--repair"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("could not be fetched again"), "{said}");
    assert_eq!(std::fs::read(&rotten).unwrap(), b"rotten");
    let (code, said) = run(&["verify"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("1 images, 2 things are damaged"), "{said}");
    assert!(said.contains("it was not unpacked"), "{said}");

    if registry.data().exists() {
        std::fs::remove_dir_all(registry.data()).unwrap();
    }
    std::fs::rename(&lost, registry.data()).unwrap();
    let (code, said) = run(&["verify", "--repair"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("0 things are damaged after the repair"),
        "{said}"
    );
    assert_eq!(std::fs::read(&rotten).unwrap(), passwd);
    assert!(!std::path::Path::new(&extra).exists());
}

#[test]
fn images_are_looked_after_while_the_node_runs() {
    if !need_root() || need_program("kubectl").is_none() {
        return;
    }
    let node = Node::up();
    let registry = node.address("registry");
    let image = format!("{registry}/lib/app:1.0");
    push(&hello("kept"), registry, "lib/app", "1.0", None);
    let unused = format!("{registry}/lib/unused:1.0");
    push(&hello("not kept"), registry, "lib/unused", "1.0", None);
    node.run("good", &image, "");
    node.wait_status("good", "Running", 60);
    let run = |args: &[&str]| {
        let mut command = towline();
        command.args(args).arg("--data-dir").arg(node.data());
        command.output().unwrap()
    };
    let towline = |args: &[&str]| {
        let output = run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        text(&output)
    };
    towline(&["pull", &unused]);
    let list = towline(&["images"]);
    assert!(list.contains(&image) && list.contains(&unused), "{list}");
    assert!(towline(&["df"]).contains("images no container holds"));
    assert!(towline(&["inspect", &image]).contains("unpackedSize"));
    let verified = towline(&["verify"]);
    assert!(
        verified.contains("2 images, 0 things are damaged"),
        "{verified}"
    );
    let pruned = towline(&["prune", "--all"]);
    assert!(pruned.starts_with("1 images"), "{pruned}");
    let list = towline(&["images"]);
    assert!(list.contains(&image) && !list.contains(&unused), "{list}");

    let removed = run(&["rm", "nothing:1"]);
    assert!(!removed.status.success());
    assert!(text(&removed).contains("there is no image \"nothing:1\" here"));
}

/// Files with this name below a directory.
fn named(dir: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            named(&path, name, found);
        } else if entry.file_name() == name {
            found.push(path);
        }
    }
}

#[test]
fn what_rotted_is_repaired_by_the_node_while_it_runs_and_what_a_container_holds_is_left() {
    if !need_root() || need_program("kubectl").is_none() {
        return;
    }
    let node = Node::up();
    let registry = node.address("registry");
    let image = |repository: &str, file: &str| {
        let layer = image::Layer::new().file(file, "as it was pushed");
        let built = image::guest()
            .cmd(["hello", repository])
            .layer(layer)
            .build();
        push(&built, registry, repository, "1.0", None);
        format!("{registry}/{repository}:1.0")
    };
    let run = |args: &[&str]| {
        let mut command = towline();
        command.args(args).arg("--data-dir").arg(node.data());
        let output = command.output().unwrap();
        (output.status.code(), text(&output))
    };
    let (free, held) = (image("lib/free", "free.txt"), image("lib/held", "held.txt"));
    assert_eq!(run(&["pull", &free]).0, Some(0));
    node.run("held", &held, "");
    node.wait_status("held", "Running", 60);
    let rot = |name: &str| {
        let mut files = Vec::new();
        let store = node.data().join("runtime/images");
        named(&store, name, &mut files);
        assert_eq!(files.len(), 1, "{files:?}");
        // As long as before.
        std::fs::write(&files[0], "as it WAS pushed").unwrap();
        files.remove(0)
    };
    let file = rot("free.txt");
    let (code, found) = run(&["verify"]);
    assert_eq!(code, Some(1), "{found}");
    assert!(
        found.contains("free.txt") && found.contains("2 images, 1 things are damaged"),
        "{found}"
    );
    let (code, repaired) = run(&["verify", "--repair"]);
    assert_eq!(code, Some(0), "{repaired}");
    assert!(repaired.contains("fetched again"), "{repaired}");
    assert!(
        repaired.contains("0 things are damaged after the repair"),
        "{repaired}"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "as it was pushed");
    assert_eq!(run(&["verify"]).0, Some(0));

    rot("held.txt");
    let (code, kept) = run(&["verify", "--repair"]);
    assert_eq!(code, Some(1), "{kept}");
    assert!(
        kept.contains("a container holds it, so that it stays"),
        "{kept}"
    );
    assert!(
        kept.contains("1 things are damaged after the repair"),
        "{kept}"
    );
    node.wait_status("held", "Running", 10);
}
