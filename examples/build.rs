//! Compiles `.proto` files in a build script, as an alternative to `include_proto!`.
//!
//! This script combines four scripts from the guide. Two are only compiled, not run: `large` would overwrite files
//! of `configured`, and `renamed` needs `.proto` files that do not exist here.

use trunkline_build::CompileError;

mod plain {
    include!("tests/build_scripts/plain.rs");

    pub(super) fn run() -> Result<(), super::CompileError> {
        main()
    }
}

mod configured {
    include!("tests/build_scripts/configured.rs");

    pub(super) fn run() -> Result<(), super::CompileError> {
        main()
    }
}

#[allow(dead_code, reason = "it is not run")]
mod large {
    include!("tests/build_scripts/large.rs");
}

#[allow(dead_code, reason = "it is not run")]
mod renamed {
    include!("tests/build_scripts/renamed.rs");
}

fn main() -> Result<(), CompileError> {
    plain::run()?;
    configured::run()
}
