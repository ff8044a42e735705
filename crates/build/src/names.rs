//! Names that differ in a `.proto` file and would be the same in Rust.
//!
//! Rust has other cases than protobuf, so two names may become one. For types, fields, values and
//! methods that is an error here, at the line of the second name, rather than in generated code.
//! What is generated for a service has no name in the file, so it steps aside instead.

use std::collections::{HashMap, HashSet};

use heck::{ToShoutySnakeCase, ToSnakeCase, ToUpperCamelCase};
use prost_types::{DescriptorProto, EnumDescriptorProto, ServiceDescriptorProto};

use crate::descriptors::Loading;
use crate::error::{CompileError, Position};

/// How values of enums are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnumPrefix {
    /// `STATE_OPEN` of `State` becomes `Open`.
    Strip,
    /// `STATE_OPEN` of `State` becomes `StateOpen`.
    Retain,
}

/// The constant with the descriptors of a package.
pub(crate) const DESCRIPTOR_SET: &str = "FILE_DESCRIPTOR_SET";

/// The names taken in each package, by the name of the package.
#[derive(Debug, Default)]
pub(crate) struct Names(HashMap<String, HashSet<String>>);

/// The names of what is generated for one service.
#[derive(Debug)]
pub(crate) struct ServiceNames {
    pub(crate) handlers: String,
    pub(crate) client: String,
    pub(crate) server: String,
}

impl Names {
    /// Collects the names of all types.
    ///
    /// # Errors
    ///
    /// Two names of a file, or of a package, that are the same in Rust.
    pub(crate) fn of(
        files: &[Loading],
        prefix: EnumPrefix,
        extern_paths: &[String],
    ) -> Result<Self, CompileError> {
        let mut scopes = Scopes::default();
        let packages = packages(files, extern_paths);
        for file in files.iter().filter(|it| it.used) {
            Walk {
                file,
                prefix,
                packages: &packages,
                scopes: &mut scopes,
                path: Vec::new(),
            }
            .file()?;
        }
        let mut names = Self::default();
        for (scope, taken) in scopes.0 {
            if let Scope::Types(package) = scope {
                let taken = taken.into_keys().chain([DESCRIPTOR_SET.to_owned()]);
                names.0.insert(package, taken.collect());
            }
        }
        Ok(names)
    }

    /// Names for a service that no type of its package has: `Greeter` where that is free, else
    /// `GreeterService`.
    pub(crate) fn service(&mut self, package: &str, name: &str) -> ServiceNames {
        let taken = self.0.entry(package.to_owned()).or_default();
        // `Self` is no name in Rust, hence `Self_`; with more behind it, it is one.
        let mut stem = name.trim_end_matches('_').to_owned();
        let mut handlers = name.to_owned();
        loop {
            let (client, server) = (format!("{stem}Client"), format!("{stem}Server"));
            let names = [&stem, &client, &server];
            if !names.iter().any(|name| taken.contains(*name)) {
                taken.extend(names.into_iter().cloned());
                return ServiceNames {
                    handlers,
                    client,
                    server,
                };
            }
            stem.push_str("Service");
            handlers.clone_from(&stem);
        }
    }

    /// The name of the constant for a method.
    pub(crate) fn constant(&mut self, package: &str, service: &str, method: &str) -> String {
        let taken = self.0.entry(package.to_owned()).or_default();
        let mut name = format!(
            "{}_{}",
            service.to_shouty_snake_case(),
            method.to_shouty_snake_case()
        );
        // `User.ListAll` and `UserList.All` would both be USER_LIST_ALL.
        while !taken.insert(name.clone()) {
            name.push('_');
        }
        name
    }
}

