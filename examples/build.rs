//! Compiles `.proto` files in a build script, which is the other way than `include_proto!`.
//!
//! There are two scripts in one here, as the guide shows them.

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

fn main() -> Result<(), CompileError> {
    plain::run()?;
    configured::run()
}
