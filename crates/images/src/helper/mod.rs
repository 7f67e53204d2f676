//! Layers unpacked outside this process: whoever finds a hole in the decompressors or in the reader of archives is in a process that has
//! nothing but the folder of that one layer.
//!
//! [`host`] is this side: it starts the helper, one for all layers of the pulls that run, and hands each layer to it. [`process`] is the other
//! side: the helper reads nothing hostile; for each layer it forks a process, which gives its rights up ([`towline_sys::confine`]), unpacks that
//! one layer ([`layer`]) and ends. So no layer meets what another one may have left, and none costs the start of a program. [`wire`] is what
//! they say to each other.
//!
//! The compressed bytes do not go through the socket: the process reads them from the spool's files, which it is given open, as far as this
//! side says that they are there.

mod host;
mod layer;
mod process;
mod wire;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use host::{Helpers, LayerProcess};
pub use process::{main, main_of};

/// Where layers are unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unpacking {
    /// In processes with the least rights that do.
    Helper(Program),
    /// On threads of this process, with all of its rights: whoever finds a hole in a decompressor has them too.
    InProcess,
}

/// The program that unpacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// A program that calls [`main`] before it has a second thread.
    pub program: PathBuf,
    /// What it is told, so that it does.
    pub args: Vec<OsString>,
    /// How long it may do nothing although it has bytes to unpack, until it counts as hung.
    pub patience: Duration,
}

impl Unpacking {
    /// By this program, which calls [`main`] when it is given these arguments.
    pub fn by(program: impl Into<PathBuf>, args: impl IntoIterator<Item = OsString>) -> Self {
        Self::Helper(Program {
            program: program.into(),
            args: args.into_iter().collect(),
            patience: Duration::from_secs(300),
        })
    }
}
