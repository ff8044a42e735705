//! Types of `google.protobuf`: which of them prost-types has, and which are generated as any other.
//!
//! prost-types is older than editions, so it lacks `Edition` and `FeatureSet` among others. prost-build
//! takes all that lies in `google.protobuf` from there; where a file uses a type that is not there, it
//! is told of each type what to do.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::DescriptorProto;

use crate::descriptors::Loading;
use crate::error::{CompileError, Position};

const PACKAGE: &str = ".google.protobuf.";

/// The types that prost-types has, without their package, and in brackets what it lacks within them.
const IN_PROST_TYPES: [(&str, &[&str]); 40] = [
    ("Any", &[]),
    ("Api", &[]),
    ("DescriptorProto", &[]),
    ("Duration", &[]),
    ("Enum", &[]),
    ("EnumDescriptorProto", &[]),
    ("EnumOptions", &[]),
    ("EnumValue", &[]),
    ("EnumValueDescriptorProto", &[]),
    ("EnumValueOptions", &[]),
    (
        "ExtensionRangeOptions",
        &["Declaration", "VerificationState"],
    ),
    ("Field", &[]),
    ("FieldDescriptorProto", &[]),
    ("FieldMask", &[]),
    (
        "FieldOptions",
        &[
            "EditionDefault",
            "FeatureSupport",
            "OptionRetention",
            "OptionTargetType",
        ],
    ),
    ("FileDescriptorProto", &[]),
    ("FileDescriptorSet", &[]),
    ("FileOptions", &[]),
    ("GeneratedCodeInfo", &["Semantic"]),
    ("ListValue", &[]),
    ("MessageOptions", &[]),
    ("Method", &[]),
    ("MethodDescriptorProto", &[]),
    ("MethodOptions", &[]),
    ("Mixin", &[]),
    ("NullValue", &[]),
    ("OneofDescriptorProto", &[]),
    ("OneofOptions", &[]),
    ("Option", &[]),
    ("ServiceDescriptorProto", &[]),
    ("ServiceOptions", &[]),
    ("SourceCodeInfo", &[]),
    ("SourceContext", &[]),
    ("Struct", &[]),
    ("Syntax", &[]),
    ("Timestamp", &[]),
    ("Type", &[]),
    ("UninterpretedOption", &[]),
    ("Value", &[]),
    ("compiler", &[]),
];

/// The types that are ones of Rust, as prost-build has them.
const OF_RUST: [(&str, &str); 10] = [
    ("BoolValue", "bool"),
    ("BytesValue", "::trunkline::prost::alloc::vec::Vec<u8>"),
    ("DoubleValue", "f64"),
    ("Empty", "()"),
    ("FloatValue", "f32"),
    ("Int32Value", "i32"),
    ("Int64Value", "i64"),
    ("StringValue", "::trunkline::prost::alloc::string::String"),
    ("UInt32Value", "u32"),
    ("UInt64Value", "u64"),
];

/// Has prost-build generate the types of `google.protobuf` that are used and that prost-types lacks.
///
/// # Errors
///
/// A field of a type that lies in one of prost-types, which lacks it.
pub(crate) fn generate_missing(
    prost: &mut prost_build::Config,
    files: &[Loading],
    extern_paths: &[String],
) -> Result<(), CompileError> {
    let mut uses = Uses {
        types: types(files),
        missing: BTreeSet::new(),
    };
    for file in files.iter().filter(|it| it.used) {
        uses.file(file, extern_paths)?;
    }
    if uses.missing.is_empty() {
        return Ok(());
    }
    prost.compile_well_known_types();
    for name in uses.types.keys().filter(|it| !uses.missing.contains(*it)) {
        let path = format!("{PACKAGE}{name}");
        if extern_paths.contains(&path) {
            continue;
        }
        let mut of_rust = OF_RUST.iter();
        let rust = match of_rust.find(|(it, _)| it == name) {
            Some((_, rust)) => (*rust).to_owned(),
            None => format!("::trunkline::prost_types::{}", name.replace('.', "::")),
        };
        prost.extern_path(path, rust);
    }
    Ok(())
}

