//! The lab: things that misbehave on command, and small real images to try them on.
#![forbid(unsafe_code)]

pub mod blackhole;
pub mod dns;
pub mod guest;
pub mod image;
pub mod tls;
