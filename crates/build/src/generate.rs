//! Generates the Rust of each package from descriptors.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use prost_build::Module;
use quote::ToTokens;
use syn::parse::Parser;

use crate::carried::{Carried, Written};
use crate::descriptors::{Loaded, Loading, join};
use crate::docs::Docs;
use crate::error::CompileError;
use crate::modules;
use crate::names::{Names, Wishes};
use crate::service::{ALLOW, Bodies, Generator, Sides, Texts};

/// Generated Rust, one text per package, with its sources and descriptors.
///
/// ```no_run
/// # fn main() -> Result<(), trunkline_build::CompileError> {
/// let generated = trunkline_build::Config::new().generate(["proto/helloworld.proto"])?;
/// for (package, rust) in generated.packages() {
///     println!("package {package}: {} lines", rust.lines().count());
/// }
/// # Ok(())
/// # }
/// ```
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
    /// Returns the packages in order of their names, each with its Rust.
    ///
    /// The package of files that do not declare one has an empty name. Packages whose types all come from
    /// other crates, such as `google.protobuf`, are left out.
    pub fn packages(&self) -> impl Iterator<Item = (&str, &str)> {
        let packages = self.packages.values();
        packages.map(|package| (package.name.as_str(), package.text.as_str()))
    }

    /// Returns all packages as one text, to be included in one module.
    ///
    /// The items of the named files' package are at the top level. If there are more packages, each
    /// is in a module with its name, such as `google::rpc`, and the top level re-exports the items
    /// of the named files. If the named files belong to several packages, all items are in modules.
    pub fn nested(&self) -> String {
        modules::nested(&self.packages)
    }

    /// Returns the `.proto` files that were read: the named ones and their imports.
    pub fn sources(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().map(PathBuf::as_path)
    }

    /// Returns all descriptors as a serialized `google.protobuf.FileDescriptorSet`, without comments.
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

/// The options that affect the text.
pub(crate) struct Choices<'a> {
    pub(crate) prost: prost_build::Config,
    pub(crate) names: Names,
    pub(crate) wishes: Wishes<'a>,
    pub(crate) sides: Sides,
    pub(crate) bodies: Bodies,
    pub(crate) client_feature: Option<String>,
    pub(crate) layout: Layout,
}

/// The modules that exist where the text is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// All modules are in one tree; otherwise users include each of them where other modules expect it.
    pub(crate) is_tree: bool,
    /// Only those of named files are written.
    pub(crate) only_named: bool,
    /// Nobody reads the text.
    pub(crate) is_unformatted: bool,
}

/// Generates the Rust of all packages, whose `names` are chosen.
pub(crate) fn generate(
    mut loaded: Loaded,
    choices: Choices<'_>,
) -> Result<Generated, CompileError> {
    let Choices { names, wishes, .. } = choices;
    let mut docs = Docs::default();
    for file in &mut loaded.files {
        docs.take(&mut file.descriptor);
    }
    let modules = modules_by_package(&loaded.files, &names);
    let module_of = |file: &Loading| modules[file.descriptor.package()].clone();
    let (services, names) = (Texts::default(), Rc::new(RefCell::new(names)));
    let mut prost = choices.prost;
    prost.service_generator(Box::new(Generator {
        names: Rc::clone(&names),
        sides: choices.sides,
        bodies: choices.bodies,
        client_feature: choices.client_feature,
        extern_paths: wishes.extern_paths.to_vec(),
        texts: Rc::clone(&services),
    }));
    let used = loaded.files.iter().filter(|it| it.used);
    let requests = used.map(|file| (module_of(file), file.descriptor.clone()));
    let mut messages = prost
        .generate(requests.collect())
        .map_err(|error| CompileError::new(error.to_string()))?;

    let markers = &names.borrow().markers;
    let mut packages = BTreeMap::new();
    let mut written = BTreeMap::new();
    for (module, files) in by_module(&loaded.files, &module_of) {
        let name = markers.proto(files[0].descriptor.package());
        let messages = messages.remove(&module).unwrap_or_default();
        let messages = docs.expand(&markers.expand(&messages));
        let messages = format(&name, &messages, choices.layout)?;
        let services = services.borrow_mut().remove(&module).unwrap_or_default();
        let services = docs.expand(&markers.rust(&services));
        let named = files.iter().any(|file| file.named);
        if messages.is_empty() && services.is_empty() && !named {
            continue;
        }
        if named || !choices.layout.only_named {
            let serves = !services.is_empty();
            written.insert(module.clone(), Written { named, serves });
        }
        let text = header(&files) + &messages + &services;
        packages.insert(module, Package { name, text, named });
    }
    let is_extern = |name: &str| wishes.is_extern(name);
    let is_tree = choices.layout.is_tree;
    let carried = Carried::of(&loaded.files, &written, &module_of, &is_extern, is_tree);
    for (module, package) in &mut packages {
        if carried.is_carrier(module) {
            package.text.push_str(&carried.text(module, &module_of));
        }
    }
    let encoded = loaded.files.iter().map(|file| file.encoded.as_slice());
    Ok(Generated {
        packages,
        descriptor_set: join(encoded),
        sources: loaded
            .files
            .iter()
            .filter_map(|file| file.path.clone())
            .collect(),
    })
}

/// Returns the module of each package.
fn modules_by_package(files: &[Loading], names: &Names) -> BTreeMap<String, Module> {
    let packages = files.iter().map(|file| file.descriptor.package());
    packages
        .map(|package| (package.to_owned(), names.module(package)))
        .collect()
}

fn by_module<'a>(
    files: &'a [Loading],
    module_of: &dyn Fn(&Loading) -> Module,
) -> BTreeMap<Module, Vec<&'a Loading>> {
    let mut modules: BTreeMap<Module, Vec<&Loading>> = BTreeMap::new();
    for file in files.iter().filter(|it| it.used) {
        modules.entry(module_of(file)).or_default().push(file);
    }
    modules
}

fn header(files: &[&Loading]) -> String {
    let names: Vec<&str> = files.iter().map(|file| file.descriptor.name()).collect();
    let names = names.join(", ");
    format!("// @generated by trunkline-build from {names}.\n\n")
}

/// Excepts the messages of a package from lints and lays them out.
fn format(package: &str, text: &str, layout: Layout) -> Result<String, CompileError> {
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
    match layout.is_unformatted {
        #[cfg(feature = "format")]
        false => Ok(prettyplease::unparse(&file)),
        _ => Ok(file.into_token_stream().to_string()),
    }
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
