//! Compiles `.proto` files in a build script, which is the other way than `include_proto!`.

fn main() -> Result<(), trunkline_build::CompileError> {
    trunkline_build::compile(["../proto/helloworld.proto"])
}
