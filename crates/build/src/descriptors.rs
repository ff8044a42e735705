//! The files that Rust is generated from, wherever their descriptors come from.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use prost::Message;
use prost_types::FileDescriptorProto;
use protox::prost_reflect::DescriptorPool;

use crate::enums;
use crate::error::CompileError;
use crate::features::FileFeatures;
use crate::json;
use crate::numbers;
use crate::raw;
use crate::symbols::Symbols;

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
    /// Whether the user named it; otherwise it is imported.
    pub(crate) named: bool,
    /// The paths of its enums that are closed by their features, as in `google.protobuf.SourceCodeInfo`.
    pub(crate) closed: Vec<Vec<i32>>,
    /// Whether anything is generated from it: not if others have only options from there.
    pub(crate) used: bool,
}

impl Loaded {
    /// Puts the files into an order that does not depend on that in which they were named, and finds
    /// out what is generated from.
    ///
    /// # Errors
    ///
    /// A field whose enum is not for it.
    pub(crate) fn new(files: Vec<Loading>) -> Result<Self, CompileError> {
        enums::check(&files)?;
        let mut left: BTreeMap<String, Loading> = files
            .into_iter()
            .map(|file| (file.descriptor.name().to_owned(), file))
            .collect();
        let imports: BTreeMap<String, Vec<String>> = left
            .iter()
            .map(|(name, file)| (name.clone(), file.descriptor.dependency.clone()))
            .collect();
        let named = left.values().filter(|it| it.named);
        let named: Vec<String> = named.map(|it| it.descriptor.name().to_owned()).collect();
        let mut queue: Vec<&str> = named.iter().map(String::as_str).collect();
        let mut used = HashSet::new();
        while let Some(name) = queue.pop() {
            if used.insert(name.to_owned())
                && let Some(imports) = imports.get(name)
            {
                let imports = imports.iter().map(String::as_str);
                queue.extend(imports.filter(|it| !is_foreign(it)));
            }
        }
        let mut files = Vec::with_capacity(left.len());
        for name in named.iter().chain(imports.keys()) {
            take(name, &imports, &mut left, &mut files);
        }
        for file in &mut files {
            file.used = used.contains(file.descriptor.name());
        }
        Ok(Self { files })
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
        let checked = files.iter().map(|file| {
            FileDescriptorProto::decode(as_syntax(file).as_slice()).map_err(|error| wrong(&error))
        });
        let mut checked = checked.collect::<Result<Vec<_>, _>>()?;
        let mut symbols = Symbols::default();
        checked.iter().for_each(|file| symbols.declare(file));
        for file in &mut checked {
            numbers::hide(file, |name| symbols.extension_ranges(name))?;
            json::hide(file);
            let imports = symbols.public_imports(file.name());
            file.dependency.extend(imports);
        }
        DescriptorPool::new()
            .add_file_descriptor_protos(checked)
            .map_err(|error| {
                let mut explained = wrong(&error);
                explained
                    .add("the set must contain all imports; run protoc with --include_imports");
                explained
            })?;
        let files = files.into_iter().map(|file| {
            let descriptor = FileDescriptorProto::decode(file.as_slice());
            let descriptor = descriptor.map_err(|error| wrong(&error))?;
            let named = is_named(&file, descriptor.name());
            let unwanted = [raw::SOURCE_CODE_INFO, raw::IMAGE_FILE];
            let encoded = raw::without(&file, |field| unwanted.contains(&field.number));
            Loading::new(descriptor, encoded, None, named)
        });
        Self::new(files.collect::<Result<_, _>>()?)
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
        named: bool,
    ) -> Result<Self, CompileError> {
        let mut file = Self {
            descriptor,
            encoded,
            path,
            named,
            closed: Vec::new(),
            used: true,
        };
        let features = FileFeatures::of(&file.encoded);
        let lowered = features.and_then(|it| it.lower(&mut file.descriptor));
        file.closed = lowered.map_err(|error| file.wrong(error))?;
        Ok(file)
    }

    /// An error in this file.
    pub(crate) fn wrong(&self, error: CompileError) -> CompileError {
        let name = || Path::new(self.descriptor.name());
        error.in_file(self.path.as_deref().unwrap_or_else(name))
    }
}

/// Moves a file to `files`, behind those it imports.
fn take(
    name: &str,
    imports: &BTreeMap<String, Vec<String>>,
    left: &mut BTreeMap<String, Loading>,
    files: &mut Vec<Loading>,
) {
    // The file leaves first, so that an import of itself comes to an end.
    let Some(file) = left.remove(name) else {
        return;
    };
    for import in imports.get(name).into_iter().flatten() {
        take(import, imports, left, files);
    }
    files.push(file);
}

/// Whether a file has the features of another language.
pub(crate) fn is_foreign(path: &str) -> bool {
    let name = path.strip_prefix("google/protobuf/");
    name.is_some_and(|name| name.ends_with("_features.proto"))
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
