//! The process that unpacks: what it can still do, and what becomes of a pull when it dies, hangs or cannot be had.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use towline_cause::{Cause, Failure, Step};
use towline_images::{PullRequest, Unpacking, helper::Program};
use towline_keyring::Credential;
use towline_lab::faults::{Fault, Rule};
use towline_lab::image::{Builder, Compression, Layer};
use towline_oci::Reference;
use towline_sys::testing::need_root;

use crate::crash::pull_in_a_child_by;
use crate::support::{LONG, Node, Registry, assert_clean, noise, unpacker};

/// A node whose helper can be told from those of other tests.
struct Watched {
    node: Node,
    program: PathBuf,
    _dir: TempDir,
}

impl Watched {
    fn new(patience: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("unpacker");
        std::os::unix::fs::symlink(unpacker(), &program).unwrap();
        let told = Program {
            program: program.clone(),
            args: Vec::new(),
            patience,
        };
        let node = Node::with(|options| options.unpacking = Unpacking::Helper(told));
        Self {
            node,
            program,
            _dir: dir,
        }
    }

    /// The helper's process.
    fn helper(&self) -> Option<Pid> {
        let all = processes(&self.program);
        let is_parent = |pid: Pid| all.iter().any(|(_, parent)| *parent == Some(pid));
        let first = all
            .iter()
            .find(|(_, parent)| !all.iter().any(|(pid, _)| Some(*pid) == *parent));
        first
            .map(|(pid, _)| *pid)
            .filter(|pid| is_parent(*pid) || all.len() == 1)
    }

    /// The process of a layer, once it works.
    async fn layer(&self) -> Pid {
        until("a layer's process works", || {
            let helper = self.helper()?;
            let all = processes(&self.program);
            let layer = all.iter().find(|(_, parent)| *parent == Some(helper))?.0;
            // It has given its rights up, and made a file.
            let status = status(layer);
            let confined = status.contains("Seccomp:\t2");
            let staging = self.node.root().join("staging");
            (confined && files(&staging) > 0).then_some(layer)
        })
        .await
    }

    async fn gone(&self) {
        until("the helper is gone", || {
            processes(&self.program).is_empty().then_some(())
        })
        .await;
    }
}

/// Processes that were started as this program, and their parents.
fn processes(program: &Path) -> Vec<(Pid, Option<Pid>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if command.split(|byte| *byte == 0).next() != program.to_str().map(str::as_bytes) {
            continue;
        }
        let pid = Pid::from_raw(pid).unwrap();
        let parent = status(pid)
            .lines()
            .find_map(|line| line.strip_prefix("PPid:\t")?.parse().ok())
            .and_then(Pid::from_raw);
        found.push((pid, parent));
    }
    found
}

fn proc(pid: Pid, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{name}", pid.as_raw_nonzero()))
}

fn status(pid: Pid) -> String {
    std::fs::read_to_string(proc(pid, "status")).unwrap_or_default()
}

/// Files below a folder.
fn files(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    let count = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => files(&entry.path()),
        // The list of files is not one of the layer's.
        _ => usize::from(entry.file_name() != "files"),
    };
    entries.flatten().map(count).sum()
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < LONG, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An image of one layer with many files, which comes slowly.
async fn slow(registry: &Registry) -> Reference {
    let layer = (0..200).fold(Layer::new(), |layer, n| {
        layer.file(&format!("f{n}"), noise(20_000, n + 1))
    });
    let built = Builder::new()
        .layer(layer.compression(Compression::None))
        .build();
    let reference = registry.push(&built, "slow").await;
    let trickle = Fault::Trickle {
        bytes: 16 << 10,
        every_millis: 20,
    };
    registry.break_by(vec![Rule::on("*/blobs/*", trickle).method("GET")]);
    reference
}

/// Pulls while `disturb` does something; how the pull failed.
async fn disturbed(
    watched: &Watched,
    reference: &Reference,
    disturb: impl AsyncFnOnce(&Watched),
) -> Failure {
    let (pulled, ()) = tokio::join!(watched.node.try_pull(reference), disturb(watched));
    watched.node.assert_clean();
    pulled.expect_err("the process that unpacks was disturbed")
}

