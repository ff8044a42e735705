//! Files for tests.

use std::fs;
use std::path::PathBuf;

/// Where the directories of one test program are.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(env!("CARGO_CRATE_NAME"))
}

/// A fresh directory with `files` in it.
pub(crate) fn directory(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = root().join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("the directory for tests is writable");
    for (file, text) in files {
        let path = dir.join(file);
        let parent = path.parent().expect("a file is in a directory");
        fs::create_dir_all(parent).expect("the directory for tests is writable");
        fs::write(path, text).expect("the directory for tests is writable");
    }
    dir
}
