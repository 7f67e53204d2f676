//! The command line: one list of subcommands.

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::commands;
use crate::exit::{OK, USAGE};
use crate::output::LogFormat;

/// Where a node keeps what it has, unless told otherwise.
pub(crate) const DEFAULT_DATA_DIR: &str = "/var/lib/towline";

/// The Kubernetes image pull, end to end: run pods on this machine, see a pull fail, be told why and what to change.
///
/// Start with `towline demo`. Exit codes: 0 well, 1 failed (why, check: something does not pull), 2 could not tell, 64 wrong command line.
#[derive(Parser)]
#[command(
    name = "towline",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Invocation {
    /// More log lines on stderr (-v decisions, -vv everything)
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    /// How log lines look
    #[arg(
        long,
        value_enum,
        default_value_t,
        global = true,
        value_name = "FORMAT"
    )]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Every subcommand.
#[derive(Subcommand)]
pub(crate) enum Command {
    #[cfg(feature = "node")]
    Up(commands::up::Args),
    #[cfg(feature = "node")]
    Demo(commands::demo::Args),
    #[cfg(feature = "node")]
    Lab(commands::lab::Args),
    Why(commands::why::Args),
    #[command(hide = true)]
    ReplayHere(commands::replay_here::Args),
    Causes(commands::causes::Args),
    Check(commands::check::Args),
    Endpoints(commands::endpoints::Args),
    #[cfg(feature = "node")]
    Pull(commands::pull::Args),
    #[cfg(feature = "node")]
    Images(commands::images::Args),
    #[cfg(feature = "node")]
    Inspect(commands::inspect::Args),
    #[cfg(feature = "node")]
    Rm(commands::rm::Args),
    #[cfg(feature = "node")]
    Prune(commands::prune::Args),
    #[cfg(feature = "node")]
    Df(commands::df::Args),
    #[cfg(feature = "node")]
    Verify(commands::verify::Args),
    Get(commands::get::Args),
    Describe(commands::describe::Args),
    Apply(commands::apply::Args),
    Delete(commands::delete::Args),
    Registry(commands::registry::Args),
    #[cfg(feature = "node")]
    Apiserver(commands::apiserver::Args),
    #[cfg(feature = "node")]
    Scheduler(commands::scheduler::Args),
    #[cfg(feature = "node")]
    Controllers(commands::controllers::Args),
    #[cfg(feature = "node")]
    Kubelet(commands::kubelet::Args),
    #[cfg(feature = "node")]
    Runtime(commands::runtime::Args),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Whether the command's own output shows failed pulls, so that log lines about them would only disturb it.
    pub(crate) fn shows_failures(&self) -> bool {
        match self {
            #[cfg(feature = "node")]
            Self::Up(_) | Self::Demo(_) | Self::Lab(_) | Self::Pull(_) => true,
            _ => false,
        }
    }

    /// What a command needs done before the program has a second thread.
    pub(crate) fn prepare(&self) {
        if let Self::Registry(args) = self {
            args.prepare();
        }
    }

    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            #[cfg(feature = "node")]
            Self::Up(args) => Box::pin(commands::up::run(args)).await,
            #[cfg(feature = "node")]
            Self::Demo(args) => Box::pin(commands::demo::run(args)).await,
            #[cfg(feature = "node")]
            Self::Lab(args) => Box::pin(commands::lab::run(args)).await,
            Self::ReplayHere(args) => Box::pin(commands::replay_here::run(args)).await,
            Self::Why(args) => Box::pin(commands::why::run(args)).await,
            Self::Causes(args) => commands::causes::run(&args),
            Self::Endpoints(args) => commands::endpoints::run(&args),
            Self::Check(args) => Box::pin(commands::check::run(args)).await,
            #[cfg(feature = "node")]
            Self::Pull(args) => Box::pin(commands::pull::run(args)).await,
            #[cfg(feature = "node")]
            Self::Images(args) => Box::pin(commands::images::run(args)).await,
            #[cfg(feature = "node")]
            Self::Inspect(args) => Box::pin(commands::inspect::run(args)).await,
            #[cfg(feature = "node")]
            Self::Rm(args) => Box::pin(commands::rm::run(args)).await,
            #[cfg(feature = "node")]
            Self::Prune(args) => Box::pin(commands::prune::run(args)).await,
            #[cfg(feature = "node")]
            Self::Df(args) => Box::pin(commands::df::run(args)).await,
            #[cfg(feature = "node")]
            Self::Verify(args) => Box::pin(commands::verify::run(args)).await,
            Self::Get(args) => Box::pin(commands::get::run(args)).await,
            Self::Describe(args) => Box::pin(commands::describe::run(args)).await,
            Self::Apply(args) => Box::pin(commands::apply::run(args)).await,
            Self::Delete(args) => Box::pin(commands::delete::run(args)).await,
            Self::Registry(args) => Box::pin(commands::registry::run(args)).await,
            #[cfg(feature = "node")]
            Self::Apiserver(args) => Box::pin(commands::apiserver::run(args)).await,
            #[cfg(feature = "node")]
            Self::Scheduler(args) => Box::pin(commands::scheduler::run(args)).await,
            #[cfg(feature = "node")]
            Self::Controllers(args) => Box::pin(commands::controllers::run(args)).await,
            #[cfg(feature = "node")]
            Self::Kubelet(args) => Box::pin(commands::kubelet::run(args)).await,
            #[cfg(feature = "node")]
            Self::Runtime(args) => Box::pin(commands::runtime::run(args)).await,
            Self::Completion { shell } => {
                clap_complete::generate(
                    shell,
                    &mut Invocation::command(),
                    "towline",
                    &mut std::io::stdout(),
                );
                Ok(ExitCode::from(OK))
            }
        }
    }
}

/// Whether this is `kubectl towline`: kubectl runs a program of this name for that.
pub(crate) fn is_kubectl_plugin() -> bool {
    let program = std::env::args_os().next().unwrap_or_default();
    let stem = std::path::Path::new(&program).file_stem();
    stem.is_some_and(|stem| stem == "kubectl-towline")
}

/// Reads the command line. Help and version go to stdout with code 0, anything wrong to stderr with code 64.
pub(crate) fn parse() -> Result<Invocation, ExitCode> {
    let mut command = Invocation::command();
    if is_kubectl_plugin() {
        command = command.bin_name("kubectl towline");
    }
    let parsed = command
        .try_get_matches()
        .and_then(|matches| Invocation::from_arg_matches(&matches));
    parsed.map_err(|error| {
        let code = if error.use_stderr() { USAGE } else { OK };
        // Nobody is left to tell when the stream is gone.
        drop(error.print());
        ExitCode::from(code)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Invocation::command().debug_assert();
    }
}
