//! The names that everything has in Rust.
//!
//! Rust has other cases than protobuf, knows other words, and puts next to one another what protobuf
//! keeps apart, so two names may become one, or one that cannot be. The first to have a name keeps
//! it; each that comes later in the file, or in a later file of the package, gets an underscore more
//! at its end. What is generated for a service has no name in the file, so it steps aside as a whole.

use std::collections::{BTreeMap, HashMap, HashSet};

use heck::{ToShoutySnakeCase, ToUpperCamelCase};
use prost_build::Module;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};

use crate::accessors::{Accessors, is_map_entry, oneof_of};
use crate::descriptors::Loading;
use crate::markers::{Markers, is_named};

/// How values of enums are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnumPrefix {
    /// `STATE_OPEN` of `State` becomes `Open`.
    Strip,
    /// `STATE_OPEN` of `State` becomes `StateOpen`.
    Retain,
}

/// What users have chosen about names.
#[derive(Debug)]
pub(crate) struct Wishes<'a> {
    pub(crate) prefix: EnumPrefix,
    /// What is not generated, by its path in protobuf.
    pub(crate) extern_paths: &'a [String],
    /// What is named as if the file called it so, by its path in protobuf.
    pub(crate) renames: &'a [(String, String)],
}

/// The static with the descriptors of a package, and the start of those with one for each file.
pub(crate) const DESCRIPTORS: &str = "FILE_DESCRIPTORS";

/// Enums of these names would be hidden by what prost-derive has in its functions.
const OF_DERIVE: [&str; 4] = ["KeyWrapper", "MapWrapper", "ScalarWrapper", "ValueWrapper"];

/// A client has these names for itself: two constructors, two methods for its channel, and what the
/// prelude gives every type that can be cloned, which would win over a method, or lose to it.
const OF_CLIENT: [&str; 7] = [
    "new",
    "connect",
    "channel",
    "with_channel",
    "clone",
    "into",
    "try_into",
];

/// The names of all files.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) markers: Markers,
    /// Types and modules by the module that they are in.
    taken: HashMap<Module, Taken>,
    /// By the full names of services and methods.
    services: HashMap<String, String>,
    methods: HashMap<String, MethodNames>,
}

/// The names of what is generated for one service.
#[derive(Debug)]
pub(crate) struct ServiceNames {
    pub(crate) handlers: String,
    pub(crate) client: String,
    pub(crate) server: String,
    /// The type that has the table of methods.
    pub(crate) methods: String,
}

/// The names of one method.
#[derive(Clone, Debug)]
pub(crate) struct MethodNames {
    pub(crate) handler: String,
    pub(crate) client: String,
}

/// The names of one kind in one place.
#[derive(Debug, Default)]
struct Taken(HashSet<String>);

impl Taken {
    /// The first that is free of `name`, `name_`, `name__` and so on.
    fn claim(&mut self, name: String) -> String {
        self.claim_if(name, |_| true)
    }

    fn claim_if(&mut self, mut name: String, is_free: impl Fn(&str) -> bool) -> String {
        while self.0.contains(&name) || !is_free(&name) {
            name = format!("{}_", name.trim_start_matches("r#"));
        }
        self.0.insert(name.clone());
        name
    }
}

impl Names {
    /// Chooses all names, and gives `files` what makes prost-build use them.
    pub(crate) fn choose(files: &mut [Loading], wishes: &Wishes<'_>) -> Self {
        let mut names = Self::default();
        let mut order: Vec<usize> = (0..files.len()).filter(|&at| files[at].used).collect();
        order.sort_by(|&a, &b| {
            let name = |at: usize| files[at].descriptor.name();
            name(a).cmp(name(b))
        });
        let packages: Vec<String> = order
            .iter()
            .map(|&at| files[at].descriptor.package().to_owned())
            .collect();
        let packages = names.packages(&packages, wishes);
        let mut enums = HashMap::new();
        for at in order {
            let file = &mut files[at].descriptor;
            let (old, new) = (file.package().to_owned(), packages[file.package()].clone());
            let module = names.module(&new);
            names.methods(file, wishes);
            let types = names.taken.entry(module).or_insert_with(types);
            let mut walk = Walk {
                wishes,
                is_proto2: matches!(file.syntax(), "" | "proto2"),
                markers: &mut names.markers,
                enums: &mut enums,
            };
            walk.file(file, &old, &new, types);
            if old != new {
                file.package = Some(new);
            }
        }
        for file in files.iter_mut() {
            file.descriptor
                .message_type
                .iter_mut()
                .for_each(|it| defaults(it, &enums));
            names.markers.refer(&mut file.descriptor);
        }
        names
    }

