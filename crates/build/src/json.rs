//! The names of fields in JSON: which of them may be the same.
//!
//! There is no JSON here, but protoc refuses files over it, and descriptors have these names. The
//! compiler inside refuses any two fields with one name, and in proto3 also those whose names differ
//! only in case and underscores. So protoc's rule is applied here, and what the compiler would refuse
//! is hidden from it.

use std::collections::{HashMap, HashSet};

use prost::Message;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

use crate::error::{CompileError, Position};
use crate::raw;

/// Field numbers of `google.protobuf.FileDescriptorProto` and of what is in it.
const MESSAGES: u64 = 4;
const MESSAGES_OF_MESSAGE: u64 = 3;
const FIELDS: u64 = 2;
const NAME: u64 = 1;
const JSON_NAME: u64 = 10;

/// A `google.protobuf.FileDescriptorProto`, as far as JSON goes: prost-types has no features.
#[derive(Clone, PartialEq, Message)]
struct JsonFile {
    #[prost(message, repeated, tag = "4")]
    messages: Vec<JsonMessage>,
    #[prost(message, optional, tag = "8")]
    options: Option<JsonFileOptions>,
    #[prost(string, tag = "12")]
    syntax: String,
}

#[derive(Clone, PartialEq, Message)]
struct JsonMessage {
    #[prost(message, repeated, tag = "3")]
    messages: Vec<Self>,
    #[prost(message, optional, tag = "7")]
    options: Option<JsonMessageOptions>,
}

#[derive(Clone, PartialEq, Message)]
struct JsonFileOptions {
    #[prost(message, optional, tag = "50")]
    features: Option<JsonFeatures>,
}

#[derive(Clone, PartialEq, Message)]
struct JsonMessageOptions {
    #[prost(bool, tag = "11")]
    deprecated_legacy_json_field_conflicts: bool,
    #[prost(message, optional, tag = "12")]
    features: Option<JsonFeatures>,
}

#[derive(Clone, PartialEq, Message)]
struct JsonFeatures {
    #[prost(int32, tag = "6")]
    json_format: i32,
}

/// `FeatureSet.JsonFormat`.
const ALLOW: i32 = 1;
const LEGACY_BEST_EFFORT: i32 = 2;

/// Refuses what protoc refuses: fields of a message with one name in JSON. In proto2, and where the
/// feature `json_format` is LEGACY_BEST_EFFORT, only those whose names are both written out.
///
/// `encoded` is `file` serialized, with its features.
///
/// # Errors
///
/// The second of two such fields.
pub(crate) fn check(file: &FileDescriptorProto, encoded: &[u8]) -> Result<(), CompileError> {
    // descriptor.cc, "CheckFieldJsonNameUniqueness".
    let json = JsonFile::decode(encoded).unwrap_or_default();
    let by_syntax = match json.syntax.as_str() {
        "" | "proto2" => LEGACY_BEST_EFFORT,
        _ => ALLOW,
    };
    let features = json.options.and_then(|it| it.features);
    let format = with(by_syntax, features.as_ref());
    for (index, (message, json)) in (0..).zip(file.message_type.iter().zip(&json.messages)) {
        check_message(file, message, json, format, vec![4, index])?;
    }
    Ok(())
}

fn with(outer: i32, features: Option<&JsonFeatures>) -> i32 {
    match features.map_or(0, |it| it.json_format) {
        0 => outer,
        set => set,
    }
}

