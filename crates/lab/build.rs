//! Compiles the guest, the static program that the lab's images run.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=guest/guest.c");
    println!("cargo::rerun-if-env-changed=TOWLINE_GUEST_CC");
    let variable = |name| std::env::var(name).unwrap_or_default();
    let target = variable("CARGO_CFG_TARGET_ARCH");
    let native = variable("HOST") == variable("TARGET") || variable("HOST").starts_with(&target);
    let compiler = match std::env::var("TOWLINE_GUEST_CC") {
        Ok(named) => named,
        Err(_) if native => "cc".to_owned(),
        Err(_) => format!("{target}-linux-gnu-gcc"),
    };
    let out = PathBuf::from(variable("OUT_DIR")).join("guest");
    let mut command = Command::new(&compiler);
    command
        .args(["-static", "-nostdlib", "-ffreestanding", "-Os", "-s"])
        .args(["-fno-pie", "-no-pie", "-fno-stack-protector"])
        .args([
            "-fno-asynchronous-unwind-tables",
            "-fno-ident",
            "-fcf-protection=none",
        ])
        .args([
            "-Wall",
            "-Wextra",
            "-Wl,--build-id=none",
            "-Wl,-z,noseparate-code",
            "-Wl,-z,noexecstack",
        ])
        .arg("-o")
        .arg(&out)
        .arg("guest/guest.c");
    if target != "x86_64" {
        // The flag exists for x86 alone and an unknown one is an error.
        let kept: Vec<_> = command
            .get_args()
            .filter(|a| *a != "-fcf-protection=none")
            .map(ToOwned::to_owned)
            .collect();
        command = Command::new(&compiler);
        command.args(kept);
    }
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => {
            panic!("compiling crates/lab/guest/guest.c with `{compiler}` failed: {status}")
        }
        Err(error) => panic!(
            "`{compiler}` cannot be started ({error}): a C compiler is needed; set TOWLINE_GUEST_CC to name one"
        ),
    }
}