    /// The module of a package, by its name in the descriptors.
    pub(crate) fn module(&self, package: &str) -> Module {
        let module = Module::from_protobuf_package_name(package);
        Module::from_parts(module.parts().map(|part| self.markers.rust(part)))
    }

    /// Names for a service that no type of its package has: `Greeter` where that is free, else
    /// `GreeterService`. `full` is its name in the file, `name` what prost-build makes of it.
    pub(crate) fn service(&mut self, module: &Module, full: &str, name: &str) -> ServiceNames {
        let wanted = self.services.get(full);
        let name = wanted.map_or_else(|| name.to_owned(), |wanted| camel(wanted));
        let taken = &mut self.taken.entry(module.clone()).or_insert_with(types).0;
        // `Self` is no name in Rust, hence `Self_`; with more behind it, it is one.
        let mut stem = name.trim_end_matches('_').to_owned();
        let mut handlers = name;
        loop {
            let [client, server, methods] =
                ["Client", "Server", "Methods"].map(|end| format!("{stem}{end}"));
            let names = [&stem, &handlers, &client, &server, &methods];
            if !names.iter().any(|name| taken.contains(*name)) {
                taken.extend(names.into_iter().cloned());
                return ServiceNames {
                    handlers,
                    client,
                    server,
                    methods,
                };
            }
            stem.push_str("Service");
            handlers.clone_from(&stem);
        }
    }

    /// The name of the constant for a method.
    pub(crate) fn constant(&mut self, module: &Module, service: &str, method: &str) -> String {
        let taken = self.taken.entry(module.clone()).or_insert_with(types);
        let part = |name: &str| match name.to_shouty_snake_case() {
            name if name.is_empty() => "UNNAMED".to_owned(),
            name => name,
        };
        let (service, method) = (part(service), part(method));
        let starts_with_digit = service.starts_with(|it: char| it.is_ascii_digit());
        let start = if starts_with_digit { "_" } else { "" };
        // `User.ListAll` and `UserList.All` would both be USER_LIST_ALL.
        let is_free = |name: &str| {
            let is_number = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit());
            let after = name.strip_prefix(DESCRIPTORS);
            !after.is_some_and(|it| it.is_empty() || it.strip_prefix('_').is_some_and(is_number))
        };
        taken.claim_if(format!("{start}{service}_{method}"), is_free)
    }

    /// The names of a method, by the full name of its service.
    pub(crate) fn method(&self, service: &str, method: &str) -> &MethodNames {
        &self.methods[&format!("{service}.{method}")]
    }

    /// The names of packages in the descriptors, by those in the files.
    fn packages(&mut self, packages: &[String], wishes: &Wishes<'_>) -> BTreeMap<String, String> {
        let mut renamed = BTreeMap::new();
        for package in packages {
            let (mut old, mut new) = (String::new(), String::new());
            if package.is_empty() || wishes.is_extern(&format!(".{package}")) {
                renamed.insert(package.clone(), package.clone());
                continue;
            }
            for part in package.split('.') {
                let (above, dot) = (self.module(&new), if new.is_empty() { "" } else { "." });
                old = format!("{old}.{part}");
                let rust = snake(wishes.name(&old, part));
                // Packages that differ only in case are one module.
                let taken = self.taken.entry(above).or_insert_with(types);
                taken.0.insert(rust.clone());
                let known = renamed.get(&old[1..]).cloned();
                let is_same = snake(part) == rust && !part.to_upper_camel_case().is_empty();
                new = known.unwrap_or_else(|| match is_same {
                    true => format!("{new}{dot}{part}"),
                    false => {
                        let marker = self.markers.mark(part, &rust, &rust);
                        format!("{new}{dot}{marker}")
                    }
                });
                self.markers.changed(&old, &format!(".{new}"));
                renamed.insert(old[1..].to_owned(), new.clone());
            }
        }
        renamed
    }

    /// Chooses the names of methods, for handlers and for clients.
    fn methods(&mut self, file: &FileDescriptorProto, wishes: &Wishes<'_>) {
        for service in &file.service {
            let full = joined(file.package(), service.name());
            let (mut handlers, mut clients) = (Taken::default(), Taken::default());
            clients.0.extend(OF_CLIENT.map(str::to_owned));
            for method in &service.method {
                let name = format!("{full}.{}", method.name());
                let wanted = snake(wishes.name(&format!(".{name}"), method.name()));
                let names = MethodNames {
                    handler: handlers.claim(wanted.clone()),
                    client: clients.claim(wanted),
                };
                self.methods.insert(name, names);
            }
            let wanted = wishes.name(&format!(".{full}"), service.name());
            self.services.insert(full, wanted.to_owned());
        }
    }
}