fn check_message(
    file: &FileDescriptorProto,
    message: &DescriptorProto,
    json: &JsonMessage,
    outer: i32,
    path: Vec<i32>,
) -> Result<(), CompileError> {
    let options = json.options.as_ref();
    let format = with(outer, options.and_then(|it| it.features.as_ref()));
    if !options.is_some_and(|it| it.deprecated_legacy_json_field_conflicts)
        && let Some((first, second)) = conflict(&message.field, format)
    {
        let place = |at: usize| {
            let at = i32::try_from(at).unwrap_or_default();
            Position::of(file, &[&path[..], &[2, at, 1]].concat())
        };
        let there = place(first).map_or(String::new(), |place| {
            format!(" at {}:{}", place.line, place.column)
        });
        let error = CompileError::new(format!(
            "field '{}' has the JSON name of field '{}'{there}; rename one",
            message.field[second].name(),
            message.field[first].name()
        ));
        return Err(error.at(place(second)));
    }
    for (index, (nested, json)) in (0..).zip(message.nested_type.iter().zip(&json.messages)) {
        let path = [&path[..], &[3, index]].concat();
        check_message(file, nested, json, format, path)?;
    }
    Ok(())
}

/// Two fields that may not be in a message together: the second is the first that there is.
fn conflict(fields: &[FieldDescriptorProto], format: i32) -> Option<(usize, usize)> {
    let (mut names, mut defaults) = (HashMap::new(), HashMap::new());
    for (index, field) in fields.iter().enumerate() {
        let default = by_default(field.name());
        let name = json_name(field);
        if format == LEGACY_BEST_EFFORT && name == default {
            continue;
        }
        let same = *names.entry(name).or_insert(index);
        let same_by_default = match format {
            LEGACY_BEST_EFFORT => index,
            _ => *defaults.entry(default).or_insert(index),
        };
        let first = same.min(same_by_default);
        if first < index {
            return Some((first, index));
        }
    }
    None
}

fn json_name(field: &FieldDescriptorProto) -> String {
    let name = field.json_name.clone();
    name.unwrap_or_else(|| by_default(field.name()))
}

/// descriptor.cc, "ToJsonName".
fn by_default(name: &str) -> String {
    let mut json = String::with_capacity(name.len());
    let mut is_first = false;
    for c in name.chars() {
        match c {
            '_' => is_first = true,
            _ if is_first => {
                json.push(c.to_ascii_uppercase());
                is_first = false;
            }
            _ => json.push(c),
        }
    }
    json
}

/// The fields of a message of proto3 whose names differ from those before them only in case and
/// underscores: the index of each, and the name that the compiler knows it by, which is no other's.
pub(crate) fn stand_ins(message: &DescriptorProto) -> HashMap<usize, String> {
    let letters = |name: &str| name.replace('_', "").to_ascii_lowercase();
    let mut known = HashSet::new();
    let fields = message.field.iter().enumerate();
    let again = fields.filter(|(_, it)| !known.insert(letters(it.name())));
    let again: Vec<(usize, &str)> = again.map(|(index, it)| (index, it.name())).collect();
    let mut stand_ins = HashMap::new();
    for (index, name) in again {
        let mut stand_in = format!("{name}_{index}");
        while !known.insert(letters(&stand_in)) {
            stand_in.push_str("_0");
        }
        stand_ins.insert(index, stand_in);
    }
    stand_ins
}

/// What was hidden of a file: the places of fields, and their names, those for JSON last.
pub(crate) type Hidden = Vec<(raw::Path, String, String)>;

/// Hides what the compiler inside would refuse. Values of options have the [`stand_ins`] by then.
pub(crate) fn hide(file: &mut FileDescriptorProto) -> Hidden {
    let mut hidden = Hidden::new();
    let is_proto3 = file.syntax() == "proto3";
    let mut has_twins = false;
    for (index, message) in file.message_type.iter_mut().enumerate() {
        has_twins |= hide_in(message, is_proto3, vec![(MESSAGES, index)], &mut hidden);
    }
    if has_twins {
        // One name is defined twice, which the compiler says only of proto2 in these words.
        file.syntax = Some("proto2".to_owned());
    }
    hidden
}

