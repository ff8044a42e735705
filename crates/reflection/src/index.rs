//! Lookup of descriptors by name.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    ServiceDescriptorProto,
};
use trunkline::FileDescriptors;
use trunkline::bytes::Bytes;

use crate::files::Files;
use crate::versions::joined;

/// The descriptors of a server, and the names in them.
#[derive(Debug, Default)]
pub(crate) struct Index {
    services: Vec<String>,
    files: Vec<File>,
    by_name: HashMap<String, usize>,
    symbols: HashMap<String, usize>,
    messages: HashSet<String>,
    /// By message and number.
    extensions: HashMap<String, BTreeMap<i32, usize>>,
}

#[derive(Debug)]
struct File {
    encoded: Bytes,
    imports: Vec<usize>,
}

impl Index {
    /// The index of what `services` bring, and of the files of serialized `sets`.
    ///
    /// # Errors
    ///
    /// Bytes that are no set of descriptors, or files that contradict one another.
    pub(crate) fn new(
        services: &[&str],
        descriptors: &[&'static FileDescriptors],
        sets: &[Bytes],
    ) -> Result<Self, String> {
        let mut index = Self {
            services: services.iter().map(|&name| name.to_owned()).collect(),
            ..Self::default()
        };
        // As grpc-go lists them.
        index.services.sort();
        let mut files = Files::default();
        for descriptors in descriptors {
            files.add(descriptors).map_err(|error| error.to_string())?;
        }
        for set in sets {
            files.add_set(set, &[]).map_err(|error| error.to_string())?;
        }
        for (at, served) in files.serve()?.into_iter().enumerate() {
            index.note(at, &served.file);
            index.by_name.insert(served.name, at);
            index.files.push(File {
                encoded: served.encoded,
                imports: served.imports,
            });
        }
        Ok(index)
    }

    pub(crate) fn services(&self) -> &[String] {
        &self.services
    }

    pub(crate) fn file(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn file_of_symbol(&self, name: &str) -> Option<usize> {
        self.symbols.get(name).copied()
    }

    pub(crate) fn file_of_extension(&self, message: &str, number: i32) -> Option<usize> {
        self.extensions.get(message)?.get(&number).copied()
    }

    /// The numbers of the extensions of a message, in order; none if there is no such message.
    pub(crate) fn extensions_of(&self, message: &str) -> Option<Vec<i32>> {
        match self.extensions.get(message) {
            Some(extensions) => Some(extensions.keys().copied().collect()),
            None => self.messages.contains(message).then(Vec::new),
        }
    }

    /// A file and all that it imports, near ones first, but for those imports that are in `sent`,
    /// where all of them are noted.
    ///
    /// server-reflection.md, "Reverse proxy traversal": the file itself, and all imports of imports
    /// that the stream has not had.
    pub(crate) fn with_imports(&self, file: usize, sent: &mut HashSet<usize>) -> Vec<Bytes> {
        let mut queue = VecDeque::from([file]);
        // What was asked for is sent again: the client may have lost it.
        sent.remove(&file);
        let mut seen = HashSet::from([file]);
        let mut encoded = Vec::new();
        while let Some(file) = queue.pop_front() {
            let File {
                encoded: bytes,
                imports,
            } = &self.files[file];
            if sent.insert(file) {
                encoded.push(bytes.clone());
            }
            queue.extend(imports.iter().filter(|&&import| seen.insert(import)));
        }
        encoded
    }

    /// Notes all that a file defines.
    fn note(&mut self, at: usize, file: &FileDescriptorProto) {
        let package = file.package();
        for message in &file.message_type {
            self.note_message(at, package, message);
        }
        for declared in &file.enum_type {
            self.note_enum(at, package, declared);
        }
        for extension in &file.extension {
            self.note_extension(at, package, extension);
        }
        for service in &file.service {
            self.note_service(at, package, service);
        }
    }

    fn note_message(&mut self, at: usize, scope: &str, message: &DescriptorProto) {
        let name = self.note_symbol(at, scope, message.name());
        for field in &message.field {
            self.note_symbol(at, &name, field.name());
        }
        for oneof in &message.oneof_decl {
            self.note_symbol(at, &name, oneof.name());
        }
        for nested in &message.nested_type {
            self.note_message(at, &name, nested);
        }
        for declared in &message.enum_type {
            self.note_enum(at, &name, declared);
        }
        for extension in &message.extension {
            self.note_extension(at, &name, extension);
        }
        self.messages.insert(name);
    }

    fn note_enum(&mut self, at: usize, scope: &str, declared: &EnumDescriptorProto) {
        self.note_symbol(at, scope, declared.name());
        for value in &declared.value {
            // Values are in the scope of their enum's parent, as in C++.
            self.note_symbol(at, scope, value.name());
        }
    }

    fn note_extension(&mut self, at: usize, scope: &str, extension: &FieldDescriptorProto) {
        self.note_symbol(at, scope, extension.name());
        let message = extension.extendee().trim_start_matches('.').to_owned();
        let numbers = self.extensions.entry(message).or_default();
        numbers.entry(extension.number()).or_insert(at);
    }

    fn note_service(&mut self, at: usize, scope: &str, service: &ServiceDescriptorProto) {
        let name = self.note_symbol(at, scope, service.name());
        for method in &service.method {
            self.note_symbol(at, &name, method.name());
        }
    }

    /// Notes a name, and gives it in full.
    fn note_symbol(&mut self, at: usize, scope: &str, name: &str) -> String {
        let name = joined(scope, name);
        self.symbols.entry(name.clone()).or_insert(at);
        name
    }
}
