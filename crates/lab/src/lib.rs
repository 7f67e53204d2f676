//! The lab: things that misbehave on command, and small real images to try them on.
//!
//! Every server listens on loopback, is bound when its `start` returns, remembers what it was asked,
//! and ends when dropped. What it does wrong is data, so that a scenario can be written down.
#![forbid(unsafe_code)]

pub mod blackhole;
pub mod dns;
pub mod faults;
pub mod fuzz;
pub mod gate;
pub mod guest;
pub mod image;
pub mod narrow;
pub mod scenario;
pub mod tls;
pub mod token;