impl Wishes<'_> {
    /// Whether a type or a package comes from elsewhere.
    pub(crate) fn is_extern(&self, full: &str) -> bool {
        let mut paths = self.extern_paths.iter();
        paths.any(|path| path.starts_with('.') && is_named(path, full))
    }

    /// What is named `name` unless users wish something else.
    fn name<'a>(&'a self, full: &str, name: &'a str) -> &'a str {
        let wish = self.renames.iter().rev().find(|(path, _)| path == full);
        wish.map_or(name, |(_, wish)| wish)
    }
}

/// The names of types and modules that a module has from the start: that which is named where users
/// write `trunkline::include_proto!`.
fn types() -> Taken {
    Taken(HashSet::from(["trunkline".to_owned()]))
}

/// A full name from that of a scope, which may be empty.
pub(crate) fn joined(scope: &str, name: &str) -> String {
    match scope {
        "" => name.to_owned(),
        _ => format!("{scope}.{name}"),
    }
}

/// As prost-build names fields, modules and methods.
fn snake(name: &str) -> String {
    let module = Module::from_protobuf_package_name(name).to_string();
    match module.is_empty() {
        true => "unnamed".to_owned(),
        false => module,
    }
}

/// As prost-build names types and variants.
fn camel(name: &str) -> String {
    let camel = name.to_upper_camel_case();
    match camel.chars().next() {
        None => "Unnamed".to_owned(),
        Some(first) if first.is_numeric() => format!("_{camel}"),
        Some(_) if camel == "Self" => "Self_".to_owned(),
        Some(_) => camel,
    }
}

/// The name of a value as prost-build makes it.
fn variant(of: &str, value: &str, prefix: EnumPrefix) -> String {
    let variant = camel(value);
    if prefix == EnumPrefix::Retain {
        return variant;
    }
    match variant.strip_prefix(of) {
        Some("Self") => "Self_".to_owned(),
        // What goes on in lower case only begins with the same letters.
        Some(rest) if rest.starts_with(char::is_uppercase) => rest.to_owned(),
        _ => variant,
    }
}

/// For each value of each enum, the name in the descriptors of the one that is generated for it: of
/// several with one number only the first is. By the full names of enums in the files.
type Values = HashMap<String, HashMap<String, String>>;

/// Names the values that fields have by default as the descriptors do.
fn defaults(message: &mut DescriptorProto, enums: &Values) {
    for field in &mut message.field {
        let values = field.type_name.as_deref().and_then(|name| enums.get(name));
        if let Some(default) = &mut field.default_value
            && let Some(value) = values.and_then(|values| values.get(default.as_str()))
        {
            default.clone_from(value);
        }
    }
    for nested in &mut message.nested_type {
        defaults(nested, enums);
    }
}

/// Goes through the names of one file.
struct Walk<'a> {
    wishes: &'a Wishes<'a>,
    is_proto2: bool,
    markers: &'a mut Markers,
    enums: &'a mut Values,
}

