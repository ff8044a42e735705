//! Versions of one file.

use std::collections::HashMap;

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    ServiceDescriptorProto,
};

/// The package of the files that come with each compiler, whose versions differ.
const WELL_KNOWN: &str = "google.protobuf";

/// The full names of what a file defines, without what is inside messages.
pub(crate) fn symbols(file: &FileDescriptorProto) -> Vec<String> {
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

/// Whether `other`, which defines some of what `file` does, has more than it and can stand for it;
/// otherwise `file` can stand for `other`.
///
/// # Errors
///
/// They say different things of a symbol, or each has a type or a service that the other lacks.
pub(crate) fn larger(
    file: &FileDescriptorProto,
    other: &FileDescriptorProto,
) -> Result<bool, String> {
    let is_larger = size(other) > size(file);
    let (larger, smaller) = match is_larger {
        true => (other, file),
        false => (file, other),
    };
    if larger.package() != WELL_KNOWN || smaller.package() != WELL_KNOWN {
        covers(larger, smaller)?;
    }
    Ok(is_larger)
}

/// How much a file defines.
fn size(file: &FileDescriptorProto) -> usize {
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

/// Finds what `smaller` has and `larger` lacks, or says otherwise. Fields and values may be missing:
/// they come and go while a schema lives.
fn covers(larger: &FileDescriptorProto, smaller: &FileDescriptorProto) -> Result<(), String> {
    let package = smaller.package();
    messages(package, &larger.message_type, &smaller.message_type)?;
    enums(package, &larger.enum_type, &smaller.enum_type)?;
    fields(package, &larger.extension, &smaller.extension)?;
    for extension in &smaller.extension {
        let mut known = larger.extension.iter();
        if !known.any(|it| it.name() == extension.name()) {
            return Err(joined(package, extension.name()));
        }
    }
    for service in &smaller.service {
        let name = joined(package, service.name());
        let mut known = larger.service.iter();
        let known = known.find(|it| it.name() == service.name());
        let known = known.ok_or_else(|| name.clone())?;
        for method in &service.method {
            let mut methods = known.method.iter();
            let is_same = methods.any(|it| {
                it.name() == method.name()
                    && it.input_type() == method.input_type()
                    && it.output_type() == method.output_type()
                    && it.client_streaming() == method.client_streaming()
                    && it.server_streaming() == method.server_streaming()
            });
            if !is_same {
                return Err(joined(&name, method.name()));
            }
        }
    }
    Ok(())
}

fn messages(
    scope: &str,
    larger: &[DescriptorProto],
    smaller: &[DescriptorProto],
) -> Result<(), String> {
    let known: HashMap<&str, &DescriptorProto> = larger.iter().map(|it| (it.name(), it)).collect();
    for message in smaller {
        let name = joined(scope, message.name());
        let is_entry = message.options.as_ref().is_some_and(|it| it.map_entry());
        let Some(known) = known.get(message.name()) else {
            // It goes with its field.
            match is_entry {
                true => continue,
                false => return Err(name),
            }
        };
        fields(&name, &known.field, &message.field)?;
        fields(&name, &known.extension, &message.extension)?;
        messages(&name, &known.nested_type, &message.nested_type)?;
        enums(&name, &known.enum_type, &message.enum_type)?;
    }
    Ok(())
}

fn fields(
    scope: &str,
    larger: &[FieldDescriptorProto],
    smaller: &[FieldDescriptorProto],
) -> Result<(), String> {
    for field in smaller {
        let known = larger.iter().filter(|it| {
            let is_one = it.number() == field.number() && it.extendee() == field.extendee();
            is_one || it.name() == field.name()
        });
        for known in known {
            let is_same = known.name() == field.name()
                && known.number() == field.number()
                && known.extendee() == field.extendee()
                && known.r#type() == field.r#type()
                && known.label() == field.label()
                && known.type_name() == field.type_name();
            if !is_same {
                return Err(joined(scope, field.name()));
            }
        }
    }
    Ok(())
}

fn enums(
    scope: &str,
    larger: &[EnumDescriptorProto],
    smaller: &[EnumDescriptorProto],
) -> Result<(), String> {
    for declared in smaller {
        let name = joined(scope, declared.name());
        let mut known = larger.iter();
        let known = known.find(|it| it.name() == declared.name());
        let known = known.ok_or_else(|| name.clone())?;
        for value in &declared.value {
            let mut values = known.value.iter();
            let same = values.find(|it| it.name() == value.name());
            if same.is_some_and(|it| it.number() != value.number()) {
                return Err(joined(&name, value.name()));
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
