//! `cargo xtask score`: how well the causes of real messages are read, by the path that `towline why --message` takes.

use std::path::Path;
use std::process::{Command, ExitCode};

/// Builds and runs the judge, which lies with the reader that it judges, so that this program stays quick to build.
#[expect(clippy::print_stderr, reason = "this is a command-line program")]
pub(crate) fn run(root: &Path, verbose: bool) -> ExitCode {
    let Some(file) = std::env::var_os("TOWLINE_CORPUS").filter(|file| !file.is_empty()) else {
        eprintln!("skipped: needs TOWLINE_CORPUS, the path of a file of messages");
        return ExitCode::SUCCESS;
    };
    let Ok(file) = std::path::absolute(file) else {
        eprintln!("error: TOWLINE_CORPUS is no path");
        return ExitCode::FAILURE;
    };
    if !file.exists() {
        eprintln!("skipped: {} is not there", file.display());
        return ExitCode::SUCCESS;
    }
    let mut judge = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    judge
        .args([
            "run",
            "--quiet",
            "--package",
            "towline-explain",
            "--example",
            "score",
            "--",
        ])
        .arg(file)
        .args(verbose.then_some("-v"))
        .current_dir(root);
    match judge.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: run the judge: {error}");
            ExitCode::FAILURE
        }
    }
}
