//! Layers unpacked into overlayfs' form, with everything in them taken for hostile.
//!
//! [`archive`] reads tar strictly ([`sparse`]: its files with holes), [`name`] checks paths, [`place`] confines every operation to the staging directory by file descriptors,
//! [`pipe`] brings what another thread decompresses, [`extract`] makes the files, [`attributes`] gives them owners, modes, times and extended attributes.

mod archive;
mod attributes;
mod decompress;
mod error;
mod extract;
#[cfg(test)]
mod fuzz;
mod gzip;
mod name;
mod number;
mod pax;
mod pipe;
mod place;
mod sparse;

pub(crate) use decompress::decompress;
pub(crate) use error::UnpackError;
pub(crate) use extract::{Extracted, Rights, extract};
pub(crate) use pipe::{Source, pipe};
