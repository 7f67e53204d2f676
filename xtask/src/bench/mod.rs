//! `cargo xtask bench`: Towline beside its peers, in the same run and on the same machine.

mod bound;
mod contender;
mod link;
mod process;
mod pull;
mod registry;
mod scratch;
mod serve;
mod shaper;
mod table;
mod why;

use std::path::Path;
use std::process::ExitCode;

/// What can be measured.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// Cold pulls, each into a new file system, the contenders alternating
    Pull(pull::Args),
    /// One broken pod and many explained, against an API server and a registry on loopback
    Why(why::Args),
    /// The registry under load, beside docker-registry
    Registry(serve::Args),
    #[command(hide = true)]
    Bound(bound::Args),
    #[command(hide = true)]
    Shape(shaper::Args),
    #[command(hide = true)]
    Send(serve::SendArgs),
}

impl Bench {
    /// Runs the measurement and prints its table.
    pub(crate) fn run(&self, root: &Path) -> ExitCode {
        let result = match self {
            Self::Pull(args) => pull::run(args, root),
            Self::Why(args) => why::run(args, root),
            Self::Registry(args) => serve::run(args, root),
            Self::Bound(args) => bound::run(args),
            Self::Shape(args) => shaper::run(args),
            Self::Send(args) => serve::send(args),
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&format!("error: {error:#}"));
                ExitCode::FAILURE
            }
        }
    }
}

/// Prints one line of what happens.
#[expect(clippy::print_stderr, reason = "this is a command-line program")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// Prints the result.
#[expect(clippy::print_stdout, reason = "this is a command-line program")]
fn result(text: &str) {
    println!("{text}");
}
