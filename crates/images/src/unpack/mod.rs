//! Layers unpacked into overlayfs' form, with everything in them taken for hostile.
//!
//! [`archive`] reads tar strictly ([`sparse`]: its files with holes), [`name`] checks paths, [`place`] confines every operation to the staging
//! directory by file descriptors,
//! [`pipe`] brings what another thread decompresses, [`extract`] makes the files, [`attributes`] gives them owners, modes, times and extended
//! attributes; [`layer`] is all of it. It runs in a process of its own ([`crate::helper`]), or here.

mod archive;
mod attributes;
mod decompress;
mod error;
mod extract;
#[cfg(test)]
mod fuzz;
mod gzip;
mod layer;
mod name;
mod number;
mod pax;
mod pipe;
mod place;
mod sparse;

#[cfg(test)]
pub(crate) use decompress::decompress;
pub(crate) use error::UnpackError;
#[cfg(test)]
pub(crate) use extract::extract;
pub(crate) use extract::{Extracted, Rights, Target, WAITING_BYTES};
pub(crate) use layer::{Unpacked, joined, unpack};
pub(crate) use place::{Attribute, Marks};
