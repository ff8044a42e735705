//! Files and all that they import, made into descriptors without an open end.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::rc::Rc;

use prost_types::FileDescriptorProto;
use protox::file::{FileResolver, GoogleFileResolver};
use protox::prost_reflect::DescriptorPool;

use crate::absolute::make_absolute;
use crate::descriptors::Loading;
use crate::error::{CompileError, Position};
use crate::json;
use crate::load::{Parsed, Search};
use crate::maps;
use crate::numbers;
use crate::raw;
use crate::source::Source;
use crate::symbols::Symbols;

/// The file in which all options are defined.
const DESCRIPTOR: &str = "google/protobuf/descriptor.proto";

/// Reads files by their names.
pub(crate) struct Linker<'a> {
    search: &'a Search,
    files: HashMap<String, Read>,
    /// The names of what each imports.
    imports: HashMap<String, Vec<String>>,
    /// Their names; a file comes after those it imports.
    order: Vec<String>,
    /// The files whose imports are being read.
    open: Vec<String>,
}

/// A file that has been read.
struct Read {
    descriptor: FileDescriptorProto,
    /// `None` for those of `google/protobuf` that come with the compiler.
    text: Option<(PathBuf, Rc<Parsed>)>,
}

impl<'a> Linker<'a> {
    pub(crate) fn new(search: &'a Search) -> Self {
        Self {
            search,
            files: HashMap::new(),
            imports: HashMap::new(),
            order: Vec::new(),
            open: Vec::new(),
        }
    }

    /// Reads a file, and first all that it imports.
    ///
    /// # Errors
    ///
    /// A file that is missing, that is not protobuf, or that imports itself by way of others.
    pub(crate) fn read(&mut self, name: &str) -> Result<(), CompileError> {
        if self.files.contains_key(name) {
            return Ok(());
        }
        let file = self.find(name)?;
        let file = file.ok_or_else(|| self.search.not_found(name))?;
        self.open.push(name.to_owned());
        let imports = &file.descriptor.dependency;
        for (index, import) in imports.iter().enumerate() {
            let wrong = if imports[..index].contains(import) {
                format!("import '{import}' was listed twice; remove one")
            } else if self.open.contains(import) {
                let circle = format!("{} -> {import}", self.open.join(" -> "));
                format!(
                    "import cycle detected: {circle}; move the shared definitions into a separate file"
                )
            } else if !self.search.has(import) {
                self.search.not_found(import).message().to_owned()
            } else {
                self.read(import)?;
                continue;
            };
            let place = [3, i32::try_from(index).unwrap_or_default()];
            let error = CompileError::new(wrong).at(Position::of(&file.descriptor, &place));
            return Err(match &file.text {
                Some((path, _)) => error.in_file(path),
                None => error,
            });
        }
        self.open.pop();
        let imports = file.descriptor.dependency.clone();
        self.imports.insert(name.to_owned(), imports);
        self.files.insert(name.to_owned(), file);
        self.order.push(name.to_owned());
        Ok(())
    }

    fn find(&self, name: &str) -> Result<Option<Read>, CompileError> {
        if let Some(path) = self.search.find(name) {
            let parsed = self.search.parsed(&path)?;
            let mut descriptor = parsed.descriptor.clone();
            descriptor.name = Some(name.to_owned());
            let text = Some((path, parsed));
            return Ok(Some(Read { descriptor, text }));
        }
        let file = GoogleFileResolver::new().open_file(name).ok();
        Ok(file.map(|file| {
            let mut descriptor = FileDescriptorProto::from(file);
            if name == DESCRIPTOR {
                bring_up_to_date(&mut descriptor);
            }
            Read {
                descriptor,
                text: None,
            }
        }))
    }

    /// The descriptors of the files of those `names` and of all that they import.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with a file beyond its syntax.
    pub(crate) fn link(mut self, names: &[String]) -> Result<Vec<Loading>, CompileError> {
        let is_another = |file: &Read| {
            let mut messages = file.descriptor.message_type.iter();
            file.descriptor.package() == "google.protobuf"
                && messages.any(|it| it.name() == "FieldOptions")
        };
        // One by another name is as good, and there can be only one.
        if !self.files.values().any(is_another) {
            self.read(DESCRIPTOR)?;
        }
        let mut symbols = Symbols::default();
        for name in &self.order {
            symbols.declare(&self.files[name].descriptor);
        }
        let mut pool = DescriptorPool::new();
        // It defines the options of all files, imported or not.
        let order = self.order_of(&[DESCRIPTOR.to_owned()]).into_iter();
        let order: Vec<String> = order.chain(self.order_of(names)).collect();
        let mut changes = HashMap::new();
        for name in &order {
            if !changes.contains_key(name) {
                let changed = self.add(name, &mut symbols, &mut pool)?;
                changes.insert(name, changed);
            }
        }
        let file_message = pool.get_message_by_name("google.protobuf.FileDescriptorProto");
        let files = self.order_of(names);
        let files = files.iter().map(|name| {
            let file = pool.get_file_by_name(name).expect("it has been added");
            let mut descriptor = file.file_descriptor_proto().clone();
            let mut encoded = file.encode_to_vec();
            changes[name].take_back(&mut descriptor, &mut encoded);
            if let Some(of) = &file_message {
                encoded = maps::in_order(&encoded, of);
            }
            let text = self.files[name].text.as_ref();
            if let Some((_, parsed)) = text {
                let source = &parsed.source;
                let for_options = &source.option_imports;
                descriptor.dependency.retain(|it| !for_options.contains(it));
                encoded = of_edition(encoded, source);
            }
            let path = text.map(|(path, _)| path.clone());
            json::check(&descriptor, &encoded).map_err(|error| match &path {
                Some(path) => error.in_file(path),
                None => error,
            })?;
            Loading::new(descriptor, encoded, path, names.contains(name))
        });
        files.collect()
    }