/// The packages that become modules, and what they lie in, by the paths of those modules.
fn packages<'a>(files: &'a [Loading], extern_paths: &[String]) -> HashMap<String, &'a str> {
    let is_extern = |package: &str| {
        let mut paths = extern_paths.iter();
        paths.any(|path| format!(".{package}.").starts_with(&format!("{path}.")))
    };
    let used = files.iter().filter(|it| it.used);
    let packages = used.map(|file| file.descriptor.package());
    packages
        .filter(|package| !package.is_empty() && !is_extern(package))
        .flat_map(|package| {
            let above = package.match_indices('.').map(|(at, _)| &package[..at]);
            above.chain([package])
        })
        .map(|package| (module_path(package), package))
        .collect()
}

/// The path of a module as prost-build makes it from a full name.
fn module_path(full: &str) -> String {
    let parts: Vec<String> = full.split('.').map(ToSnakeCase::to_snake_case).collect();
    parts.join(".")
}

/// Where a name must be the only one of its kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Scope {
    /// Messages and enums of a package or a message.
    Types(String),
    Fields(String),
    Variants(String),
    Service(String),
    Methods(String),
}

/// In each scope, what a Rust name comes from.
#[derive(Debug, Default)]
struct Scopes(HashMap<Scope, HashMap<String, String>>);

/// Goes through the names of one file.
struct Walk<'a> {
    file: &'a Loading,
    prefix: EnumPrefix,
    /// The packages that become modules, and what they lie in, by the paths of those modules.
    packages: &'a HashMap<String, &'a str>,
    scopes: &'a mut Scopes,
    /// Where the walk is, as in `google.protobuf.SourceCodeInfo`.
    path: Vec<i32>,
}

