//! The API server over its real protocol: TLS, HTTP, client certificates, tokens, and the real kubectl.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

mod auth;
mod durable;
mod kubectl;
mod logs;
mod objects;
mod server;
mod watches;
