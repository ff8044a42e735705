fn main() -> Result<(), trunkline_build::CompileError> {
    trunkline_build::compile(["../proto/helloworld.proto"])
}
