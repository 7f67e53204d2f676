//! Containers: how one is made, lives and ends.

pub(crate) mod create;
pub(crate) mod devices;
pub(crate) mod life;
pub(crate) mod security;
pub(crate) mod signal;
pub(crate) mod volumes;
