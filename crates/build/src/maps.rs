//! Maps: the names of the types of their entries, and, in values of options, the order of their keys.
//!
//! The compiler keeps maps in options in hash maps, so that their order would be another one each time, and leaves
//! out what is empty in an entry. protoc writes keys and values in any case, in the order of the file.

use std::collections::HashSet;

use prost::encoding::decode_varint;
use prost_types::FileDescriptorProto;
use prost_types::field_descriptor_proto::Label;
use protox::prost_reflect::{Kind, MessageDescriptor};

use crate::accessors::is_map_entry;
use crate::error::{CompileError, Position};
use crate::numbers::each_message;
use crate::raw::{self, Field};

/// Refuses a map whose entries would have the name of something else in its message. The compiler, which
/// does not know where entries come from, would say so without a place.
///
/// # Errors
///
/// The first such map.
pub(crate) fn check(file: &mut FileDescriptorProto) -> Result<(), CompileError> {
    let mut wrong = None;
    each_message(file, &mut |path, message| {
        let (entries, types): (Vec<_>, Vec<_>) =
            message.nested_type.iter().partition(|it| is_map_entry(it));
        if entries.is_empty() {
            return;
        }
        let entries: HashSet<&str> = entries.iter().map(|it| it.name()).collect();
        let mut taken: HashSet<&str> = types.iter().map(|it| it.name()).collect();
        taken.extend(message.enum_type.iter().map(|it| it.name()));
        let values = message.enum_type.iter().flat_map(|it| &it.value);
        taken.extend(values.map(|it| it.name()));
        taken.extend(message.oneof_decl.iter().map(|it| it.name()));
        let fields = message.field.iter().chain(&message.extension);
        taken.extend(fields.map(|it| it.name()));
        for (index, field) in (0..).zip(&message.field) {
            let entry = field.type_name();
            let is_map = field.label() == Label::Repeated && entries.contains(entry);
            if is_map && !taken.insert(entry) && wrong.is_none() {
                let message = format!(
                    "the type of the entries of map '{}' would be '{entry}', which is the name of \
                     something else in the message; rename one",
                    field.name()
                );
                wrong = Some((message, [path, &[2, index, 1]].concat()));
            }
        }
    });
    wrong.map_or(Ok(()), |(message, path)| {
        Err(CompileError::new(message).at(Position::of(file, &path)))
    })
}

/// The key of an entry, as it is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(i128),
    Text(Vec<u8>),
}

/// A serialized message `of`, with its maps in order, and those of all that it holds.
pub(crate) fn in_order(message: &[u8], of: &MessageDescriptor) -> Vec<u8> {
    let fields: Vec<Field<'_>> = raw::fields(message).collect();
    let length: usize = fields.iter().map(|field| field.bytes.len()).sum();
    if length < message.len() {
        // There is a group in it.
        return message.to_vec();
    }
    let mut ordered = Vec::with_capacity(length);
    let mut rest = fields.as_slice();
    while let Some(first) = rest.first() {
        let count = rest.iter().take_while(|it| it.number == first.number);
        let (same, after) = rest.split_at(count.count());
        rest = after;
        match message_in(first, of) {
            Some(inner) if inner.is_map_entry() => {
                let mut entries: Vec<(Key, Vec<u8>)> =
                    same.iter().map(|it| entry(it.content, &inner)).collect();
                entries.sort_by(|(one, _), (other, _)| one.cmp(other));
                for (_, entry) in entries {
                    raw::push_bytes(&mut ordered, first.number, &entry);
                }
            }
            Some(inner) => {
                for field in same {
                    raw::push_bytes(&mut ordered, field.number, &in_order(field.content, &inner));
                }
            }
            None => same
                .iter()
                .for_each(|field| ordered.extend_from_slice(field.bytes)),
        }
    }
    ordered
}

/// The message that the value of a field is, unless it is a group.
fn message_in(field: &Field<'_>, of: &MessageDescriptor) -> Option<MessageDescriptor> {
    let number = u32::try_from(field.number).ok()?;
    let kind = of.get_field(number).map(|it| it.kind());
    let kind = kind.or_else(|| of.get_extension(number).map(|it| it.kind()))?;
    let has_length = field.bytes.first().is_some_and(|key| key & 7 == 2);
    kind.as_message().filter(|_| has_length).cloned()
}

/// An entry of a map that has its key and its value, and the key.
fn entry(entry: &[u8], of: &MessageDescriptor) -> (Key, Vec<u8>) {
    let find = |number: u64| raw::fields(entry).find(|it| it.number == number);
    let (key_kind, value_kind) = (
        of.map_entry_key_field().kind(),
        of.map_entry_value_field().kind(),
    );
    let mut whole = Vec::with_capacity(entry.len() + 4);
    let key = match find(1) {
        Some(field) => field.bytes.to_vec(),
        None => empty(1, &key_kind),
    };
    whole.extend_from_slice(&key);
    match (find(2), value_kind) {
        (Some(field), Kind::Message(inner)) => {
            raw::push_bytes(&mut whole, 2, &in_order(field.content, &inner));
        }
        (Some(field), _) => whole.extend_from_slice(field.bytes),
        (None, kind) => whole.extend_from_slice(&empty(2, &kind)),
    }
    (compared(&key[1..], &key_kind), whole)
}

/// A field without anything in it.
fn empty(number: u8, kind: &Kind) -> Vec<u8> {
    let (wire, length) = match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => (1, 8),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => (5, 4),
        Kind::String | Kind::Bytes | Kind::Message(_) => (2, 1),
        Kind::Enum(of) => {
            let mut field = Vec::new();
            let first = i64::from(of.default_value().number());
            raw::push_number(&mut field, number.into(), first as u64);
            return field;
        }
        _ => (0, 1),
    };
    let mut field = vec![number << 3 | wire];
    field.resize(1 + length, 0);
    field
}

fn compared(value: &[u8], kind: &Kind) -> Key {
    let fixed = || {
        let mut bytes = [0; 8];
        let length = value.len().min(8);
        bytes[..length].copy_from_slice(&value[..length]);
        u64::from_le_bytes(bytes)
    };
    let number = || decode_varint(&mut &*value).unwrap_or_default();
    Key::Number(match kind {
        Kind::String => {
            let mut text = value;
            let _ = decode_varint(&mut text);
            return Key::Text(text.to_vec());
        }
        Kind::Int32 | Kind::Int64 => (number() as i64).into(),
        Kind::Sint32 | Kind::Sint64 => {
            let number = i128::from(number());
            if number & 1 == 0 {
                number / 2
            } else {
                -(number / 2) - 1
            }
        }
        Kind::Sfixed32 => (fixed() as i32).into(),
        Kind::Sfixed64 => (fixed() as i64).into(),
        Kind::Fixed32 | Kind::Fixed64 => fixed().into(),
        _ => number().into(),
    })
}
