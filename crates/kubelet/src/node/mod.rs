//! This machine as a Node: registered, kept alive by a lease, and described.

mod facts;
mod lease;
mod registration;

pub(crate) use self::facts::Capacity;
pub(crate) use self::lease::renew;
pub(crate) use self::registration::{Identity, Registration};
