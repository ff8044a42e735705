fn main() {
    println!("cargo::rerun-if-changed=../../proto/bench.proto");
    let files = protox::compile(["bench.proto"], ["../../proto"]).expect("bench.proto compiles");
    tonic_prost_build::compile_fds(files).expect("the code of bench.proto is written");
}
