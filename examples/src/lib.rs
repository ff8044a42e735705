//! One short program per subject: the files beside `Cargo.toml`.
//!
//! `cargo run --example helloworld` runs one of them. Nothing is exported here.
