//! The plugin for protoc and buf; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    trunkline_build::protoc_plugin()
}
