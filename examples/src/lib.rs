//! Short programs, one for each subject. They are next to `Cargo.toml`.
//!
//! Run one with `cargo run --example helloworld`. This library is empty.
