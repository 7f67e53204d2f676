//! towline
fn main() {}
