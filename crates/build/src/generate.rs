//! Descriptors in, the Rust of each package out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use prost_build::Module;
use syn::parse::Parser;

use crate::descriptors::{Loaded, Loading, join};
use crate::docs::Docs;
use crate::error::CompileError;
use crate::modules;
use crate::names::{DESCRIPTOR_SET, EnumPrefix, Names};
use crate::service::{ALLOW, Generator, Sides, Texts};

/// Generated Rust, one text for each package, and what it was made from.
#[derive(Debug)]
pub struct Generated {
    packages: BTreeMap<Module, Package>,
    sources: Vec<PathBuf>,
    descriptor_set: Vec<u8>,
}

/// The Rust of one package.
#[derive(Debug, Default)]
pub(crate) struct Package {
    /// The name in protobuf; empty for files without a package.
    pub(crate) name: String,
    pub(crate) text: String,
    /// Whether it is the package of a file that the user named.
    pub(crate) named: bool,
}

impl Generated {
    /// The packages in order of their names, each with its Rust.
    ///
    /// Files without a package have the empty name. A package whose types all come from elsewhere,
    /// as those of `google.protobuf` do, is not among them.
    pub fn packages(&self) -> impl Iterator<Item = (&str, &str)> {
        let packages = self.packages.values();
        packages.map(|package| (package.name.as_str(), package.text.as_str()))
    }

    /// All packages as one text for one place.
    ///
    /// The items of the package of the named files are at that place itself. If there are more
    /// packages, each is in a module of its name, such as `google::rpc`; then the items at that
    /// place are re-exports. If files of several packages were named, all are in modules only.
    pub fn nested(&self) -> String {
        modules::nested(&self.packages)
    }

    /// The `.proto` files that were read: those named and those imported.
    pub fn sources(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().map(PathBuf::as_path)
    }

    /// All descriptors as a serialized `google.protobuf.FileDescriptorSet`, without comments.
    pub fn descriptor_set(&self) -> &[u8] {
        &self.descriptor_set
    }

    /// The names and texts of the files for packages that a named file is of.
    pub(crate) fn named_files(&self) -> impl Iterator<Item = (String, String)> {
        let named = self.packages.iter().filter(|(_, package)| package.named);
        named.map(|(module, package)| (modules::file_name(module), package.text.clone()))
    }

    /// The text of a file that includes those of [`named_files`](Self::named_files).
    pub(crate) fn tree_of_named(&self) -> String {
        let named = self.packages.iter().filter(|(_, package)| package.named);
        modules::includes(named)
    }

    pub(crate) fn modules(&self) -> &BTreeMap<Module, Package> {
        &self.packages
    }
}

/// What users have chosen about the text.
pub(crate) struct Choices {
    pub(crate) prost: prost_build::Config,
    /// What is not generated, by its path in protobuf.
    pub(crate) extern_paths: Vec<String>,
    pub(crate) sides: Sides,
    pub(crate) prefix: EnumPrefix,
}

/// Generates the Rust of all packages.
pub(crate) fn generate(mut loaded: Loaded, choices: Choices) -> Result<Generated, CompileError> {
    let names = Names::of(&loaded.files, choices.prefix, &choices.extern_paths)?;
    let mut docs = Docs::default();
    for file in &mut loaded.files {
        docs.take(&mut file.descriptor);
    }
    let services = Texts::default();
    let mut prost = choices.prost;
    prost.service_generator(Box::new(Generator {
        names,
        sides: choices.sides,
        extern_paths: choices.extern_paths,
        texts: Rc::clone(&services),
    }));
    let used = loaded.files.iter().filter(|it| it.used);
    let requests = used.map(|file| {
        let module = Module::from_protobuf_package_name(file.descriptor.package());
        (module, file.descriptor.clone())
    });
    let mut messages = prost
        .generate(requests.collect())
        .map_err(|error| CompileError::new(error.to_string()))?;

    let mut packages = BTreeMap::new();
    for (name, files) in by_package(&loaded.files) {
        let module = Module::from_protobuf_package_name(name);
        let messages = messages.remove(&module).unwrap_or_default();
        let messages = format(name, &docs.expand(&messages))?;
        let services = services.borrow_mut().remove(name).unwrap_or_default();
        let named = files.iter().any(|file| file.named);
        if messages.is_empty() && services.is_empty() && !named {
            continue;
        }
        let mut text = header(&files);
        text.push_str(&messages);
        text.push_str(&docs.expand(&services));
        // A service names them, also that of a package which is only imported.
        if named || !services.is_empty() {
            text.push_str(&descriptor_set(&loaded.files, &files));
        }
        let name = name.to_owned();
        packages.insert(module, Package { name, text, named });
    }
    let encoded = loaded.files.iter().map(|file| file.encoded.as_slice());
    Ok(Generated {
        packages,
        descriptor_set: join(encoded),
        sources: loaded
            .files
            .into_iter()
            .filter_map(|file| file.path)
            .collect(),
    })
}

