//! Which enums fields may have: an enum may lie in another file, so that all are there first.

use std::collections::HashMap;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto};

use crate::descriptors::Loading;
use crate::error::{CompileError, Position};

/// What matters of an enum to the fields that have it.
#[derive(Clone, Copy)]
struct Traits {
    is_closed: bool,
    begins_with_zero: bool,
}

/// Refuses what protoc refuses: a closed enum in a field that does not tell whether it is set, and a
/// map to an enum whose first value is not 0.
///
/// # Errors
///
/// The first such field.
pub(crate) fn check(files: &[Loading]) -> Result<(), CompileError> {
    let mut enums = HashMap::new();
    for file in files {
        let mut seen = |name: String, it: &EnumDescriptorProto, path: &[i32]| {
            let is_proto2 = matches!(file.descriptor.syntax(), "" | "proto2");
            let traits = Traits {
                is_closed: is_proto2 || file.closed.iter().any(|closed| closed == path),
                begins_with_zero: it.value.first().is_none_or(|value| value.number() == 0),
            };
            enums.insert(name, traits);
        };
        let package = match file.descriptor.package() {
            "" => String::new(),
            package => format!(".{package}"),
        };
        for (index, it) in (0..).zip(&file.descriptor.enum_type) {
            seen(format!("{package}.{}", it.name()), it, &[5, index]);
        }
        for (index, message) in (0..).zip(&file.descriptor.message_type) {
            declared(message, &package, &[4, index], &mut seen);
        }
    }
    for file in files {
        for (index, message) in (0..).zip(&file.descriptor.message_type) {
            fields(file, message, &[4, index], &enums)?;
        }
    }
    Ok(())
}

/// Tells of each enum in a message: its full name and its path.
fn declared(
    message: &DescriptorProto,
    outer: &str,
    path: &[i32],
    seen: &mut impl FnMut(String, &EnumDescriptorProto, &[i32]),
) {
    let name = format!("{outer}.{}", message.name());
    for (index, it) in (0..).zip(&message.enum_type) {
        seen(
            format!("{name}.{}", it.name()),
            it,
            &[path, &[4, index]].concat(),
        );
    }
    for (index, nested) in (0..).zip(&message.nested_type) {
        declared(nested, &name, &[path, &[3, index]].concat(), seen);
    }
}

fn fields(
    file: &Loading,
    message: &DescriptorProto,
    path: &[i32],
    enums: &HashMap<String, Traits>,
) -> Result<(), CompileError> {
    for (index, field) in (0..).zip(&message.field) {
        // descriptor.cc, "ValidateFieldFeatures" and "ValidateMapEntry".
        let traits = enums.get(field.type_name());
        let of_value = map_value(message, field).and_then(|it| enums.get(it.type_name()));
        let cause = if is_implicit(file, field) && traits.is_some_and(|it| it.is_closed) {
            "a closed enum needs a field that tells whether it is set; give the field explicit presence, \
             or make the enum open"
        } else if of_value.is_some_and(|it| !it.begins_with_zero) {
            "the first value of an enum in a map must be 0; change it, or use another type"
        } else {
            continue;
        };
        let place = Position::of(&file.descriptor, &[path, &[2, index, 1]].concat());
        return Err(file.wrong(CompileError::new(cause).at(place)));
    }
    for (index, nested) in (0..).zip(&message.nested_type) {
        let is_entry = nested.options.as_ref().is_some_and(|it| it.map_entry());
        if !is_entry {
            fields(file, nested, &[path, &[3, index]].concat(), enums)?;
        }
    }
    Ok(())
}

/// Whether a field does not tell that it is set. Those of editions are fields of proto3 by now.
fn is_implicit(file: &Loading, field: &FieldDescriptorProto) -> bool {
    file.descriptor.syntax() == "proto3"
        && field.r#type() == Type::Enum
        && field.label() == Label::Optional
        && field.oneof_index.is_none()
        && !field.proto3_optional()
}

/// The value of a map, if `field` is one.
fn map_value<'a>(
    message: &'a DescriptorProto,
    field: &FieldDescriptorProto,
) -> Option<&'a FieldDescriptorProto> {
    let mut entries = message.nested_type.iter();
    let entry = entries.find(|it| {
        let is_entry = it.options.as_ref().is_some_and(|it| it.map_entry());
        let end = format!(".{}.{}", message.name(), it.name());
        is_entry && field.type_name().ends_with(&end)
    })?;
    entry.field.iter().find(|it| it.number() == 2)
}
