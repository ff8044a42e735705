//! Serialized descriptors, changed without a loss.
//!
//! prost-types knows neither editions nor the options that extensions define, so what it has decoded
//! and encodes again is less than what there was. Here fields are taken out and put in as bytes.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

/// Field numbers of `google.protobuf.FileDescriptorProto`.
pub(crate) const DEPENDENCY: u64 = 3;
pub(crate) const SOURCE_CODE_INFO: u64 = 9;
pub(crate) const SYNTAX: u64 = 12;
pub(crate) const EDITION: u64 = 14;
pub(crate) const OPTION_DEPENDENCY: u64 = 15;
/// What buf says about a file; buf/alpha/image/v1/image.proto, `ImageFile.buf_extension`.
pub(crate) const IMAGE_FILE: u64 = 8042;

/// One field of a serialized message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub(crate) number: u64,
    /// The field with its key.
    pub(crate) bytes: &'a [u8],
    /// What is in it, if its length is written before it.
    pub(crate) content: &'a [u8],
}

/// The fields of a serialized message in their order, up to the first that is not one.
pub(crate) fn fields(mut rest: &[u8]) -> impl Iterator<Item = Field<'_>> {
    std::iter::from_fn(move || {
        let (field, after) = field(rest)?;
        rest = after;
        Some(field)
    })
}

fn field(message: &[u8]) -> Option<(Field<'_>, &[u8])> {
    let (key, value) = varint(message)?;
    // encoding.mdx, "Message Structure": groups, 3 and 4, are in no descriptor.
    let (content, after) = match key & 7 {
        0 => (&[][..], varint(value)?.1),
        1 => (&[][..], value.get(8..)?),
        2 => {
            let (length, value) = varint(value)?;
            value.split_at_checked(usize::try_from(length).ok()?)?
        }
        5 => (&[][..], value.get(4..)?),
        _ => return None,
    };
    let field = Field {
        number: key >> 3,
        bytes: &message[..message.len() - after.len()],
        content,
    };
    Some((field, after))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

/// The message without the fields for which `is_unwanted` holds.
pub(crate) fn without(message: &[u8], is_unwanted: impl Fn(&Field<'_>) -> bool) -> Vec<u8> {
    let kept = fields(message).filter(|field| !is_unwanted(field));
    kept.flat_map(|field| field.bytes).copied().collect()
}

/// Where a message is within another: the number of a field, and which of those that have it, and so on
/// from there.
pub(crate) type Path = Vec<(u64, usize)>;

/// Fields to set in messages within a message, each as its number and the whole field.
pub(crate) type Changes = BTreeMap<Path, Vec<(u64, Vec<u8>)>>;

/// The message with `changes` made: a field stands where one of its number stood, or else at the end.
pub(crate) fn changed(message: &[u8], changes: &Changes) -> Vec<u8> {
    if changes.is_empty() {
        return message.to_vec();
    }
    changed_at(&mut Path::new(), message, changes)
}

fn changed_at(path: &mut Path, message: &[u8], changes: &Changes) -> Vec<u8> {
    let own = changes.get(path).map_or(&[][..], Vec::as_slice);
    let mut seen: HashMap<u64, usize> = HashMap::new();
    let mut result = Vec::with_capacity(message.len() + 16);
    for field in fields(message) {
        let count = seen.entry(field.number).or_default();
        path.push((field.number, *count));
        *count += 1;
        let from_here = (Bound::Included(path.as_slice()), Bound::Unbounded);
        let mut next = changes.range::<[(u64, usize)], _>(from_here);
        if next.next().is_some_and(|(it, _)| it.starts_with(path)) {
            let inner = changed_at(path, field.content, changes);
            push_bytes(&mut result, field.number, &inner);
        } else {
            let new = own.iter().find(|(number, _)| *number == field.number);
            result.extend_from_slice(new.map_or(field.bytes, |(_, new)| new));
        }
        path.pop();
    }
    let more = own.iter().filter(|(number, _)| !seen.contains_key(number));
    more.for_each(|(_, new)| result.extend_from_slice(new));
    result
}

pub(crate) fn push_number(message: &mut Vec<u8>, field: u64, value: u64) {
    push_varint(message, field << 3);
    push_varint(message, value);
}

pub(crate) fn push_bytes(message: &mut Vec<u8>, field: u64, value: &[u8]) {
    push_varint(message, field << 3 | 2);
    push_varint(message, value.len() as u64);
    message.extend_from_slice(value);
}

fn push_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorProto;

    use super::*;

    fn file() -> FileDescriptorProto {
        FileDescriptorProto {
            name: Some("a".repeat(300)),
            dependency: vec!["b".to_owned(), "c".to_owned()],
            source_code_info: Some(prost_types::SourceCodeInfo::default()),
            ..FileDescriptorProto::default()
        }
    }

    #[test]
    fn fields_are_taken_out_and_put_in() {
        let bytes = file().encode_to_vec();
        let numbers: Vec<u64> = fields(&bytes).map(|it| it.number).collect();
        assert_eq!(numbers, [1, DEPENDENCY, DEPENDENCY, SOURCE_CODE_INFO]);
        let mut changed = without(&bytes, |it| it.number == DEPENDENCY && it.content == b"b");
        push_bytes(&mut changed, SYNTAX, b"editions");
        push_number(&mut changed, EDITION, 1000);
        let decoded = FileDescriptorProto::decode(changed.as_slice()).expect("it is well formed");
        assert_eq!(decoded.dependency, ["c"]);
        assert_eq!(decoded.syntax(), "editions");
        let last = fields(&changed).last().expect("there are fields");
        assert_eq!(
            (last.number, last.bytes),
            (EDITION, &[0x70, 0xe8, 0x07][..])
        );
    }

    #[test]
    fn fields_are_set_in_messages_within_others() {
        let message = |name: &str, nested_type| prost_types::DescriptorProto {
            name: Some(name.to_owned()),
            nested_type,
            ..prost_types::DescriptorProto::default()
        };
        let outer = message(
            "b",
            vec![message("c", Vec::new()), message("d", Vec::new())],
        );
        let mut file = FileDescriptorProto {
            message_type: vec![message("a", Vec::new()), outer],
            ..file()
        };
        let mut field = Vec::new();
        push_bytes(&mut field, 10, b"reserved");
        let mut name = Vec::new();
        push_bytes(&mut name, 1, b"e");
        let changes = Changes::from([
            (vec![(4, 1)], vec![(1, name)]),
            (vec![(4, 1), (3, 1)], vec![(10, field)]),
        ]);
        let result = changed(&file.encode_to_vec(), &changes);
        let outer = &mut file.message_type[1];
        outer.name = Some("e".to_owned());
        let inner = &mut outer.nested_type[1];
        inner.reserved_name.push("reserved".to_owned());
        assert_eq!(result, file.encode_to_vec());
    }

    #[test]
    fn bytes_that_are_no_message_end_the_fields() {
        let bytes = file().encode_to_vec();
        for end in 0..bytes.len() {
            let taken: usize = fields(&bytes[..end]).map(|it| it.bytes.len()).sum();
            assert!(taken <= end);
        }
        for bytes in [
            &[0xff; 11][..],
            &[0x0b],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],
        ] {
            assert_eq!(fields(bytes).next(), None);
        }
    }
}