    /// Adds a file to the pool, which checks it.
    fn add(
        &mut self,
        name: &str,
        symbols: &mut Symbols,
        pool: &mut DescriptorPool,
    ) -> Result<Changes, CompileError> {
        let file = self.files.get_mut(name).expect("it has been read");
        let mut descriptor = std::mem::take(&mut file.descriptor);
        let text = file.text.as_ref();
        let in_file = |error: CompileError| match text {
            Some((path, _)) => error.in_file(path),
            None => error,
        };
        maps::check(&mut descriptor).map_err(in_file)?;
        make_absolute(&mut descriptor, symbols).map_err(in_file)?;
        let ranges = |name: &str| symbols.extension_ranges(name);
        let numbers = numbers::hide(&mut descriptor, ranges).map_err(in_file)?;
        let changes = Changes {
            numbers,
            json_names: json::hide(&mut descriptor),
            imports: descriptor.dependency.len(),
        };
        descriptor.dependency.extend(symbols.public_imports(name));
        pool.add_file_descriptor_proto(descriptor)
            .map_err(|error| {
                let source = text.map_or("", |(_, parsed)| parsed.source.original.as_str());
                let error = error.with_source_code(source);
                in_file(CompileError::from_diagnostic(&error, source, |place| place))
            })?;
        Ok(changes)
    }

    /// The names of files and of all that they import, in order.
    fn order_of(&self, names: &[String]) -> Vec<String> {
        let mut queue: Vec<&String> = names.iter().collect();
        let mut needed = HashSet::new();
        while let Some(name) = queue.pop() {
            if needed.insert(name) {
                queue.extend(self.imports.get(name).into_iter().flatten());
            }
        }
        let order = self.order.iter().filter(|it| needed.contains(it));
        order.cloned().collect()
    }
}

/// What was changed in a descriptor for the pool, because it would refuse it.
struct Changes {
    numbers: Vec<numbers::Hidden>,
    json_names: json::Hidden,
    /// How many files it imports itself. Those that it imports by public imports of others follow: the
    /// pool finds only the first of several in a row.
    imports: usize,
}

impl Changes {
    /// Takes them back, in a descriptor and in the same one serialized, which loses its places.
    fn take_back(&self, descriptor: &mut FileDescriptorProto, encoded: &mut Vec<u8>) {
        descriptor.dependency.truncate(self.imports);
        let seen = Cell::new(0);
        *encoded = raw::without(encoded, |field| {
            let is_import = field.number == raw::DEPENDENCY;
            seen.set(seen.get() + usize::from(is_import));
            is_import && seen.get() > self.imports || field.number == raw::SOURCE_CODE_INFO
        });
        numbers::show(&self.numbers, descriptor, encoded);
        json::show(&self.json_names, descriptor, encoded);
    }
}

/// Changes descriptor.proto as it comes with the compiler to what it says today.
fn bring_up_to_date(descriptor: &mut FileDescriptorProto) {
    // `FeatureSet.Utf8Validation`: NONE had the number 1 before edition 2023 was released.
    let messages = descriptor.message_type.iter_mut();
    let features = messages.filter(|it| it.name() == "FeatureSet");
    let enums = features.flat_map(|it| &mut it.enum_type);
    let values = enums
        .filter(|it| it.name() == "Utf8Validation")
        .flat_map(|it| &mut it.value);
    for value in values.filter(|it| it.name() == "NONE") {
        value.number = Some(3);
    }
}

/// The descriptor of a file of an edition, from that of the file as proto2.
fn of_edition(encoded: Vec<u8>, source: &Source) -> Vec<u8> {
    let Some(edition) = source.edition else {
        return encoded;
    };
    let imports: Vec<&[u8]> = source
        .option_imports
        .iter()
        .map(|it| it.as_bytes())
        .collect();
    let mut encoded = raw::without(&encoded, |field| {
        field.number == raw::DEPENDENCY && imports.contains(&field.content)
            || field.number == raw::SYNTAX
    });
    let visibilities = source.visibilities.iter().map(|it| {
        let mut field = Vec::new();
        raw::push_number(&mut field, it.field, it.value);
        (it.path.clone(), vec![(it.field, field)])
    });
    encoded = raw::changed(&encoded, &visibilities.collect());
    // In order of their numbers, as protoc writes them.
    raw::push_bytes(&mut encoded, raw::SYNTAX, b"editions");
    let edition = edition.number().unsigned_abs();
    raw::push_number(&mut encoded, raw::EDITION, edition.into());
    for import in imports {
        raw::push_bytes(&mut encoded, raw::OPTION_DEPENDENCY, import);
    }
    encoded
}
