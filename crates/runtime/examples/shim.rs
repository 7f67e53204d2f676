//! The shim as the tests start it: entered before the process has any thread, as the `towline` binary does.

fn main() -> std::process::ExitCode {
    towline_shim::main(std::env::args_os().skip(1))
}
