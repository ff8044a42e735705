//! Names of protobuf: what they are names of, and which of them a relative name means.
//!
//! The compiler inside looks relative names up among all files that it has read, protoc only among
//! those that a file imports. So names are made absolute before the compiler has them, by the rules of
//! protoc: descriptor.cc, `DescriptorBuilder::LookupSymbolNoPlaceholder` and `FindSymbol`.

use std::collections::{HashMap, HashSet};

use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

use crate::json;
use crate::names::joined;

/// All names that the files of one call define.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    names: HashMap<String, Symbol>,
    /// Further definitions of a name, which are an error as soon as the compiler sees both.
    again: HashMap<String, Vec<Symbol>>,
    files: Vec<FileEntry>,
    indexes: HashMap<String, usize>,
    /// The names that the compiler knows some fields by, by their full names; see `json`.
    stand_ins: HashMap<String, String>,
}

#[derive(Debug)]
struct Symbol {
    /// The index of the file that defines it.
    file: usize,
    kind: Kind,
}

/// What a name is a name of.
#[derive(Debug)]
pub(crate) enum Kind {
    Package,
    /// With its ranges for extensions, each as its start and its end behind the last number.
    Message(Vec<(i32, i32)>),
    Enum,
    Service,
    /// A field or an extension.
    Field(Value),
    Other,
}

/// What the value of a field is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A `float` or a `double`.
    Float,
    /// A message, by its name without a dot at the start.
    Message(String),
    Other,
}

#[derive(Debug)]
struct FileEntry {
    name: String,
    package: String,
    dependencies: Vec<String>,
    public_dependencies: Vec<String>,
}

impl Kind {
    fn is(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Type => matches!(self, Self::Message(_) | Self::Enum),
            Wanted::Extension => matches!(self, Self::Field(_)),
            Wanted::Any => true,
        }
    }

    /// Whether a name can have further parts behind this one.
    fn is_aggregate(&self) -> bool {
        matches!(
            self,
            Self::Package | Self::Message(_) | Self::Enum | Self::Service
        )
    }
}

impl Value {
    fn of(field: &FieldDescriptorProto) -> Self {
        let name = field.type_name().trim_start_matches('.');
        match field.r#type {
            Some(it) if it == Type::Float as i32 || it == Type::Double as i32 => Self::Float,
            // An enum has no fields, so that nothing is found in what is taken for a message.
            _ if !name.is_empty() => Self::Message(name.to_owned()),
            _ => Self::Other,
        }
    }
}

impl Symbols {
    /// Adds all that a file defines.
    pub(crate) fn declare(&mut self, file: &FileDescriptorProto) {
        let index = self.files.len();
        let public = file.public_dependency.iter();
        let public = public.filter_map(|it| file.dependency.get(usize::try_from(*it).ok()?));
        self.indexes.insert(file.name().to_owned(), index);
        self.files.push(FileEntry {
            name: file.name().to_owned(),
            package: file.package().to_owned(),
            dependencies: file.dependency.clone(),
            public_dependencies: public.cloned().collect(),
        });
        let package = file.package();
        let is_proto3 = file.syntax() == "proto3";
        for message in &file.message_type {
            self.message(index, package, message);
            if is_proto3 {
                self.hide(package, message);
            }
        }
        for it in &file.enum_type {
            self.enumeration(index, package, it);
        }
        for service in &file.service {
            let name = joined(package, service.name());
            for method in &service.method {
                self.add(index, joined(&name, method.name()), Kind::Other);
            }
            self.add(index, name, Kind::Service);
        }
        for extension in &file.extension {
            let name = joined(package, extension.name());
            self.add(index, name, Kind::Field(Value::of(extension)));
        }
    }