/// Returns whether two fields have one name, which is an error.
fn hide_in(
    message: &mut DescriptorProto,
    is_proto3: bool,
    path: raw::Path,
    hidden: &mut Hidden,
) -> bool {
    let own: HashSet<&str> = message.field.iter().map(|it| it.name()).collect();
    let mut has_twins = own.len() < message.field.len();
    let mut stand_ins = match is_proto3 && !has_twins {
        true => stand_ins(message),
        false => HashMap::new(),
    };
    let mut names = HashSet::new();
    for (index, field) in message.field.iter_mut().enumerate() {
        let (name, json) = (field.name().to_owned(), json_name(field));
        let stand_in = stand_ins.remove(&index);
        let is_new = names.insert(json.clone());
        if is_new && stand_in.is_none() {
            continue;
        }
        let mut json_stand_in = json.clone();
        if !is_new {
            json_stand_in = format!("{json} {index}");
            while !names.insert(json_stand_in.clone()) {
                json_stand_in.push(' ');
            }
        }
        field.json_name = Some(json_stand_in);
        field.name = Some(stand_in.unwrap_or_else(|| name.clone()));
        let path = [&path[..], &[(FIELDS, index)]].concat();
        hidden.push((path, name, json));
    }
    for (index, nested) in message.nested_type.iter_mut().enumerate() {
        let path = [&path[..], &[(MESSAGES_OF_MESSAGE, index)]].concat();
        has_twins |= hide_in(nested, is_proto3, path, hidden);
    }
    has_twins
}

/// Takes what [`hide`] did back, in a descriptor and in the same one serialized.
pub(crate) fn show(hidden: &Hidden, file: &mut FileDescriptorProto, encoded: &mut Vec<u8>) {
    let mut changes = raw::Changes::new();
    for (path, name, json) in hidden {
        let texts = [(NAME, name), (JSON_NAME, json)].map(|(number, text)| {
            let mut field = Vec::new();
            raw::push_bytes(&mut field, number, text.as_bytes());
            (number, field)
        });
        changes.insert(path.clone(), texts.into());
        if let Some(field) = field_at(&mut file.message_type, path) {
            field.name = Some(name.clone());
            field.json_name = Some(json.clone());
        }
    }
    *encoded = raw::changed(encoded, &changes);
}

fn field_at<'a>(
    messages: &'a mut [DescriptorProto],
    path: &[(u64, usize)],
) -> Option<&'a mut FieldDescriptorProto> {
    let ((_, index), rest) = path.split_first()?;
    let message = messages.get_mut(*index)?;
    match rest {
        [(FIELDS, index)] => message.field.get_mut(*index),
        _ => field_at(&mut message.nested_type, rest),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_message_of_many_fields_is_checked_and_hidden_in_one_pass() {
        // One of each two is to be hidden. By pairs these would take minutes.
        let fields = (0..20_000).map(|index| FieldDescriptorProto {
            name: Some(match index % 2 {
                0 => format!("a_field{index}"),
                _ => format!("afield{}", index - 1),
            }),
            ..FieldDescriptorProto::default()
        });
        let mut file = FileDescriptorProto {
            syntax: Some("proto3".to_owned()),
            message_type: vec![DescriptorProto {
                field: fields.collect(),
                ..DescriptorProto::default()
            }],
            ..FileDescriptorProto::default()
        };
        let start = Instant::now();
        let original = file.clone();
        check(&file, &file.encode_to_vec()).expect("they are different in JSON");
        let hidden = hide(&mut file);
        assert_eq!(hidden.len(), 10_000);
        assert_ne!(file.message_type[0].field[1].name(), "afield0");
        let mut encoded = file.encode_to_vec();
        show(&hidden, &mut file, &mut encoded);
        let names = |file: &FileDescriptorProto| -> Vec<String> {
            let fields = file.message_type[0].field.iter();
            fields.map(|it| it.name().to_owned()).collect()
        };
        assert_eq!(names(&file), names(&original));
        let decoded = FileDescriptorProto::decode(encoded.as_slice()).expect("it is well formed");
        assert_eq!(decoded, file);
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
    }
}
