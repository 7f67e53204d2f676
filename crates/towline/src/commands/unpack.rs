//! `towline unpack-layers`: the helper that unpacks. Started by whoever pulls, not by people.

use std::process::ExitCode;

use towline_images::Unpacking;

/// What makes this program the helper.
const NAME: &str = "unpack-layers";

/// Runs the helper if this process was started as one. Must be called before any thread exists.
pub(crate) fn entered() -> Option<ExitCode> {
    (std::env::args_os().nth(1)? == NAME).then(towline_images::helper::main)
}

/// Layers are unpacked by this program itself, whatever takes the place of its file meanwhile.
pub(crate) fn here() -> Unpacking {
    Unpacking::by("/proc/self/exe", [NAME.into()])
}
