fn main() {
    println!("cargo::rerun-if-changed=../../proto/bench.proto");
    let files = protox::compile(["bench.proto"], ["../../proto"]).expect("bench.proto compiles");
    prost_build::Config::new()
        .service_generator(Box::new(pajamax_build::PajamaxGen::Local))
        .compile_fds(files)
        .expect("the code of bench.proto is written");
}