    fn message(&mut self, file: usize, outer: &str, message: &DescriptorProto) {
        let name = joined(outer, message.name());
        for field in message.field.iter().chain(&message.extension) {
            let value = Value::of(field);
            self.add(file, joined(&name, field.name()), Kind::Field(value));
        }
        for oneof in &message.oneof_decl {
            self.add(file, joined(&name, oneof.name()), Kind::Other);
        }
        for nested in &message.nested_type {
            self.message(file, &name, nested);
        }
        for it in &message.enum_type {
            self.enumeration(file, &name, it);
        }
        let ranges = message.extension_range.iter();
        let ranges = ranges.map(|it| (it.start(), it.end())).collect();
        self.add(file, name, Kind::Message(ranges));
    }

    fn hide(&mut self, outer: &str, message: &DescriptorProto) {
        let name = joined(outer, message.name());
        for (index, stand_in) in json::stand_ins(message) {
            let full = joined(&name, message.field[index].name());
            self.stand_ins.insert(full, stand_in);
        }
        for nested in &message.nested_type {
            self.hide(&name, nested);
        }
    }

    fn enumeration(&mut self, file: usize, outer: &str, it: &prost_types::EnumDescriptorProto) {
        for value in &it.value {
            self.add(file, joined(outer, value.name()), Kind::Other);
        }
        self.add(file, joined(outer, it.name()), Kind::Enum);
    }

    fn add(&mut self, file: usize, name: String, kind: Kind) {
        let symbol = Symbol { file, kind };
        match self.names.get(&name) {
            Some(_) => self.again.entry(name).or_default().push(symbol),
            None => {
                self.names.insert(name, symbol);
            }
        }
    }

    /// Takes the types of fields anew from a file whose names are absolute by now.
    pub(crate) fn learn(&mut self, file: &FileDescriptorProto) {
        let package = file.package();
        for message in &file.message_type {
            self.learn_message(package, message);
        }
        for extension in &file.extension {
            self.learn_field(package, extension);
        }
    }

    fn learn_message(&mut self, outer: &str, message: &DescriptorProto) {
        let name = joined(outer, message.name());
        for field in message.field.iter().chain(&message.extension) {
            self.learn_field(&name, field);
        }
        for nested in &message.nested_type {
            self.learn_message(&name, nested);
        }
    }

    fn learn_field(&mut self, outer: &str, field: &FieldDescriptorProto) {
        if let Some(symbol) = self.names.get_mut(&joined(outer, field.name())) {
            symbol.kind = Kind::Field(Value::of(field));
        }
    }

    /// The value of a field of a message, or of an extension, by its full name.
    pub(crate) fn value(&self, field: &str) -> Option<&Value> {
        match self.names.get(field)?.kind {
            Kind::Field(ref value) => Some(value),
            _ => None,
        }
    }

    /// The name that the compiler knows a field by, if not by its own, which is part of its full name.
    pub(crate) fn stand_in(&self, field: &str) -> Option<&str> {
        self.stand_ins.get(field).map(String::as_str)
    }

    /// Whether any field has a [`stand_in`](Self::stand_in).
    pub(crate) fn has_stand_ins(&self) -> bool {
        !self.stand_ins.is_empty()
    }

    /// The ranges for extensions of a message, by its name with a dot at the start.
    pub(crate) fn extension_ranges(&self, message: &str) -> Option<&[(i32, i32)]> {
        match self.names.get(message.strip_prefix('.')?)?.kind {
            Kind::Message(ref ranges) => Some(ranges),
            _ => None,
        }
    }

    /// The names of files that a file imports only by public imports of others, in order.
    pub(crate) fn public_imports(&self, file: &str) -> Vec<String> {
        let Some(entry) = self.indexes.get(file).map(|it| &self.files[*it]) else {
            return Vec::new();
        };
        let view = View::of(self, file);
        let names = view.files.iter().map(|it| &self.files[*it].name);
        let further = names.filter(|it| *it != file && !entry.dependencies.contains(it));
        let mut further: Vec<String> = further.cloned().collect();
        further.sort_unstable();
        further
    }

