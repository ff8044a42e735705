//! `protoc-gen-trunkline` of this very source, for tests that have protoc and buf start it.

use std::process::ExitCode;

fn main() -> ExitCode {
    trunkline_build::protoc_plugin()
}
