//! The generated text is what `trunkline-build` makes of the `.proto` file today.
//! `TRUNKLINE_BLESS=1` writes it anew.

use std::env;
use std::fs;

#[test]
fn what_is_generated_is_fresh() {
    let generated = trunkline_build::Config::new()
        .base_dir("../../proto")
        .client_feature("client")
        .generate(["grpc/health/v1/health.proto"])
        .expect("the file is right");
    let (_, text) = generated.packages().next().expect("there is a package");
    let path = "generated/grpc.health.v1.rs";
    if env::var_os("TRUNKLINE_BLESS").is_some() {
        fs::write(path, text).expect("the source is writable for who blesses");
    }
    let is_fresh = fs::read_to_string(path).is_ok_and(|stored| stored == text);
    assert!(
        is_fresh,
        "{path} is stale; if that is right, set TRUNKLINE_BLESS=1"
    );
}