    fn symbols<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Symbol> {
        let again = self.again.get(name).into_iter().flatten();
        self.names.get(name).into_iter().chain(again)
    }
}

/// What one file can name: its own definitions, and those of the files that it imports.
#[derive(Debug)]
pub(crate) struct View {
    files: HashSet<usize>,
    packages: HashSet<String>,
}

/// What a name is looked up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Type,
    Extension,
    /// Whatever has the name, as for the types of methods and for what is extended: protoc refuses what is
    /// no message there, and looks no further.
    Any,
}

/// Why a name has no meaning.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It means a name that is not defined, because an inner scope has its first part.
    Inner(String),
    /// The file that defines it, as the full name, is not imported.
    NotImported {
        full: String,
        file: String,
    },
    Unknown,
}

impl View {
    /// The view of a file that has been declared, as have those that it imports.
    pub(crate) fn of(symbols: &Symbols, file: &str) -> Self {
        let mut files = HashSet::new();
        if let Some(index) = symbols.indexes.get(file) {
            files.insert(*index);
            let imports = &symbols.files[*index].dependencies;
            let mut queue: Vec<&String> = imports.iter().collect();
            while let Some(name) = queue.pop() {
                if let Some(index) = symbols.indexes.get(name)
                    && files.insert(*index)
                {
                    queue.extend(&symbols.files[*index].public_dependencies);
                }
            }
        }
        let mut packages = HashSet::new();
        for package in files.iter().map(|it| symbols.files[*it].package.as_str()) {
            let above = package.match_indices('.').map(|(at, _)| &package[..at]);
            packages.extend(above.chain([package]).map(str::to_owned));
        }
        Self { files, packages }
    }

    fn find<'a>(&self, symbols: &'a Symbols, name: &str) -> Option<&'a Kind> {
        let mut found = symbols.symbols(name);
        let found = found.find(|it| self.files.contains(&it.file));
        let package = || self.packages.contains(name).then_some(&Kind::Package);
        found.map(|it| &it.kind).or_else(package)
    }

    /// The full name, without a dot at the start, that `name` stands for in what is called `inside`.
    ///
    /// Names of one part that are of something else than what is wanted are passed over.
    ///
    /// # Errors
    ///
    /// A name without a meaning.
    pub(crate) fn resolve(
        &self,
        symbols: &Symbols,
        name: &str,
        inside: &str,
        wanted: Wanted,
    ) -> Result<String, Missing> {
        let absolute = |name: &str| match self.find(symbols, name) {
            Some(_) => Ok(name.to_owned()),
            None => Err(not_imported(symbols, name)),
        };
        if let Some(name) = name.strip_prefix('.') {
            return absolute(name);
        }
        let first = name.split('.').next().unwrap_or(name);
        let mut missing = Missing::Unknown;
        let mut scope = inside;
        while let Some((outer, _)) = scope.rsplit_once('.') {
            scope = outer;
            let candidate = joined(scope, first);
            let found = self.find(symbols, &candidate);
            let is_whole = first.len() == name.len();
            if is_whole && found.is_some_and(|it| it.is(wanted)) {
                return Ok(candidate);
            }
            let full = joined(scope, name);
            if !is_whole && found.is_some_and(Kind::is_aggregate) {
                if self.find(symbols, &full).is_some() {
                    return Ok(full);
                }
                return Err(match not_imported(symbols, &full) {
                    Missing::Unknown => Missing::Inner(full),
                    other => other,
                });
            }
            if missing == Missing::Unknown {
                missing = not_imported(symbols, &full);
            }
        }
        absolute(name).map_err(|last| match missing {
            Missing::Unknown => last,
            other => other,
        })
    }
}

fn not_imported(symbols: &Symbols, full: &str) -> Missing {
    match symbols.symbols(full).next() {
        Some(symbol) => Missing::NotImported {
            full: full.to_owned(),
            file: symbols.files[symbol.file].name.clone(),
        },
        None => Missing::Unknown,
    }
}
