//! Chores of the workspace: `cargo xtask tidy` checks what no lint can, `cargo xtask bench` measures.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod edges;
mod score;
mod tidy;

/// Chores of the workspace.
#[derive(Parser)]
#[command(name = "xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Size budgets, module comments, cause pages, words that do not belong, and the edges between rooms
    Tidy,
    /// Only the edges between rooms
    Edges,
    /// Measures Towline beside its peers
    #[command(subcommand)]
    Bench(bench::Bench),
    /// How well the causes are read from the messages of the file that `TOWLINE_CORPUS` names
    Score {
        /// List the messages that are not read rightly
        #[arg(short, long)]
        verbose: bool,
    },
}

fn main() -> ExitCode {
    let problems = match Args::parse().task {
        Task::Tidy => tidy::problems(&root()).and_then(|mut found| {
            found.extend(edges::problems(&root())?);
            Ok(found)
        }),
        Task::Edges => edges::problems(&root()),
        Task::Bench(bench) => return bench.run(&root()),
        Task::Score { verbose } => return score::run(&root(), verbose),
    };
    report(problems)
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a command-line program"
)]
fn report(problems: anyhow::Result<Vec<String>>) -> ExitCode {
    match problems {
        Ok(problems) if problems.is_empty() => {
            println!("tidy");
            ExitCode::SUCCESS
        }
        Ok(problems) => {
            for problem in &problems {
                eprintln!("{problem}");
            }
            eprintln!("{} problems", problems.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        assert_eq!(tidy::problems(&root()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn rooms_meet_only_where_the_architecture_allows() {
        assert_eq!(edges::problems(&root()).unwrap(), Vec::<String>::new());
    }
}
