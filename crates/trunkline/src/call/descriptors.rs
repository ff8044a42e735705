//! Descriptors of `.proto` files, which generated code has with it.

use std::collections::HashSet;
use std::ptr;

/// Serialized descriptors of `.proto` files, with a reference to those that they import.
///
/// Generated code has one for each file, and `FILE_DESCRIPTORS` for all files of a package. What is
/// imported is referred to rather than repeated, so a program holds the descriptor of a file once
/// for each time that the file is compiled.
#[derive(Debug)]
pub struct FileDescriptors {
    set: &'static [u8],
    imports: &'static [&'static Self],
}

impl FileDescriptors {
    /// Descriptors from `set`, a serialized `google.protobuf.FileDescriptorSet`, which may be empty,
    /// with those that its files import.
    ///
    /// A set that `protoc --include_imports -o` wrote has all imports, so the list is empty:
    ///
    /// ```
    /// use trunkline::FileDescriptors;
    ///
    /// # const SET: &[u8] = b"";
    /// # /*
    /// const SET: &[u8] = include_bytes!("greeter.bin");
    /// # */
    /// static DESCRIPTORS: FileDescriptors = FileDescriptors::new(SET, &[]);
    /// ```
    pub const fn new(set: &'static [u8], imports: &'static [&'static Self]) -> Self {
        Self { set, imports }
    }

    /// Returns the serialized set, without those of imports.
    pub const fn set(&self) -> &'static [u8] {
        self.set
    }

    /// Returns what the files in the set import.
    pub const fn imports(&self) -> &'static [&'static Self] {
        self.imports
    }

    /// Returns the sets of all imports, each once, and then this one. Empty ones are left out.
    ///
    /// Sets that follow one another are a set: their bytes together are what
    /// `protoc --include_imports -o` writes.
    pub fn with_imports(&'static self) -> Vec<&'static [u8]> {
        let mut sets = Vec::new();
        self.collect(&mut HashSet::new(), &mut sets);
        sets
    }

    fn collect(&'static self, seen: &mut HashSet<*const Self>, sets: &mut Vec<&'static [u8]>) {
        if !seen.insert(ptr::from_ref(self)) {
            return;
        }
        for import in self.imports {
            import.collect(seen, sets);
        }
        if !self.set.is_empty() {
            sets.push(self.set);
        }
    }
}