/// The types of `google.protobuf` and of packages within it, those within others left out, by their
/// names without that package; a message comes with its descriptor.
fn types(files: &[Loading]) -> BTreeMap<String, Option<&DescriptorProto>> {
    let mut types = BTreeMap::new();
    for file in files {
        let package = format!(".{}.", file.descriptor.package());
        let Some(within) = package.strip_prefix(PACKAGE) else {
            continue;
        };
        let messages = file.descriptor.message_type.iter();
        types.extend(messages.map(|it| (format!("{within}{}", it.name()), Some(it))));
        let enums = file.descriptor.enum_type.iter();
        types.extend(enums.map(|it| (format!("{within}{}", it.name()), None)));
    }
    types
}

/// What files use of `google.protobuf`.
struct Uses<'a> {
    types: BTreeMap<String, Option<&'a DescriptorProto>>,
    /// The types that are to be generated.
    missing: BTreeSet<String>,
}

impl Uses<'_> {
    fn file(&mut self, file: &Loading, extern_paths: &[String]) -> Result<(), CompileError> {
        let is_extern = |name: &str| {
            let mut paths = extern_paths.iter();
            paths.any(|path| {
                format!("{name}.").starts_with(&format!("{}.", path.trim_end_matches('.')))
            })
        };
        let package = format!(".{}.", file.descriptor.package());
        if let Some(within) = package.strip_prefix(PACKAGE) {
            if file.named && !is_extern(package.trim_end_matches('.')) {
                let messages = file.descriptor.message_type.iter().map(|it| it.name());
                let enums = file.descriptor.enum_type.iter().map(|it| it.name());
                for name in messages.chain(enums) {
                    self.used(&format!("{PACKAGE}{within}{name}"));
                }
            }
            return Ok(());
        }
        let mut wrong = None;
        let mut found = |name: &str, path: &[i32]| {
            if !is_extern(name)
                && let Some(within) = self.used(name)
            {
                wrong.get_or_insert_with(|| (within, path.to_vec()));
            }
        };
        for (index, message) in (0..).zip(&file.descriptor.message_type) {
            references(message, &[4, index], &mut found);
        }
        for (service, it) in (0..).zip(&file.descriptor.service) {
            for (method, it) in (0..).zip(&it.method) {
                found(it.input_type(), &[6, service, 2, method, 2]);
                found(it.output_type(), &[6, service, 2, method, 3]);
            }
        }
        wrong.map_or(Ok(()), |(name, path)| {
            let message = format!(
                "google.protobuf.{name} is not in prost-types; give a type of yours with \
                 Config::extern_path(\".google.protobuf.{name}\", ..)"
            );
            let place = Position::of(&file.descriptor, &path);
            Err(file.wrong(CompileError::new(message).at(place)))
        })
    }

    /// Takes note of a type that is used. Returns its name if it can neither be had nor be generated.
    fn used(&mut self, name: &str) -> Option<String> {
        let name = name.strip_prefix(PACKAGE)?;
        let (outer, inner) = name.split_once('.').unwrap_or((name, ""));
        if let Some((_, lacks)) = IN_PROST_TYPES.iter().find(|(it, _)| *it == outer) {
            let is_lacking = inner.split('.').any(|it| lacks.contains(&it));
            return is_lacking.then(|| name.to_owned());
        }
        if OF_RUST.iter().any(|(it, _)| *it == outer) {
            return None;
        }
        // The type itself, or the one that it lies in.
        let known = name.match_indices('.').map(|(at, _)| &name[..at]);
        let known = known
            .chain([name])
            .find(|it| self.types.contains_key(*it))?;
        if self.missing.insert(known.to_owned())
            && let Some(Some(message)) = self.types.get(known).copied()
        {
            let mut fields = Vec::new();
            references(message, &[], &mut |name, _| fields.push(name.to_owned()));
            fields.iter().for_each(|it| {
                self.used(it);
            });
        }
        None
    }
}

/// Calls `found` for each type that a message names, with the place of the name.
fn references(message: &DescriptorProto, path: &[i32], found: &mut impl FnMut(&str, &[i32])) {
    for (index, field) in (0..).zip(&message.field) {
        if !field.type_name().is_empty() {
            found(field.type_name(), &[path, &[2, index, 6]].concat());
        }
    }
    for (index, nested) in (0..).zip(&message.nested_type) {
        references(nested, &[path, &[3, index]].concat(), found);
    }
}
