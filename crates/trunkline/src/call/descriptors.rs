//! Descriptors of `.proto` files, which generated code contains.

use std::collections::HashSet;
use std::ptr;

/// The definitions of `.proto` files as serialized descriptors, for server reflection.
///
/// Generated code contains one value for each file, which rustdoc does not show, and
/// `FILE_DESCRIPTORS` for all files of a package together. A value refers to the descriptors of its imports
/// instead of copying them. So each `include_proto!` or build script adds an imported file to the program once,
/// however many files import it.
///
/// ```
/// use trunkline::FileDescriptors;
///
/// static TYPES: FileDescriptors = FileDescriptors::new(b"", &[]);
/// static SERVICES: FileDescriptors = FileDescriptors::new(b"", &[&TYPES]);
/// assert_eq!(SERVICES.imports().len(), 1);
/// ```
#[derive(Debug)]
pub struct FileDescriptors {
    set: &'static [u8],
    imports: &'static [&'static Self],
}

impl FileDescriptors {
    /// Creates descriptors from `set` and the descriptors of its imports. `set` is a serialized
    /// `google.protobuf.FileDescriptorSet`, and can be empty.
    ///
    /// A set from `protoc --include_imports -o` contains all imports, so the list of imports is empty:
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

    /// Returns the serialized set, without imports.
    pub const fn set(&self) -> &'static [u8] {
        self.set
    }

    /// Returns the descriptors of the imports.
    pub const fn imports(&self) -> &'static [&'static Self] {
        self.imports
    }

    /// Returns the sets of all direct and indirect imports, each once, followed by this set. Empty sets
    /// are omitted.
    ///
    /// Serialized sets can be concatenated: the bytes of the returned sets in this order are equivalent
    /// to the output of `protoc --include_imports -o`.
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
