//! The shim alone: `towline-shim start DIR`, or `towline-shim shim start DIR`
//! as in the `towline` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    let named = std::env::args_os().nth(1).is_some_and(|arg| arg == "shim");
    towline_shim::main(std::env::args_os().skip(1 + usize::from(named)))
}
