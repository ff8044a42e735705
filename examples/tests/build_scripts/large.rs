use std::path::{Path, PathBuf};

fn main() -> Result<(), trunkline_build::CompileError> {
    // A file that is added there is a change as well.
    println!("cargo:rerun-if-changed=../proto/shop");
    let mut files = Vec::new();
    collect(Path::new("../proto/shop"), &mut files);
    trunkline_build::Config::new()
        .include("../proto")
        .client_only()
        .include_file("shop.rs")
        .compile(&files)
}

/// Adds the `.proto` files below a directory.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|it| it == "proto") {
            files.push(path);
        }
    }
}
