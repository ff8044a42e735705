//! What there is, by name.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use prost::{DecodeError, Message};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    ServiceDescriptorProto,
};
use trunkline::Bytes;

/// The descriptors of a server, and the names in them.
#[derive(Debug, Default)]
pub(crate) struct Index {
    services: Vec<String>,
    files: Vec<File>,
    /// The first of each name: two services may come with different files of one name.
    by_name: HashMap<String, usize>,
    symbols: HashMap<String, usize>,
    messages: HashSet<String>,
    /// By message and number.
    extensions: HashMap<String, BTreeMap<i32, usize>>,
}

#[derive(Debug)]
struct File {
    /// As it came: options and fields that nobody here knows are in it.
    encoded: Bytes,
    imports: Vec<usize>,
}

/// `google.protobuf.FileDescriptorSet` with its files left as bytes.
#[derive(Clone, PartialEq, Message)]
struct EncodedSet {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

/// The files of a serialized set, each as it came and read.
pub(crate) fn files_of(set: &Bytes) -> Result<Vec<(Bytes, FileDescriptorProto)>, DecodeError> {
    let set = EncodedSet::decode(set.clone())?;
    let files = set.file.into_iter();
    let files = files.map(|encoded| {
        let read = FileDescriptorProto::decode(encoded.clone())?;
        Ok((encoded, read))
    });
    files.collect()
}

impl Index {
    /// # Errors
    ///
    /// One of `sets` is no set of descriptors.
    pub(crate) fn new(services: &[&str], sets: &[Bytes]) -> Result<Self, DecodeError> {
        let mut index = Self {
            services: services.iter().map(|&name| name.to_owned()).collect(),
            ..Self::default()
        };
        // As grpc-go lists them.
        index.services.sort();
        let mut unresolved = Vec::new();
        for set in sets {
            index.add_set(files_of(set)?, &mut unresolved);
        }
        for (file, name) in unresolved {
            // What nobody has cannot be sent. The client says what it lacks, better than we could.
            if let Some(&import) = index.by_name.get(&name) {
                index.files[file].imports.push(import);
            }
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

    fn add_set(
        &mut self,
        files: Vec<(Bytes, FileDescriptorProto)>,
        unresolved: &mut Vec<(usize, String)>,
    ) {
        // Of files with one name, those of the same set belong together.
        let mut here = HashMap::new();
        let mut added = Vec::new();
        for (encoded, file) in files {
            let name = file.name().to_owned();
            let known = self.by_name.get(&name);
            let known = known.filter(|&&known| self.files[known].encoded == encoded);
            let at = known.copied().unwrap_or_else(|| {
                let at = self.files.len();
                self.files.push(File {
                    encoded,
                    imports: Vec::new(),
                });
                self.by_name.entry(name.clone()).or_insert(at);
                self.note(at, &file);
                added.push((at, file.dependency));
                at
            });
            here.insert(name, at);
        }
        for (at, dependencies) in added {
            for name in dependencies {
                match here.get(&name) {
                    Some(&import) => self.files[at].imports.push(import),
                    None => unresolved.push((at, name)),
                }
            }
        }
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
        let name = match scope {
            "" => name.to_owned(),
            _ => format!("{scope}.{name}"),
        };
        self.symbols.entry(name.clone()).or_insert(at);
        name
    }
}
