//! Compiles `.proto` files into Rust for trunkline. No `protoc` is needed.
#![doc = ""]
mod config;
mod docs;
mod error;
mod generate;
mod load;
mod modules;
mod names;
mod service;

pub use config::Config;
pub use error::CompileError;
pub use generate::Generated;
pub use prost_build;

use std::path::Path;

/// Generates.
///
/// # Errors
///
/// x
pub fn compile<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Result<(), CompileError> {
    Config::new().compile(files)
}
