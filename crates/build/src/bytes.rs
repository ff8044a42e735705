//! Which fields of type `bytes` become a `Bytes`: all that nobody wants as a `Vec<u8>`.

use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorProto};

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
        file.message_type
            .iter()
            .for_each(|message| collect(message, &package, &mut fields));
    }
    fields.retain(|field| !vec_paths.iter().any(|path| names(path, field)));
    fields
}

/// Adds the fields of `message`, which lies in `scope`, and of those inside.
fn collect(message: &DescriptorProto, scope: &str, fields: &mut Vec<String>) {
    let name = format!("{scope}.{}", message.name());
    let mut add = |from: &DescriptorProto| {
        let of_bytes = from.field.iter().filter(|it| it.r#type() == Type::Bytes);
        fields.extend(of_bytes.map(|field| format!("{name}.{}", field.name())));
    };
    add(message);
    // prost-build looks for the value of a map as a field of the message around it.
    let (maps, messages): (Vec<_>, Vec<_>) = message
        .nested_type
        .iter()
        .partition(|it| it.options.as_ref().is_some_and(|it| it.map_entry()));
    maps.into_iter().for_each(add);
    for nested in messages {
        collect(nested, &name, fields);
    }
}

/// Whether `path`, as users write one, names `field`, which is a full name.
fn names(path: &str, field: &str) -> bool {
    if path == "." || path == field {
        return true;
    }
    match path.starts_with('.') {
        true => field
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('.')),
        false => field
            .strip_suffix(path)
            .is_some_and(|rest| rest.ends_with('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_what_prost_build_would_take_it_for() {
        let field = ".shop.v1.Order.signature";
        for path in [
            ".",
            ".shop",
            ".shop.v1",
            ".shop.v1.Order",
            ".shop.v1.Order.signature",
            "shop.v1.Order.signature",
            "Order.signature",
            "signature",
        ] {
            assert!(names(path, field), "{path}");
        }
        for path in [
            "",
            ".sho",
            ".shop.v",
            "shop",
            "nature",
            "rder.signature",
            ".Order.signature",
            ".shop.v1.Order.signature.x",
        ] {
            assert!(!names(path, field), "{path}");
        }
    }
}
