//! The names of fields in JSON: which of them may be the same.
//!
//! There is no JSON here, but protoc refuses files over it, and descriptors have these names. The
//! compiler inside refuses any two fields with one name, and in proto3 also those whose names differ
//! only in case and underscores. So protoc's rule is applied here, and what the compiler would refuse
//! is hidden from it.

use std::collections::HashSet;

use prost::Message;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

use crate::error::{CompileError, Position};
use crate::raw;

/// Field numbers of `google.protobuf.FileDescriptorProto` and of what is in it.
const MESSAGES: u64 = 4;
const MESSAGES_OF_MESSAGE: u64 = 3;
const FIELDS: u64 = 2;
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
    if !options.is_some_and(|it| it.deprecated_legacy_json_field_conflicts) {
        for (second, field) in message.field.iter().enumerate() {
            let before = message.field[..second].iter();
            if let Some(first) = before.clone().position(|it| conflict(it, field, format)) {
                let place = |at: usize| {
                    let at = i32::try_from(at).unwrap_or_default();
                    Position::of(file, &[&path[..], &[2, at, 1]].concat())
                };
                let other = &message.field[first];
                let there = place(first).map_or(String::new(), |place| {
                    format!(" at {}:{}", place.line, place.column)
                });
                let error = CompileError::new(format!(
                    "field '{}' has the JSON name of field '{}'{there}; rename one",
                    field.name(),
                    other.name()
                ));
                return Err(error.at(place(second)));
            }
        }
    }
    for (index, (nested, json)) in (0..).zip(message.nested_type.iter().zip(&json.messages)) {
        let path = [&path[..], &[3, index]].concat();
        check_message(file, nested, json, format, path)?;
    }
    Ok(())
}

/// Whether two fields of one message may not be in it together.
fn conflict(one: &FieldDescriptorProto, other: &FieldDescriptorProto, format: i32) -> bool {
    let by_default = |it: &FieldDescriptorProto| by_default(it.name());
    let name = |it: &FieldDescriptorProto| it.json_name.clone().unwrap_or_else(|| by_default(it));
    let is_custom = |it: &FieldDescriptorProto| name(it) != by_default(it);
    let same = name(one) == name(other);
    match format {
        LEGACY_BEST_EFFORT => same && is_custom(one) && is_custom(other),
        _ => same || by_default(one) == by_default(other),
    }
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

/// What was hidden of a file.
#[derive(Debug, Default)]
pub(crate) struct Hidden {
    /// It is one of proto3, and was shown as one of proto2.
    is_proto3: bool,
    /// The place of a field, from the file on: a number and which of those that have it. And its name.
    names: Vec<(Vec<(u64, usize)>, String)>,
}

/// Hides what the compiler inside would refuse.
pub(crate) fn hide(file: &mut FileDescriptorProto) -> Hidden {
    let mut hidden = Hidden::default();
    for (index, message) in file.message_type.iter_mut().enumerate() {
        hide_in(message, vec![(MESSAGES, index)], &mut hidden);
    }
    hidden.is_proto3 &= file.syntax() == "proto3";
    if hidden.is_proto3 {
        file.syntax = Some("proto2".to_owned());
    }
    hidden
}

fn hide_in(message: &mut DescriptorProto, path: Vec<(u64, usize)>, hidden: &mut Hidden) {
    let (mut names, mut letters) = (HashSet::new(), HashSet::new());
    for (index, field) in message.field.iter_mut().enumerate() {
        let json = field
            .json_name
            .clone()
            .unwrap_or_else(|| by_default(field.name()));
        let lower = field.name().replace('_', "").to_ascii_lowercase();
        hidden.is_proto3 |= !letters.insert(lower);
        if !names.insert(json.clone()) {
            let mut stand_in = format!("{json} {index}");
            while !names.insert(stand_in.clone()) {
                stand_in.push(' ');
            }
            field.json_name = Some(stand_in);
            let path = [&path[..], &[(FIELDS, index)]].concat();
            hidden.names.push((path, json));
        }
    }
    for (index, nested) in message.nested_type.iter_mut().enumerate() {
        let path = [&path[..], &[(MESSAGES_OF_MESSAGE, index)]].concat();
        hide_in(nested, path, hidden);
    }
}

/// Takes what [`hide`] did back, in a descriptor and in the same one serialized.
pub(crate) fn show(hidden: &Hidden, file: &mut FileDescriptorProto, encoded: &mut Vec<u8>) {
    if hidden.is_proto3 {
        file.syntax = Some("proto3".to_owned());
        *encoded = with_text(encoded, raw::SYNTAX, "proto3");
    }
    for (path, name) in &hidden.names {
        *encoded = raw::changed(encoded, path, &|field| with_text(field, JSON_NAME, name));
        if let Some(field) = field_at(&mut file.message_type, path) {
            field.json_name = Some(name.clone());
        }
    }
}

/// The message with another text in its field `number`.
fn with_text(message: &[u8], number: u64, text: &str) -> Vec<u8> {
    let mut changed = Vec::with_capacity(message.len());
    for field in raw::fields(message) {
        match field.number == number {
            true => raw::push_bytes(&mut changed, number, text.as_bytes()),
            false => changed.extend_from_slice(field.bytes),
        }
    }
    changed
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
