fn main() {
    println!("cargo::rerun-if-changed=../../proto/bench.proto");
    volo_build::Builder::protobuf()
        .add_service("../../proto/bench.proto")
        .include_dirs(vec!["../../proto".into()])
        .write()
        .expect("the code of bench.proto is written");
}
