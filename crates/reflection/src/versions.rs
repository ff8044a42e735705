//! Versions of one file.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    OneofDescriptorProto, ServiceDescriptorProto,
};

/// The packages of the files that come with each compiler, whose versions differ.
const WELL_KNOWN: [&str; 2] = ["google.protobuf", "google.protobuf.compiler"];

/// Why a file cannot stand for another.
enum Obstacle {
    /// Both define this symbol, in different ways.
    Differs(String),
    /// It does not have this symbol.
    Lacks(String),
}

/// The full names of what a file defines, without what is inside messages.
pub(crate) fn symbols(file: &FileDescriptorProto) -> BTreeSet<String> {
    let messages = file.message_type.iter().map(DescriptorProto::name);
    let enums = file.enum_type.iter().map(EnumDescriptorProto::name);
    // Values are in the scope of their enum's parent, as in C++.
    let values = file.enum_type.iter().flat_map(|it| &it.value);
    let values = values.map(|it| it.name());
    let extensions = file.extension.iter().map(FieldDescriptorProto::name);
    let services = file.service.iter().map(ServiceDescriptorProto::name);
    let names = messages.chain(enums).chain(values);
    let names = names.chain(extensions).chain(services);
    names.map(|name| joined(file.package(), name)).collect()
}

/// Counts the references in a file to what is in `symbols`.
pub(crate) fn references(file: &FileDescriptorProto, symbols: &BTreeSet<String>) -> usize {
    fn of_message<'a>(message: &'a DescriptorProto, all: &mut Vec<&'a str>) {
        all.extend(message.field.iter().map(FieldDescriptorProto::type_name));
        for extension in &message.extension {
            all.extend([extension.extendee(), extension.type_name()]);
        }
        for nested in &message.nested_type {
            of_message(nested, all);
        }
    }
    let mut all = Vec::new();
    for message in &file.message_type {
        of_message(message, &mut all);
    }
    for extension in &file.extension {
        all.extend([extension.extendee(), extension.type_name()]);
    }
    for method in file.service.iter().flat_map(|it| &it.method) {
        all.extend([method.input_type(), method.output_type()]);
    }
    let is_there = |name: &&str| {
        let name = name.trim_start_matches('.');
        let ends = name.match_indices('.').map(|(end, _)| end);
        let mut ends = ends.chain([name.len()]);
        ends.any(|end| symbols.contains(&name[..end]))
    };
    all.iter().filter(|name| is_there(name)).count()
}

/// Checks that `larger`, which defines `shared` as `smaller` does, can stand for it.
///
/// # Errors
///
/// They say different things of a symbol, or each has something that the other lacks.
pub(crate) fn check(
    larger: &FileDescriptorProto,
    smaller: &FileDescriptorProto,
    shared: &str,
) -> Result<(), String> {
    let is_well_known = |file: &FileDescriptorProto| WELL_KNOWN.contains(&file.package());
    if is_well_known(larger) && is_well_known(smaller) {
        return Ok(());
    }
    let Err(obstacle) = covers(larger, smaller) else {
        return Ok(());
    };
    let mut names = [larger.name(), smaller.name()];
    names.sort_unstable();
    let [one, other] = names;
    let files = match one == other {
        true => format!("two files called {one}"),
        false => format!("{one} and {other}"),
    };
    let problem = match (obstacle, covers(smaller, larger)) {
        (Obstacle::Lacks(symbol), Err(Obstacle::Lacks(by_smaller))) => {
            let mut lacking = [(larger.name(), symbol), (smaller.name(), by_smaller)];
            lacking.sort_unstable();
            let [(_, first), (_, second)] = lacking;
            let (one, other) = match one == other {
                true => ("one", "the other"),
                false => (one, other),
            };
            format!(
                "define {shared}, and neither has all that the other has: {one} lacks {first}, {other} \
                 {second}"
            )
        }
        (Obstacle::Differs(symbol), _)
        | (_, Err(Obstacle::Differs(symbol)))
        | (Obstacle::Lacks(symbol), Ok(())) => format!("define {symbol} in different ways"),
    };
    Err(format!(
        "{files} {problem}; compile both from one version of the file, or give them packages of their own"
    ))
}

/// How much a file defines.
pub(crate) fn size(file: &FileDescriptorProto) -> usize {
    fn of_message(message: &DescriptorProto) -> usize {
        let nested = message.nested_type.iter().map(of_message);
        let enums = message.enum_type.iter().map(|it| 1 + it.value.len());
        let inside = nested.chain(enums).sum::<usize>();
        1 + message.field.len() + message.extension.len() + inside
    }
    let messages = file.message_type.iter().map(of_message);
    let enums = file.enum_type.iter().map(|it| 1 + it.value.len());
    let services = file.service.iter().map(|it| 1 + it.method.len());
    let parts = messages.chain(enums).chain(services);
    parts.sum::<usize>() + file.extension.len()
}

