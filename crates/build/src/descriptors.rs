//! The files that Rust is generated from, wherever their descriptors come from.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use prost::Message;
use prost_types::FileDescriptorProto;
use protox::prost_reflect::DescriptorPool;

use crate::error::CompileError;
use crate::features::FileFeatures;
use crate::raw;

/// The named files and all that they import; a file comes after those it imports.
pub(crate) struct Loaded {
    pub(crate) files: Vec<Loading>,
}

/// One file: what it holds, and where it came from.
pub(crate) struct Loading {
    /// With comments and places; what is of an edition is said as proto3.
    pub(crate) descriptor: FileDescriptorProto,
    /// Serialized without comments and places, with the options that extensions define, and with
    /// features if it is of an edition.
    pub(crate) encoded: Vec<u8>,
    /// `None` for the files of `google/protobuf` that come with the compiler, and for those of a set
    /// of descriptors.
    pub(crate) path: Option<PathBuf>,
    pub(crate) role: Role,
}

/// Why a file is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The user named it.
    Named,
    /// Another file uses its types.
    Imported,
    /// Another file has options that it defines; nothing is generated from it.
    Options,
}

impl Loaded {
    /// The files, of which some are [`Role::Named`]; finds out what the others are.
    pub(crate) fn new(mut files: Vec<Loading>) -> Self {
        let imports: HashMap<&str, &[String]> = files
            .iter()
            .map(|it| (it.descriptor.name(), it.descriptor.dependency.as_slice()))
            .collect();
        let named = files.iter().filter(|it| it.role == Role::Named);
        let mut queue: Vec<&str> = named.map(|it| it.descriptor.name()).collect();
        let mut used = HashSet::new();
        while let Some(name) = queue.pop() {
            if used.insert(name.to_owned()) {
                let imports = imports.get(name).into_iter().copied().flatten();
                queue.extend(imports.map(String::as_str).filter(|it| !is_foreign(it)));
            }
        }
        for file in files.iter_mut().filter(|it| it.role != Role::Named) {
            file.role = match used.contains(file.descriptor.name()) {
                true => Role::Imported,
                false => Role::Options,
            };
        }
        Self { files }
    }

    /// The files of a serialized `google.protobuf.FileDescriptorSet` that has all imports.
    ///
    /// Named are those that neither come with the compiler nor say of themselves that they are only
    /// imported, as buf has it.
    ///
    /// # Errors
    ///
    /// A set that is not complete, or bytes that are none.
    pub(crate) fn from_set(set: &[u8]) -> Result<Self, CompileError> {
        let set = EncodedSet::decode(set)
            .map_err(|error| CompileError::new(format!("not a descriptor set: {error}")))?;
        Self::from_encoded(set.file, |file, name| {
            // buf/alpha/image/v1/image.proto: `ImageFileExtension.is_import`.
            let image = raw::fields(file).find(|it| it.number == 8042);
            let marks = image.into_iter().flat_map(|it| raw::fields(it.content));
            let is_import = marks.into_iter().any(|it| it.bytes == [0x08, 0x01]);
            !is_import && !name.starts_with("google/protobuf/")
        })
    }

    /// Files that are serialized; `is_named` is asked for each, with its name.
    ///
    /// # Errors
    ///
    /// Files that are wrong, or whose imports are not among them.
    pub(crate) fn from_encoded(
        files: Vec<Vec<u8>>,
        is_named: impl Fn(&[u8], &str) -> bool,
    ) -> Result<Self, CompileError> {
        let wrong = |error: &dyn std::fmt::Display| CompileError::new(error.to_string());
        // What is generated takes it for granted that all names are defined.
        let checked: Vec<Vec<u8>> = files.iter().map(|file| as_syntax(file)).collect();
        let checked = join(checked.iter().map(Vec::as_slice));
        DescriptorPool::new()
            .decode_file_descriptor_set(checked.as_slice())
            .map_err(|error| {
                let mut explained = wrong(&error);
                explained.add("a set of descriptors has all imports, as protoc makes it with --include_imports");
                explained
            })?;
        let files = files.into_iter().map(|file| {
            let descriptor = FileDescriptorProto::decode(file.as_slice());
            let descriptor = descriptor.map_err(|error| wrong(&error))?;
            let role = match is_named(&file, descriptor.name()) {
                true => Role::Named,
                false => Role::Imported,
            };
            let unwanted = [raw::SOURCE_CODE_INFO, raw::IMAGE_FILE];
            let encoded = raw::without(&file, |field| unwanted.contains(&field.number));
            Loading::new(descriptor, encoded, None, role)
        });
        Ok(Self::new(files.collect::<Result<_, _>>()?))
    }
}

impl Loading {
    /// A file whose descriptor is `encoded`; `descriptor` is the same, and has comments and places.
    ///
    /// # Errors
    ///
    /// A file of an edition that is not known, or with features that contradict one another.
    pub(crate) fn new(
        descriptor: FileDescriptorProto,
        encoded: Vec<u8>,
        path: Option<PathBuf>,
        role: Role,
    ) -> Result<Self, CompileError> {
        let mut file = Self {
            descriptor,
            encoded,
            path,
            role,
        };
        let features = FileFeatures::of(&file.encoded);
        let lowered = features.and_then(|it| it.lower(&mut file.descriptor));
        lowered.map_err(|error| file.wrong(error))?;
        Ok(file)
    }

    /// An error in this file.
    pub(crate) fn wrong(&self, error: CompileError) -> CompileError {
        let name = || Path::new(self.descriptor.name());
        error.in_file(self.path.as_deref().unwrap_or_else(name))
    }
}

/// Whether a file has the features of another language.
pub(crate) fn is_foreign(path: &str) -> bool {
    let name = path.strip_prefix("google/protobuf/");
    name.is_some_and(|name| name.ends_with("_features.proto"))
}

/// The files of a `FileDescriptorSet`, each still serialized: decoding them would lose the options
/// that are extensions.
pub(crate) fn split(set: &[u8]) -> Vec<Vec<u8>> {
    let set = EncodedSet::decode(set).expect("the compiler has just encoded this set");
    set.file
}

/// Joins serialized files into one serialized `FileDescriptorSet`.
pub(crate) fn join<'a>(files: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let file = files.map(<[u8]>::to_vec).collect();
    EncodedSet { file }.encode_to_vec()
}

/// The file without its edition, if it is of one: it is then one of proto2, which allows what
/// editions allow.
fn as_syntax(file: &[u8]) -> Vec<u8> {
    raw::without(file, |field| match field.number {
        raw::SYNTAX => field.content == b"editions",
        raw::EDITION | raw::OPTION_DEPENDENCY => true,
        _ => false,
    })
}

/// `google.protobuf.FileDescriptorSet` with its files left as bytes.
#[derive(Clone, PartialEq, Message)]
struct EncodedSet {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}
