//! `towline shim`: one pod's containers. Started by the runtime, not by people.

use std::process::ExitCode;

/// Runs the shim if this process was started as one. Must be called before any thread exists.
pub(crate) fn entered() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    args.next();
    (args.next()? == "shim").then(|| towline_shim::main(args))
}
