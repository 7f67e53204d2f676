//! Images on a node: one pull for many waiters, unpacked when it returns.
//!
//! A pull resolves a reference, chooses the platform, fetches the layers side by side and unpacks each in one pass: the bytes go from the
//! network to the spool, through the digest, the decompressor and the diffID into a staging place. Nothing has a name before its digest is
//! right. What a cut or cancelled pull has downloaded is kept for the next one.
//!
//! Layers are unpacked in a process with the least rights that do, by a program that calls [`helper::main`], or on threads of this process
//! where that is asked for: [`Unpacking`].
#![forbid(unsafe_code)]

mod ceilings;
mod check;
mod download;
mod failure;
mod fetch;
mod flight;
pub mod helper;
mod image;
mod images;
mod keyed;
mod lanes;
mod limiter;
mod options;
mod plan;
mod progress;
mod pull;
mod receive;
mod slots;
mod unpack;
mod unpacker;

pub use ceilings::Ceilings;
pub use helper::Unpacking;
pub use image::Image;
pub use images::{Images, in_use_by};
pub use options::{Options, PullRequest};
pub use plan::{Plan, PlannedLayer};
pub use progress::{LayerPhase, LayerProgress, Phase, Progress};
pub use towline_store::{Collected, Damage, LayerInfo, Options as StoreOptions, Usage, Verified};
