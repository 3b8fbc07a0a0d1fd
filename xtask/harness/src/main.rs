//! (being written)
pub mod cluster;
fn main() {}
