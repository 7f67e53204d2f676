//! Pulls by a process that is not root of the machine: an ordinary user, and root of a user namespace.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use towline_images::{Image, Images, PullRequest};
use towline_keyring::Credential;
use towline_lab::image::{Builder, Layer};
use towline_oci::Reference;
use towline_sys::mount::{Overlay, overlay};
use towline_sys::testing::{in_mount_namespace, need_program, need_root};

use crate::support::{LONG, Registry, UNPACKER, assert_clean, open, unpacker, xattr};

const ROOT: &str = "TOWLINE_TEST_UNPRIVILEGED_ROOT";
const IMAGE: &str = "TOWLINE_TEST_UNPRIVILEGED_IMAGE";
const FOREIGN: &str = "TOWLINE_TEST_UNPRIVILEGED_FOREIGN";
/// Where the range of a namespace begins outside, and how many ids it has.
const RANGE: (u32, u32) = (300_000, 80_000);
const NOBODY: u32 = 65_534;

/// The process that is not root of the machine: does nothing unless a test below started it.
#[tokio::test]
async fn child() {
    let (Some(root), Ok(image)) = (std::env::var_os(ROOT), std::env::var(IMAGE)) else {
        return;
    };
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
    let root = Path::new(&root);
    let foreign = std::env::var(FOREIGN).ok();
    let images = open(root, |options| {
        assert!(options.unprivileged);
        assert_eq!(options.exact_owners, foreign.is_some());
    });
    let pulled = pull(&images, &image).await.unwrap();
    let lower = images.lower_dirs(&pulled);
    look(&lower[0], foreign.is_some());
    if rustix::process::geteuid().is_root() {
        look_mounted(root, &lower);
    }
    if let Some(foreign) = foreign {
        let failure = pull(&images, &foreign).await.unwrap_err();
        assert!(failure.starts_with("UserNamespaceRange "), "{failure}");
        assert!(
            failure.contains(
                "\"theirs\": set its owner to 90000:5 (this user namespace does not map both)"
            ),
            "{failure}"
        );
    }
    images.remove(&pulled.id.to_string()).await.unwrap();
    assert!(!lower[0].exists(), "also what forbids its removal");
    assert_clean(root);
}

async fn pull(images: &Images, image: &str) -> Result<Image, String> {
    let reference = Reference::parse(image).unwrap();
    let request = PullRequest::new(reference, Credential::Anonymous);
    let pulled = tokio::time::timeout(LONG, images.pull(request));
    let pulled = pulled.await.expect("the pull ends");
    pulled.map_err(|failure| format!("{} {}", failure.cause(), failure.chain()))
}

/// The upper layer of [`image`].
fn look(dir: &Path, owners: bool) {
    let meta = |name: &str| std::fs::symlink_metadata(dir.join(name)).unwrap();
    assert_eq!(meta("shut").mode() & 0o7777, 0o555);
    assert_eq!(std::fs::read(dir.join("shut/file")).unwrap(), b"x");
    assert_eq!(xattr(&dir.join("shut/file"), "user.note").unwrap(), b"n");
    assert!(meta("gone").file_type().is_char_device());
    assert_eq!(
        xattr(&dir.join("opaque"), "user.overlay.opaque").unwrap(),
        b"y"
    );
    assert!(!dir.join("null").exists(), "only root makes devices");
    let own = rustix::process::geteuid().as_raw();
    for (name, uid, gid) in [
        ("shut", 33, 44),
        ("shut/file", 70_000, 70_000),
        ("link", 1, 1),
    ] {
        let found = (meta(name).uid(), meta(name).gid());
        let left = (own, rustix::process::getegid().as_raw());
        assert_eq!(found, if owners { (uid, gid) } else { left }, "{name}");
    }
}

/// Root of a namespace sees the image as it is meant.
fn look_mounted(root: &Path, lower: &[PathBuf]) {
    let target = root.join("merged");
    std::fs::create_dir(&target).unwrap();
    in_mount_namespace(|| {
        let spec = Overlay { lower, upper: None };
        overlay(&spec, &target).unwrap();
        assert!(target.join("kept").exists());
        assert!(!target.join("gone").exists());
        assert_eq!(std::fs::read_dir(target.join("opaque")).unwrap().count(), 0);
        towline_sys::mount::unmount(&target).unwrap();
    });
    std::fs::remove_dir(&target).unwrap();
}