/// Finds what `smaller` has and `larger` lacks, or says otherwise. Options and comments may differ.
fn covers(larger: &FileDescriptorProto, smaller: &FileDescriptorProto) -> Result<(), Obstacle> {
    let package = smaller.package();
    messages(package, &larger.message_type, &smaller.message_type)?;
    enums(package, &larger.enum_type, &smaller.enum_type)?;
    fields(package, &larger.extension, &smaller.extension)?;
    for service in &smaller.service {
        let name = joined(package, service.name());
        let mut known = larger.service.iter();
        let known = known.find(|it| it.name() == service.name());
        let known = known.ok_or_else(|| Obstacle::Lacks(name.clone()))?;
        for method in &service.method {
            let name = joined(&name, method.name());
            let mut methods = known.method.iter();
            let Some(known) = methods.find(|it| it.name() == method.name()) else {
                return Err(Obstacle::Lacks(name));
            };
            let is_same = known.input_type() == method.input_type()
                && known.output_type() == method.output_type()
                && known.client_streaming() == method.client_streaming()
                && known.server_streaming() == method.server_streaming();
            if !is_same {
                return Err(Obstacle::Differs(name));
            }
        }
    }
    Ok(())
}

fn messages(
    scope: &str,
    larger: &[DescriptorProto],
    smaller: &[DescriptorProto],
) -> Result<(), Obstacle> {
    let known: HashMap<&str, &DescriptorProto> = larger.iter().map(|it| (it.name(), it)).collect();
    for message in smaller {
        let name = joined(scope, message.name());
        let Some(known) = known.get(message.name()) else {
            return Err(Obstacle::Lacks(name));
        };
        fields(&name, &known.field, &message.field)?;
        let oneofs = oneofs(known);
        for (field, oneof) in self::oneofs(message) {
            if oneofs.get(field) != Some(&oneof) {
                return Err(Obstacle::Differs(joined(&name, field)));
            }
        }
        fields(&name, &known.extension, &message.extension)?;
        messages(&name, &known.nested_type, &message.nested_type)?;
        enums(&name, &known.enum_type, &message.enum_type)?;
    }
    Ok(())
}

/// For each field of a message the oneof that it is in, if any.
fn oneofs(message: &DescriptorProto) -> BTreeMap<&str, Option<&str>> {
    let fields = message.field.iter().map(|field| {
        let place = field.oneof_index.and_then(|it| usize::try_from(it).ok());
        let oneof = place.and_then(|it| message.oneof_decl.get(it));
        (field.name(), oneof.map(OneofDescriptorProto::name))
    });
    fields.collect()
}

fn fields(
    scope: &str,
    larger: &[FieldDescriptorProto],
    smaller: &[FieldDescriptorProto],
) -> Result<(), Obstacle> {
    for field in smaller {
        let known = larger.iter().filter(|it| {
            let is_one = it.number() == field.number() && it.extendee() == field.extendee();
            is_one || it.name() == field.name()
        });
        let mut is_there = false;
        for known in known {
            is_there = true;
            let is_same = known.name() == field.name()
                && known.number() == field.number()
                && known.extendee() == field.extendee()
                && known.r#type() == field.r#type()
                && known.label() == field.label()
                && known.type_name() == field.type_name()
                && known.default_value == field.default_value;
            if !is_same {
                return Err(Obstacle::Differs(joined(scope, field.name())));
            }
        }
        if !is_there {
            return Err(Obstacle::Lacks(joined(scope, field.name())));
        }
    }
    Ok(())
}

fn enums(
    scope: &str,
    larger: &[EnumDescriptorProto],
    smaller: &[EnumDescriptorProto],
) -> Result<(), Obstacle> {
    for declared in smaller {
        let name = joined(scope, declared.name());
        let mut known = larger.iter();
        let known = known.find(|it| it.name() == declared.name());
        let known = known.ok_or_else(|| Obstacle::Lacks(name.clone()))?;
        for value in &declared.value {
            let mut values = known.value.iter();
            let same = values.find(|it| it.name() == value.name());
            let name = joined(&name, value.name());
            let Some(same) = same else {
                return Err(Obstacle::Lacks(name));
            };
            if same.number() != value.number() {
                return Err(Obstacle::Differs(name));
            }
        }
    }
    Ok(())
}

/// A full name from that of a scope, which may be empty.
pub(crate) fn joined(scope: &str, name: &str) -> String {
    match scope {
        "" => name.to_owned(),
        _ => format!("{scope}.{name}"),
    }
}
