//! Which fields of type `bytes` become a `Bytes`: all that nobody wants as a `Vec<u8>`.

use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

use crate::markers::is_named;

/// The paths of these fields, as prost-build takes them. It knows a list of those that are `Bytes`
/// and nothing to take one out of it, so that each has to be named if there is an exception.
pub(crate) fn shared_fields<'a>(
    files: impl Iterator<Item = &'a FileDescriptorProto>,
    vec_paths: &[String],
) -> Vec<String> {
    if vec_paths.is_empty() {
        return vec![".".to_owned()];
    }
    let mut fields = Vec::new();
    for file in files {
        let package = match file.package() {
            "" => String::new(),
            package => format!(".{package}"),
        };
        for message in &file.message_type {
            collect(message, &package, vec_paths, &mut fields);
        }
    }
    fields
}

/// Adds the fields of `message`, which lies in `scope`, and of those inside.
fn collect(message: &DescriptorProto, scope: &str, vec_paths: &[String], fields: &mut Vec<String>) {
    let name = format!("{scope}.{}", message.name());
    let is_vec = |field: &FieldDescriptorProto| {
        let field = format!("{name}.{}", field.name());
        vec_paths.iter().any(|path| is_named(path, &field))
    };
    // prost-build looks for the value of each map as a field `value` of the message around it. Nothing
    // is said of maps where none has bytes, because there may be a field of that name.
    let (mut maps, mut maps_are_vec) = (false, false);
    for field in &message.field {
        if field.r#type() == Type::Bytes && !is_vec(field) {
            fields.push(format!("{name}.{}", field.name()));
        }
        if is_map_of_bytes(message, field) {
            maps = true;
            maps_are_vec |= is_vec(field);
        }
        maps_are_vec |= field.name() == "value" && is_vec(field);
    }
    if maps && !maps_are_vec {
        fields.push(format!("{name}.value"));
    }
    for nested in message.nested_type.iter().filter(|it| !is_map_entry(it)) {
        collect(nested, &name, vec_paths, fields);
    }
}

fn is_map_of_bytes(message: &DescriptorProto, field: &FieldDescriptorProto) -> bool {
    let entry = field.type_name().rsplit('.').next();
    let mut entries = message.nested_type.iter().filter(|it| is_map_entry(it));
    entries.any(|it| {
        let mut fields = it.field.iter();
        Some(it.name()) == entry
            && fields.any(|it| it.name() == "value" && it.r#type() == Type::Bytes)
    })
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|it| it.map_entry())
}
