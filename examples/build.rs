//! Compiles `.proto` files in a build script, which is the other way than `include_proto!`.
//!
//! There are four scripts in one here, as the guide shows them. The one for large schemas would write
//! the files of another, and the one that renames has files of others in mind, so these only compile.

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
