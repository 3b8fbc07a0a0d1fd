//! Server-side apply: sets of fields, comparing and merging objects by their schema, and who owns what.

pub mod managed;
pub mod merge;
pub mod set;
pub mod typed;

#[cfg(test)]
mod fields_tests;
