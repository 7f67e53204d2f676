//! A name server on loopback, over UDP and TCP on one port, that answers from a table and misbehaves by name.
//!
//! A name that the table lacks is forwarded when an upstream is given, else it does not exist. Names
//! below `.test` and `.invalid` are never forwarded: they answer the same offline and online.

mod answer;
mod server;

pub use answer::{Answer, Table};
pub use server::{Asked, Options, Server, Transport};
