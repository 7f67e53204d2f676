//! `towline`: the Kubernetes image pull, end to end, in one program.
//!
//! One module a subcommand under [`commands`]; [`output`] decides what may be written where, [`exit`] which code the program ends with.
#![forbid(unsafe_code)]

#[cfg(feature = "node")]
mod ceilings;
mod cli;
mod cluster;
mod commands;
mod exit;
#[cfg(feature = "node")]
mod image_gc;
mod logins;
mod manifests;
mod output;
#[cfg(feature = "node")]
mod pods_view;
mod registry_client;
#[cfg(feature = "node")]
mod spools;
mod table;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The shim forks, and so does the helper that unpacks; they must be entered before any thread exists.
    #[cfg(feature = "node")]
    if let Some(code) = commands::shim::entered().or_else(commands::unpack::entered) {
        return code;
    }
    let invocation = match cli::parse() {
        Ok(invocation) => invocation,
        Err(code) => return code,
    };
    output::logging(
        invocation.log_format,
        invocation.verbose,
        invocation.command.shows_failures(),
    );
    invocation.command.prepare();
    // Fails only where a provider is installed already, which is as good.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return exit::failed(
                &anyhow::Error::new(error).context("cannot start the async runtime"),
            );
        }
    };
    let code = match runtime.block_on(invocation.command.run()) {
        Ok(code) => code,
        Err(error) => exit::failed(&error),
    };
    // A blocked thread must not keep the program from ending.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    code
}
