//! The shim and the helper that unpacks, as the tests start them: entered before the process has any thread, as the `towline` binary does.

fn main() -> std::process::ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "unpack-layers") {
        return towline_images::helper::main();
    }
    towline_shim::main(std::env::args_os().skip(1))
}
