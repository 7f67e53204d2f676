//! Would it pull? Finds the images of manifests with their place, and replays each pull once, before anything is rolled out.
#![forbid(unsafe_code)]

mod find;
mod verdict;

pub use find::{FindError, Found, images};
pub use verdict::{Checked, check};