impl Walk<'_> {
    fn file(&mut self, file: &mut FileDescriptorProto, old: &str, new: &str, types: &mut Taken) {
        let scope = |package: &str| match package {
            "" => String::new(),
            package => format!(".{package}"),
        };
        let (old, new) = (scope(old), scope(new));
        for message in &mut file.message_type {
            self.message(message, &old, &new, types);
        }
        for of in &mut file.enum_type {
            self.enumeration(of, &old, &new, types);
        }
    }

    fn message(&mut self, message: &mut DescriptorProto, old: &str, new: &str, types: &mut Taken) {
        let proto = message.name().to_owned();
        let old = format!("{old}.{proto}");
        if is_map_entry(message) || self.wishes.is_extern(&old) {
            self.keep(message, &old, &format!("{new}.{proto}"));
            return;
        }
        let wanted = self.wishes.name(&old, &proto).to_owned();
        let rust = types.claim(camel(&wanted));
        let has_types =
            !message.nested_type.iter().all(is_map_entry) || !message.enum_type.is_empty();
        let module = match has_types || message.field.iter().any(|it| oneof_of(it).is_some()) {
            // What has got underscores has them in both names.
            true => types.claim(format!(
                "{}{}",
                snake(&wanted),
                &rust[camel(&wanted).len()..]
            )),
            false => snake(&proto),
        };
        if camel(&proto) != rust
            || snake(&proto) != module
            || proto.to_upper_camel_case().is_empty()
        {
            message.name = Some(self.markers.mark(&proto, &rust, &module));
        }
        let new = format!("{new}.{}", message.name());
        self.markers.changed(&old, &new);

        let mut inside = self::types();
        for nested in &mut message.nested_type {
            self.message(nested, &old, &new, &mut inside);
        }
        for nested in &mut message.enum_type {
            self.enumeration(nested, &old, &new, &mut inside);
        }
        self.fields(message, &old, &new, &mut inside);
    }

    /// Notes the names of what is in a message that is not generated.
    fn keep(&mut self, message: &DescriptorProto, old: &str, new: &str) {
        self.markers.changed(old, new);
        for nested in &message.nested_type {
            let name = nested.name();
            self.keep(nested, &format!("{old}.{name}"), &format!("{new}.{name}"));
        }
        for nested in &message.enum_type {
            let name = nested.name();
            self.keep_enum(nested, format!("{old}.{name}"), &format!("{new}.{name}"));
        }
    }

    fn keep_enum(&mut self, of: &EnumDescriptorProto, old: String, new: &str) {
        self.markers.changed(&old, new);
        let (mut first, mut values) = (HashMap::new(), HashMap::new());
        for value in &of.value {
            let name = *first.entry(value.number()).or_insert_with(|| value.name());
            values.insert(value.name().to_owned(), name.to_owned());
        }
        self.enums.insert(old, values);
    }

    fn fields(&mut self, message: &mut DescriptorProto, old: &str, new: &str, types: &mut Taken) {
        let accessors = message.field.iter();
        let accessors = accessors.map(|it| Accessors::of(it, message, old, self.is_proto2));
        let accessors: Vec<Accessors> = accessors.collect();
        let (mut fields, mut methods) = (Taken::default(), HashSet::new());
        let mut variants: HashMap<i32, Taken> = HashMap::new();
        let mut paths = Vec::new();
        for (field, accessors) in message.field.iter_mut().zip(accessors) {
            let proto = field.name().to_owned();
            let full = format!("{old}.{proto}");
            let wanted = self.wishes.name(&full, &proto);
            let (is_same, rust) = match oneof_of(field) {
                None => {
                    let is_free = |it: &str| {
                        !accessors.are_impossible(it)
                            && accessors.names(it).iter().all(|it| !methods.contains(it))
                    };
                    let rust = fields.claim_if(snake(wanted), is_free);
                    methods.extend(accessors.names(&rust));
                    (snake(&proto) == rust, rust)
                }
                Some(oneof) => {
                    let rust = variants.entry(oneof).or_default().claim(camel(wanted));
                    (camel(&proto) == rust, rust)
                }
            };
            if !is_same || proto.to_upper_camel_case().is_empty() {
                field.name = Some(self.markers.mark(&proto, &rust, &rust));
            }
            paths.push((oneof_of(field), proto, field.name().to_owned()));
        }
        self.oneofs(message, old, &mut fields, types);
        for (oneof, old_name, new_name) in paths {
            let (old, new) = (format!("{old}."), format!("{new}."));
            self.markers
                .changed(&format!("{old}{old_name}"), &format!("{new}{new_name}"));
            let oneof = oneof.and_then(|it| usize::try_from(it).ok());
            if let Some((was, is)) = oneof.and_then(|it| message.oneof_decl.get(it)).map(|it| {
                let is = it.name();
                (self.markers.proto(is), is)
            }) {
                self.markers
                    .changed(&format!("{old}{was}"), &format!("{new}{is}"));
                self.markers.changed(
                    &format!("{old}{was}.{old_name}"),
                    &format!("{new}{is}.{new_name}"),
                );
            }
        }
    }

    /// Names the fields and the types of oneofs.
    fn oneofs(
        &mut self,
        message: &mut DescriptorProto,
        old: &str,
        fields: &mut Taken,
        types: &mut Taken,
    ) {
        let real: HashSet<i32> = message.field.iter().filter_map(oneof_of).collect();
        let messages = message.nested_type.iter().map(DescriptorProto::name);
        let enums = message.enum_type.iter().map(EnumDescriptorProto::name);
        let inside: HashSet<String> = messages.chain(enums).map(camel).collect();
        for (_, oneof) in (0..)
            .zip(&mut message.oneof_decl)
            .filter(|(at, _)| real.contains(at))
        {
            let proto = oneof.name().to_owned();
            let wanted = self.wishes.name(&format!("{old}.{proto}"), &proto);
            let field = fields.claim(snake(wanted));
            // As prost-build has it where a type has the name.
            let with_end = |name: String, is_taken: bool| match is_taken {
                true => format!("{name}OneOf"),
                false => name,
            };
            let name = camel(wanted);
            let rust = match types.0.contains(&name) {
                // `Self_` has its underscore at the end, or it would not be in camel case.
                true => with_end(name.trim_end_matches('_').to_owned(), true),
                false => name,
            };
            let rust = types.claim(rust);
            let name = camel(&proto);
            let is_taken = inside.contains(&name);
            if snake(&proto) != field
                || with_end(name, is_taken) != rust
                || proto.to_upper_camel_case().is_empty()
            {
                oneof.name = Some(self.markers.mark(&proto, &rust, &field));
            }
        }
    }

    fn enumeration(
        &mut self,
        of: &mut EnumDescriptorProto,
        old: &str,
        new: &str,
        types: &mut Taken,
    ) {
        let proto = of.name().to_owned();
        let old = format!("{old}.{proto}");
        if self.wishes.is_extern(&old) {
            self.keep_enum(of, old, &format!("{new}.{proto}"));
            return;
        }
        let wanted = self.wishes.name(&old, &proto).to_owned();
        let is_free = |it: &str| !OF_DERIVE.contains(&it);
        let rust = types.claim_if(camel(&wanted), is_free);
        if camel(&proto) != rust || proto.to_upper_camel_case().is_empty() {
            of.name = Some(self.markers.mark(&proto, &rust, &rust));
        }
        let new = format!("{new}.{}", of.name());
        self.markers.changed(&old, &new);

        let (of_values, in_descriptor) = (camel(&proto), camel(of.name()));
        let prefix = self.wishes.prefix;
        let (mut variants, mut first) = (Taken::default(), HashMap::new());
        let mut values = HashMap::new();
        for value in &mut of.value {
            let proto = value.name().to_owned();
            // An alias is not generated: only the first value of a number is.
            let name = first.entry(value.number()).or_insert_with(|| {
                let path = format!("{old}.{proto}");
                let wanted = self.wishes.name(&path, &proto);
                let rust = variants.claim(variant(&of_values, wanted, prefix));
                if variant(&in_descriptor, &proto, prefix) != rust
                    || proto.to_upper_camel_case().is_empty()
                {
                    value.name = Some(self.markers.mark(&proto, &rust, &rust));
                }
                self.markers
                    .changed(&path, &format!("{new}.{}", value.name()));
                value.name().to_owned()
            });
            values.insert(proto, name.clone());
        }
        self.enums.insert(old, values);
    }
}
