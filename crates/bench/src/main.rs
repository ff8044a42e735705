//! Runs the comparison.
fn main() {}