fn image() -> Builder {
    let below = Layer::new()
        .file("kept", "1")
        .file("gone", "1")
        .file("opaque/old", "1");
    let above = Layer::new()
        .directory("shut", 0o555)
        .owner(33, 44)
        .file("shut/file", "x")
        .mode(0o444)
        .owner(70_000, 70_000)
        .xattr("user.note", b"n")
        .xattr(
            "security.capability",
            &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        )
        .symlink("link", "shut/file")
        .owner(1, 1)
        .device("null", 1, 3)
        // Of the one the names can be read and nothing else, of the other not even those.
        .directory("names", 0o644)
        .file("names/file", "x")
        .directory("closed", 0o000)
        .file("closed/file", "x")
        .whiteout("gone")
        .opaque("opaque");
    Builder::new().layer(below).layer(above)
}

/// A place for a store of somebody else's, and the test program where a stranger may go.
struct Home {
    dir: TempDir,
}

impl Home {
    fn of(user: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Self { dir };
        std::fs::create_dir(home.root()).unwrap();
        std::fs::set_permissions(home.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(home.root(), Some(user), Some(user)).unwrap();
        std::fs::copy(std::env::current_exe().unwrap(), home.program()).unwrap();
        std::fs::copy(unpacker(), home.helper()).unwrap();
        home
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn helper(&self) -> PathBuf {
        self.dir.path().join("unpacker")
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("program")
    }

    /// Runs [`child`] by this command, whose last arguments are the program's.
    async fn run(&self, mut command: Command, image: &Reference) {
        command
            .args([
                "--exact",
                "unprivileged::child",
                "--test-threads",
                "1",
                "--nocapture",
            ])
            .env(ROOT, self.root())
            .env(UNPACKER, self.helper())
            .env(IMAGE, image.to_string())
            .env("TMPDIR", self.root())
            .current_dir("/");
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("1 passed"), "{text}");
    }
}

#[tokio::test]
async fn owners_and_devices_are_left_out_and_all_else_is_there() {
    if !need_root() {
        return;
    }
    let registry = Registry::start().await;
    let reference = registry.push(&image().build(), "plain").await;
    let home = Home::of(NOBODY);
    let mut command = Command::new(home.program());
    command.gid(NOBODY).uid(NOBODY);
    home.run(command, &reference).await;
}

/// As `unshare -Ur` makes it: root over nobody but the user who made it.
#[tokio::test]
async fn root_of_a_namespace_with_one_id_pulls_as_its_user_does() {
    let Some(unshare) = need_program("unshare").filter(|_| need_root()) else {
        return;
    };
    let registry = Registry::start().await;
    let reference = registry.push(&image().build(), "one").await;
    let home = Home::of(NOBODY);
    let mut command = Command::new(unshare);
    command
        .gid(NOBODY)
        .uid(NOBODY)
        .args(["--user", "--map-root-user"])
        .arg(home.program());
    home.run(command, &reference).await;
}

#[tokio::test]
async fn root_of_a_namespace_with_a_range_sets_the_owners_in_it_and_names_those_that_are_not() {
    let programs = (need_program("unshare"), need_program("nsenter"));
    let (Some(unshare), Some(nsenter)) = programs else {
        return;
    };
    if !need_root() {
        return;
    }
    let registry = Registry::start().await;
    let reference = registry.push(&image().build(), "range").await;
    let theirs = Layer::new().file("theirs", "x").owner(90_000, 5);
    let foreign = Builder::new().layer(theirs).build();
    let foreign = registry.push(&foreign, "foreign").await;
    let home = Home::of(RANGE.0);
    let namespace = Namespace::with_range(&unshare);
    let mut command = Command::new(nsenter);
    command
        .arg(format!("--user=/proc/{}/ns/user", namespace.0.id()))
        .args(["--setuid", "0", "--setgid", "0"])
        .arg(home.program())
        .env(FOREIGN, foreign.to_string());
    home.run(command, &reference).await;
}

/// A process whose user namespace has a range of ids.
struct Namespace(Child);

impl Namespace {
    fn with_range(unshare: &Path) -> Self {
        let mut command = Command::new(unshare);
        // Lives until its input ends.
        command.args(["--user", "cat"]).stdin(Stdio::piped());
        let namespace = Self(command.spawn().unwrap());
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        let pid = namespace.0.id().to_string();
        let begun = std::time::Instant::now();
        while of(&pid).is_none() || of(&pid) == of("self") {
            assert!(begun.elapsed() < LONG, "no namespace is made");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        for map in ["uid_map", "gid_map"] {
            let text = format!("0 {} {}\n", RANGE.0, RANGE.1);
            std::fs::write(format!("/proc/{pid}/{map}"), text).unwrap();
        }
        namespace
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