fn by_package(files: &[Loading]) -> BTreeMap<&str, Vec<&Loading>> {
    let mut packages: BTreeMap<&str, Vec<&Loading>> = BTreeMap::new();
    for file in files.iter().filter(|it| it.used) {
        let package = packages.entry(file.descriptor.package()).or_default();
        package.push(file);
    }
    packages
}

fn header(files: &[&Loading]) -> String {
    let names: Vec<&str> = files.iter().map(|file| file.descriptor.name()).collect();
    let names = names.join(", ");
    format!("// @generated by trunkline-build from {names}.\n\n")
}

/// Lays out the messages of a package and excepts them from lints.
fn format(package: &str, text: &str) -> Result<String, CompileError> {
    let refused = |error: syn::Error| {
        CompileError::new(format!(
            "the Rust of package {package} is not valid: {error}; look at the attributes and paths \
             given to Config"
        ))
    };
    let mut file = syn::parse_file(text).map_err(refused)?;
    let allow = syn::Attribute::parse_outer
        .parse_str(ALLOW)
        .map_err(refused)?;
    for item in &mut file.items {
        let attributes = match item {
            syn::Item::Struct(item) => &mut item.attrs,
            syn::Item::Enum(item) => &mut item.attrs,
            syn::Item::Mod(item) => &mut item.attrs,
            syn::Item::Impl(item) if item.trait_.is_none() => &mut item.attrs,
            _ => continue,
        };
        let docs = attributes.iter().take_while(|it| it.path().is_ident("doc"));
        let place = docs.count();
        attributes.splice(place..place, allow.clone());
    }
    derive_debug(&mut file.items);
    Ok(prettyplease::unparse(&file))
}

/// Gives messages that have a `BTreeMap` the `Debug` of Rust, which shows enums as numbers.
///
/// That of prost-derive 0.14 says `::prost` for such a field, whatever path it was given.
fn derive_debug(items: &mut [syn::Item]) {
    let says = |attribute: &syn::Attribute, word: &str| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("prost") => {
            list.tokens.to_string().starts_with(word)
        }
        _ => false,
    };
    for item in items {
        match item {
            syn::Item::Mod(item) => {
                let content = item.content.as_mut();
                content
                    .into_iter()
                    .for_each(|(_, items)| derive_debug(items));
            }
            syn::Item::Struct(item) => {
                let mut attributes = item.fields.iter().flat_map(|field| &field.attrs);
                let is_chosen = item.attrs.iter().any(|it| says(it, "skip_debug"));
                if attributes.any(|it| says(it, "btree_map")) && !is_chosen {
                    item.attrs.push(syn::parse_quote!(#[derive(Debug)]));
                    item.attrs.push(syn::parse_quote!(#[prost(skip_debug)]));
                }
            }
            _ => {}
        }
    }
}

/// The constant with the descriptors of a package: its files and all that they import.
fn descriptor_set(all: &[Loading], package: &[&Loading]) -> String {
    let by_name: HashMap<&str, &Loading> = all
        .iter()
        .map(|file| (file.descriptor.name(), file))
        .collect();
    let mut queue: Vec<&str> = package.iter().map(|file| file.descriptor.name()).collect();
    let mut needed = HashSet::new();
    while let Some(name) = queue.pop() {
        if needed.insert(name) {
            let imports = &by_name[name].descriptor.dependency;
            queue.extend(imports.iter().map(String::as_str));
        }
    }
    // In the order of `all`: a file comes after those it imports, as readers of a set expect.
    let files = all
        .iter()
        .filter(|file| needed.contains(file.descriptor.name()));
    let bytes = join(files.map(|file| file.encoded.as_slice()));
    format!(
        "
/// The descriptors of this package and of all that it imports, for reflection: a serialized
/// `google.protobuf.FileDescriptorSet`.
#[allow(dead_code, unreachable_pub)]
pub const {DESCRIPTOR_SET}: &[u8] = {};
",
        byte_string(&bytes)
    )
}

/// A byte string literal over several lines.
fn byte_string(bytes: &[u8]) -> String {
    const WIDTH: usize = 96;
    let mut literal = String::from("b\"");
    let mut line = String::new();
    for byte in bytes {
        // White space at the start of a line belongs to the layout of the literal.
        if *byte == b' ' && line.is_empty() {
            line.push_str("\\x20");
        } else {
            line.push_str(&byte.escape_ascii().to_string());
        }
        if line.len() >= WIDTH {
            literal.push_str("\\\n    ");
            literal.push_str(&line);
            line.clear();
        }
    }
    if !line.is_empty() {
        literal.push_str("\\\n    ");
        literal.push_str(&line);
    }
    literal.push('"');
    literal
}
