use std::path::PathBuf;

use prost::Message;

fn main() {
    println!("cargo::rerun-if-changed=../../proto/bench.proto");
    let files = protox::compile(["bench.proto"], ["../../proto"]).expect("bench.proto compiles");
    let folder = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo names a folder"));
    let descriptors = folder.join("bench.bin");
    std::fs::write(&descriptors, files.encode_to_vec()).expect("the folder can be written to");
    connectrpc_build::Config::new()
        .descriptor_set(descriptors)
        .files(&["bench.proto"])
        .include_file("_connectrpc.rs")
        .compile()
        .expect("the code of bench.proto is written");
}
