//! The shim alone, as the tests start it. In the `towline` binary it is
//! `towline shim`.

use std::process::ExitCode;

fn main() -> ExitCode {
    towline_shim::main(std::env::args_os().skip(1))
}