impl Walk<'_> {
    fn file(mut self) -> Result<(), CompileError> {
        let file = &self.file.descriptor;
        let package = file.package();
        // The scope exists, so that a package without types is known as well.
        let scope = Scope::Types(package.to_owned());
        self.scopes.0.entry(scope).or_default();
        for (index, message) in (0..).zip(&file.message_type) {
            self.within([4, index], |walk| walk.message(package, message))?;
        }
        for (index, of) in (0..).zip(&file.enum_type) {
            self.within([5, index], |walk| walk.enumeration(package, of))?;
        }
        for (index, service) in (0..).zip(&file.service) {
            self.within([6, index], |walk| walk.service(package, service))?;
        }
        Ok(())
    }

    fn message(&mut self, parent: &str, message: &DescriptorProto) -> Result<(), CompileError> {
        let is_map_entry = message.options.as_ref().is_some_and(|it| it.map_entry());
        if is_map_entry {
            return Ok(());
        }
        let rust = message.name().to_upper_camel_case();
        self.claim(Scope::Types(parent.to_owned()), message.name(), rust)?;

        let full = format!("{parent}.{}", message.name());
        let fields = Scope::Fields(full.clone());
        let mut oneofs = HashSet::new();
        for (index, field) in (0..).zip(&message.field) {
            let name = field.name();
            let oneof = field.oneof_index.filter(|_| !field.proto3_optional());
            oneofs.extend(oneof);
            let (scope, rust) = match oneof {
                None => (fields.clone(), name.to_snake_case()),
                Some(oneof) => (
                    Scope::Variants(format!("{full}.{oneof}")),
                    name.to_upper_camel_case(),
                ),
            };
            self.within([2, index], |walk| walk.claim(scope, name, rust))?;
        }
        self.module(&full, message, !oneofs.is_empty())?;
        for (index, oneof) in (0..).zip(&message.oneof_decl) {
            if oneofs.contains(&index) {
                let (scope, rust) = (fields.clone(), oneof.name().to_snake_case());
                self.within([8, index], |walk| walk.claim(scope, oneof.name(), rust))?;
            }
        }
        for (index, nested) in (0..).zip(&message.nested_type) {
            self.within([3, index], |walk| walk.message(&full, nested))?;
        }
        for (index, nested) in (0..).zip(&message.enum_type) {
            self.within([4, index], |walk| walk.enumeration(&full, nested))?;
        }
        Ok(())
    }

    /// What a message has inside lies in a module, which a package may have taken.
    fn module(
        &self,
        full: &str,
        message: &DescriptorProto,
        has_oneof: bool,
    ) -> Result<(), CompileError> {
        let is_entry = |it: &DescriptorProto| it.options.as_ref().is_some_and(|it| it.map_entry());
        let has_types = !message.nested_type.iter().all(is_entry) || !message.enum_type.is_empty();
        let module = module_path(full.trim_start_matches('.'));
        match self.packages.get(&module) {
            Some(package) if has_types || has_oneof => Err(self.error(&format!(
                "the module for what is inside {} is also that of package {package}; rename one, \
                 or compile them apart",
                message.name()
            ))),
            _ => Ok(()),
        }
    }

    fn enumeration(&mut self, parent: &str, of: &EnumDescriptorProto) -> Result<(), CompileError> {
        let rust = of.name().to_upper_camel_case();
        self.claim(Scope::Types(parent.to_owned()), of.name(), rust.clone())?;
        let mut numbers = HashSet::new();
        for (index, value) in (0..).zip(&of.value) {
            // An alias is not generated: only the first value of a number is.
            if !numbers.insert(value.number()) {
                continue;
            }
            let scope = Scope::Variants(format!("{parent}.{}", of.name()));
            let variant = variant(&rust, value.name(), self.prefix);
            self.within([2, index], |walk| walk.claim(scope, value.name(), variant))?;
        }
        Ok(())
    }

    fn service(
        &mut self,
        package: &str,
        service: &ServiceDescriptorProto,
    ) -> Result<(), CompileError> {
        // Services step aside when names are chosen for them, so each has a scope of its own here.
        let scope = Scope::Service(format!("{package}.{}", service.name()));
        self.claim(scope, service.name(), service.name().to_upper_camel_case())?;
        for (index, method) in (0..).zip(&service.method) {
            let scope = Scope::Methods(format!("{package}.{}", service.name()));
            let rust = method.name().to_snake_case();
            self.within([2, index], |walk| walk.claim(scope, method.name(), rust))?;
        }
        Ok(())
    }

    fn within(
        &mut self,
        step: [i32; 2],
        walk: impl FnOnce(&mut Self) -> Result<(), CompileError>,
    ) -> Result<(), CompileError> {
        self.path.extend(step);
        let result = walk(self);
        self.path.truncate(self.path.len() - step.len());
        result
    }

    fn claim(&mut self, scope: Scope, name: &str, rust: String) -> Result<(), CompileError> {
        if rust.is_empty() {
            return Err(self.error(&format!("{name} has no letter and no digit; rename it")));
        }
        let way_out = match (&scope, self.prefix) {
            (Scope::Variants(_), EnumPrefix::Strip) => {
                "rename one, or give Config::retain_enum_prefix in a build script"
            }
            _ => "rename one",
        };
        let taken = self.scopes.0.entry(scope).or_default();
        let Some(other) = taken.insert(rust.clone(), name.to_owned()) else {
            return Ok(());
        };
        let message = format!("{other} and {name} both become {rust} in Rust; {way_out}");
        Err(self.error(&message))
    }

    /// An error at the name of whatever the walk is at.
    fn error(&self, message: &str) -> CompileError {
        let mut path = self.path.clone();
        path.push(1);
        let error = CompileError::new(message).at(Position::of(&self.file.descriptor, &path));
        self.file.wrong(error)
    }
}

/// The name of a value as prost-build makes it.
fn variant(of: &str, value: &str, prefix: EnumPrefix) -> String {
    let variant = value.to_upper_camel_case();
    if prefix == EnumPrefix::Retain {
        return variant;
    }
    match variant.strip_prefix(of) {
        // What goes on in lower case only begins with the same letters.
        Some(rest) if rest.starts_with(char::is_uppercase) => rest.to_owned(),
        _ => variant,
    }
}
