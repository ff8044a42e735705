//! The generated text is what `trunkline-build` makes of the `.proto` files today.
//! `TRUNKLINE_BLESS=1` writes it anew.

use std::env;
use std::fs;

fn check(version: &str) {
    let generated = trunkline_build::Config::new()
        .base_dir("../../proto")
        .client_feature("client")
        // The server of both versions is one, written by hand.
        .client_only()
        .generate([format!("grpc/reflection/{version}/reflection.proto")])
        .expect("the file is right");
    let (_, text) = generated.packages().next().expect("there is a package");
    let path = format!("generated/grpc.reflection.{version}.rs");
    if env::var_os("TRUNKLINE_BLESS").is_some() {
        fs::write(&path, text).expect("the source is writable for who blesses");
    }
    let is_fresh = fs::read_to_string(&path).is_ok_and(|stored| stored == text);
    assert!(
        is_fresh,
        "{path} is stale; if that is right, set TRUNKLINE_BLESS=1"
    );
}

#[test]
fn what_is_generated_is_fresh() {
    check("v1");
    check("v1alpha");
}
