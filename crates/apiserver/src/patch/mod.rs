//! Strategic merge patch and server-side apply.

pub(crate) mod apply;
mod keys;
pub(crate) mod strategic;
