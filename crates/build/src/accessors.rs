//! The methods that fields bring, which have to differ from one another.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto};

/// The methods that prost-derive writes for a field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Accessors {
    None,
    /// Of a field that tells whether it is set.
    Get,
    OfEnum,
    OfEnums,
    OfEnumsByKey,
}

impl Accessors {
    /// Those of a field of `message`, whose full name is `scope`.
    pub(crate) fn of(
        field: &FieldDescriptorProto,
        message: &DescriptorProto,
        scope: &str,
        is_proto2: bool,
    ) -> Self {
        let repeated = field.label() == Label::Repeated;
        let entry = message
            .nested_type
            .iter()
            .find(|it| is_map_entry(it) && field.type_name() == format!("{scope}.{}", it.name()));
        let mut values = entry.into_iter().flat_map(|it| &it.field);
        match field.r#type() {
            _ if oneof_of(field).is_some() => Self::None,
            _ if values.any(|it| it.number() == 2 && it.r#type() == Type::Enum) => {
                Self::OfEnumsByKey
            }
            Type::Message | Type::Group => Self::None,
            Type::Enum if repeated => Self::OfEnums,
            Type::Enum => Self::OfEnum,
            _ if field.proto3_optional() => Self::Get,
            _ if is_proto2 && field.label() == Label::Optional => Self::Get,
            _ => Self::None,
        }
    }

    /// The names of the methods of a field of this name.
    pub(crate) fn names(self, field: &str) -> Vec<String> {
        let field = field.trim_start_matches("r#");
        match self {
            Self::None => Vec::new(),
            Self::Get => vec![field.to_owned()],
            Self::OfEnum => vec![field.to_owned(), format!("set_{field}")],
            Self::OfEnums => vec![field.to_owned(), format!("push_{field}")],
            Self::OfEnumsByKey => vec![format!("get_{field}"), format!("insert_{field}")],
        }
    }

    /// Whether prost-derive fails at a field of this name.
    pub(crate) fn are_impossible(self, field: &str) -> bool {
        // It would say `get_r#type`.
        matches!(self, Self::OfEnumsByKey) && field.starts_with("r#")
    }
}

pub(crate) fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|it| it.map_entry())
}

/// The oneof that a field is in, unless that only stands for `optional`.
pub(crate) fn oneof_of(field: &FieldDescriptorProto) -> Option<i32> {
    field.oneof_index.filter(|_| !field.proto3_optional())
}