/// Asserts what is told of a helper that failed, and that the next pull is well.
async fn names_the_helper(
    registry: &Registry,
    watched: &Watched,
    reference: &Reference,
    failure: &Failure,
    words: &str,
) {
    let chain = failure.chain();
    assert_eq!(failure.cause(), Cause::LayerExtractFailed, "{chain}");
    assert_eq!(failure.step(), Step::Unpack, "{chain}");
    assert!(
        chain.contains("the helper process that unpacks it"),
        "{chain}"
    );
    assert!(chain.contains(words), "{chain}");
    registry.break_by(Vec::new());
    let image = watched.node.pull(reference).await;
    let dir = &watched.node.images.lower_dirs(&image)[0];
    assert!(std::fs::read(dir.join("f199")).unwrap() == noise(20_000, 200));
    watched.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_layers_process_fails_its_layer_and_the_next_pull_goes_on() {
    let registry = Registry::start().await;
    let reference = slow(&registry).await;
    let watched = Watched::new(LONG);
    let failure = disturbed(&watched, &reference, async |watched| {
        let layer = watched.layer().await;
        kill_process(layer, Signal::KILL).unwrap();
    })
    .await;
    assert!(watched.node.spooled().iter().any(|bytes| *bytes > 0));
    let words = "was killed (signal 9), as the kernel does when memory runs out";
    names_the_helper(&registry, &watched, &reference, &failure, words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_helper_fails_the_layers_it_has_and_another_one_is_started() {
    let registry = Registry::start().await;
    let reference = slow(&registry).await;
    let watched = Watched::new(LONG);
    let failure = disturbed(&watched, &reference, async |watched| {
        watched.layer().await;
        kill_process(watched.helper().unwrap(), Signal::KILL).unwrap();
    })
    .await;
    let words = "is gone (signal: 9";
    names_the_helper(&registry, &watched, &reference, &failure, words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_hangs_is_ended() {
    let registry = Registry::start().await;
    let reference = slow(&registry).await;
    let watched = Watched::new(Duration::from_secs(2));
    let failure = disturbed(&watched, &reference, async |watched| {
        let layer = watched.layer().await;
        kill_process(layer, Signal::STOP).unwrap();
    })
    .await;
    let words = "did nothing for 2 s and was ended; what was downloaded is kept, so pull again";
    names_the_helper(&registry, &watched, &reference, &failure, words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_is_given_up_leaves_no_process() {
    let registry = Registry::start().await;
    let reference = slow(&registry).await;
    let watched = Watched::new(LONG);
    let request = PullRequest::new(reference, Credential::Anonymous);
    let cancel = request.cancel.clone();
    let (pulled, ()) = tokio::join!(watched.node.images.pull(request), async {
        watched.layer().await;
        cancel.cancel();
    });
    pulled.expect_err("it was given up");
    watched.gone().await;
    watched.node.images.stop().await;
    watched.node.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_one_who_pulls_the_helper_ends() {
    let registry = Registry::start().await;
    let reference = slow(&registry).await;
    // Only its names are used.
    let watched = Watched::new(LONG);
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("store");
    let child = pull_in_a_child_by(&watched.program, &root, &reference);
    until("a layer's process works", || {
        (processes(&watched.program).len() == 2 && files(&root.join("staging")) > 0).then_some(())
    })
    .await;
    tokio::task::block_in_place(|| drop(child));
    // What it may still write does not keep the next one from opening the store.
    drop(towline_store::Store::open(&root).unwrap());
    assert_clean(&root);
    watched.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_helper_unpacks_all_layers_and_is_gone_after_the_pull() {
    let registry = Registry::start().await;
    let built = (0..30).fold(Builder::new(), |builder, n| {
        builder.layer(Layer::new().file("f", noise(1000, n + 1)))
    });
    let reference = registry.push(&built.build(), "many").await;
    let dir = tempfile::tempdir().unwrap();
    let (program, log) = (dir.path().join("helper"), dir.path().join("starts"));
    let script = format!(
        "#!/bin/sh\necho started >> {}\nexec {}\n",
        log.display(),
        unpacker().display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let node = Node::with(|options| options.unpacking = Unpacking::by(&program, []));
    let image = node.pull(&reference).await;
    assert_eq!(node.images.lower_dirs(&image).len(), 30);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "started\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_helper_that_is_not_there_is_named() {
    let registry = Registry::start().await;
    let reference = slow(&registry).await;
    registry.break_by(Vec::new());
    for (program, words) in [
        ("/nowhere/towline", "cannot be started (/nowhere/towline)"),
        ("/bin/true", "the helper process that unpacks it"),
    ] {
        let node = Node::with(|options| options.unpacking = Unpacking::by(program, []));
        let failure = node.try_pull(&reference).await.unwrap_err();
        let chain = failure.chain();
        assert!(chain.contains(words), "{chain}");
        node.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_this_process_only_where_that_is_asked_for() {
    let registry = Registry::start().await;
    let reference = slow(&registry).await;
    registry.break_by(Vec::new());
    let node = Node::with(|options| options.unpacking = Unpacking::InProcess);
    let image = node.pull(&reference).await;
    let dir = &node.images.lower_dirs(&image)[0];
    assert!(std::fs::read(dir.join("f199")).unwrap() == noise(20_000, 200));
    node.assert_clean();
}

/// What a program that took the process over can do is tried from inside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_takes_a_layers_process_over_has_that_layer_and_nothing_else() {
    if !need_root() {
        return;
    }
    let registry = Registry::start().await;
    let reference = slow(&registry).await;
    registry.break_by(Vec::new());
    let node = Node::with(|options| {
        options.unpacking = Unpacking::by(unpacker(), ["attack".into()]);
    });
    let failure = node.try_pull(&reference).await.unwrap_err();
    let chain = failure.chain();
    let (_, report) = chain.split_once("unpacks it ").unwrap();
    let mut tried = 0;
    for line in report
        .split(';')
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let (what, how) = line.rsplit_once(": ").unwrap();
        let want = match what {
            "make a file" | "make a folder" => "done",
            "variables" => "0",
            _ => "refused",
        };
        assert_eq!(how, want, "{what}");
        tried += 1;
    }
    assert!(tried > 20, "{report}");
}

/// What such a program leaves behind is removed, also where no path leads to its end and no stack is as deep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_of_any_depth_that_a_layers_process_leaves_is_removed() {
    let registry = Registry::start().await;
    let reference = slow(&registry).await;
    registry.break_by(Vec::new());
    let node = Node::in_memory(|options| {
        options.unpacking = Unpacking::by(unpacker(), ["dig".into()]);
    });
    let failure = node.try_pull(&reference).await.unwrap_err();
    let chain = failure.chain();
    assert!(chain.contains("dug 5000"), "{chain}");
    node.assert_clean();
}

/// And looked at from outside while it works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layers_process_holds_nothing_that_it_does_not_need() {
    if !need_root() {
        return;
    }
    let registry = Registry::start().await;
    let reference = slow(&registry).await;
    let watched = Watched::new(LONG);
    let failure = disturbed(&watched, &reference, async |watched| {
        let layer = watched.layer().await;
        looks_small(layer, &watched.node.root());
        let helper = watched.helper().unwrap();
        assert_eq!(std::fs::read(proc(helper, "environ")).unwrap(), b"");
        kill_process(layer, Signal::KILL).unwrap();
    })
    .await;
    assert_eq!(failure.step(), Step::Unpack);
}

fn looks_small(layer: Pid, store: &Path) {
    let status = status(layer);
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim_start_matches(':').trim().to_owned()
    };
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD, SETFCAP.
    let kept = format!(
        "{:016x}",
        1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 27 | 1_u64 << 31
    );
    for (name, want) in [
        ("CapEff", kept.as_str()),
        ("CapPrm", &kept),
        ("CapInh", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        assert_eq!(field(name), want, "{name}");
    }
    assert_eq!(std::fs::read(proc(layer, "environ")).unwrap(), b"");
    let limits = std::fs::read_to_string(proc(layer, "limits")).unwrap();
    for (name, want) in [("Max core file size", "0"), ("Max open files", "128")] {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        assert!(line.unwrap().trim().starts_with(want), "{limits}");
    }
    let memory = limits
        .lines()
        .find(|line| line.starts_with("Max data size"));
    assert!(!memory.unwrap().contains("unlimited"), "{limits}");
    for entry in std::fs::read_dir(proc(layer, "fd")).unwrap().flatten() {
        // One may be closed meanwhile.
        let Ok(target) = std::fs::read_link(entry.path()) else {
            continue;
        };
        let shown = target.to_string_lossy().into_owned();
        // Below its own root what it opened has short names.
        let own = shown == "/dev/null"
            || shown.starts_with("socket:")
            || target.starts_with(store)
            || shown == "/"
            || shown.starts_with("/f");
        assert!(own, "{shown}");
    }
}
