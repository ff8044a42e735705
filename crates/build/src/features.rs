//! Translates the features of editions into a form that prost-build supports.
//!
//! A file of an edition has features instead of a syntax: for each field they say whether it tells
//! that it is set, how its elements are packed, and how its message is framed. A feature that is not
//! set on an item has the value of what the item lies in, and at last that of the edition. prost-build
//! knows the two syntaxes only, so each field is made a field of proto3 that is the same in Rust and
//! the same on the wire:
//!
//! | feature | of a field | becomes |
//! | --- | --- | --- |
//! | `field_presence` | `EXPLICIT` | `optional` |
//! | | `IMPLICIT` | no label |
//! | | `LEGACY_REQUIRED` | `required` |
//! | `repeated_field_encoding` | `PACKED`, `EXPANDED` | the option `packed` |
//! | `message_encoding` | `DELIMITED` | a group |
//! | `enum_type` | `CLOSED`, `OPEN` | the same: prost keeps numbers that have no name |
//! | `utf8_validation` | `NONE` | the same: a `String` is UTF-8 |
//! | `json_format` | | nothing: see `json` |
//!
//! Only what is generated sees this. The descriptors for reflection are those of the edition.

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
};

use crate::error::{CompileError, Position};
use crate::source::Edition;

/// A `google.protobuf.FileDescriptorProto`, as far as features go: prost-types has none of them.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FileFeatures {
    #[prost(message, repeated, tag = "4")]
    messages: Vec<MessageFeatures>,
    #[prost(message, repeated, tag = "5")]
    enums: Vec<EnumFeatures>,
    #[prost(message, optional, tag = "8")]
    options: Option<FileOptions>,
    #[prost(string, tag = "12")]
    syntax: String,
    #[prost(int32, tag = "14")]
    edition: i32,
}

#[derive(Clone, PartialEq, Message)]
struct MessageFeatures {
    #[prost(message, repeated, tag = "2")]
    fields: Vec<FieldFeatures>,
    #[prost(message, repeated, tag = "3")]
    messages: Vec<Self>,
    #[prost(message, repeated, tag = "4")]
    enums: Vec<EnumFeatures>,
    #[prost(message, optional, tag = "7")]
    options: Option<MessageOptions>,
    #[prost(message, repeated, tag = "8")]
    oneofs: Vec<OneofFeatures>,
}

#[derive(Clone, PartialEq, Message)]
struct FieldFeatures {
    #[prost(message, optional, tag = "8")]
    options: Option<FieldOptions>,
}

#[derive(Clone, PartialEq, Message)]
struct OneofFeatures {
    #[prost(message, optional, tag = "2")]
    options: Option<OneofOptions>,
}

#[derive(Clone, PartialEq, Message)]
struct EnumFeatures {
    #[prost(message, optional, tag = "3")]
    options: Option<EnumOptions>,
}

#[derive(Clone, PartialEq, Message)]
struct FileOptions {
    #[prost(message, optional, tag = "50")]
    features: Option<FeatureSet>,
}

#[derive(Clone, PartialEq, Message)]
struct MessageOptions {
    #[prost(message, optional, tag = "12")]
    features: Option<FeatureSet>,
}

#[derive(Clone, PartialEq, Message)]
struct FieldOptions {
    #[prost(bool, optional, tag = "2")]
    packed: Option<bool>,
    #[prost(message, optional, tag = "21")]
    features: Option<FeatureSet>,
}

#[derive(Clone, PartialEq, Message)]
struct OneofOptions {
    #[prost(message, optional, tag = "1")]
    features: Option<FeatureSet>,
}

#[derive(Clone, PartialEq, Message)]
struct EnumOptions {
    #[prost(message, optional, tag = "7")]
    features: Option<FeatureSet>,
}

/// `google.protobuf.FeatureSet`, without what does not matter to messages of Rust.
#[derive(Clone, PartialEq, Message)]
struct FeatureSet {
    #[prost(enumeration = "FieldPresence", optional, tag = "1")]
    field_presence: Option<i32>,
    #[prost(enumeration = "EnumType", optional, tag = "2")]
    enum_type: Option<i32>,
    #[prost(enumeration = "RepeatedFieldEncoding", optional, tag = "3")]
    repeated_field_encoding: Option<i32>,
    #[prost(enumeration = "MessageEncoding", optional, tag = "5")]
    message_encoding: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum FieldPresence {
    Unknown = 0,
    Explicit = 1,
    Implicit = 2,
    LegacyRequired = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum EnumType {
    Unknown = 0,
    Open = 1,
    Closed = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum RepeatedFieldEncoding {
    Unknown = 0,
    Packed = 1,
    Expanded = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum MessageEncoding {
    Unknown = 0,
    LengthPrefixed = 1,
    Delimited = 2,
}

impl FileFeatures {
    /// The features in a serialized `FileDescriptorProto`.
    ///
    /// # Errors
    ///
    /// Bytes that are no such message.
    pub(crate) fn of(encoded: &[u8]) -> Result<Self, CompileError> {
        Self::decode(encoded)
            .map_err(|error| CompileError::new(format!("not a file descriptor: {error}")))
    }

    /// Makes `file`, which these features are of, one of proto3, if it is of an edition. Gives the paths
    /// of its closed enums, as in `google.protobuf.SourceCodeInfo`.
    ///
    /// # Errors
    ///
    /// An edition that is not known, or features that contradict what they are set on.
    pub(crate) fn lower(
        &self,
        file: &mut FileDescriptorProto,
    ) -> Result<Vec<Vec<i32>>, CompileError> {
        match self.syntax.as_str() {
            "" | "proto2" | "proto3" => return Ok(Vec::new()),
            "editions" => {}
            other => {
                let message =
                    format!("syntax \"{other}\" is not supported; write syntax = \"proto3\"");
                return Err(CompileError::new(message));
            }
        }
        let known = Edition::ALL.iter().any(|it| it.number() == self.edition);
        if !known {
            let message = format!(
                "edition {} is not supported; supported editions are 2023 and 2024",
                // descriptor.proto, `Edition`: 1000 is 2023, and each edition is one more.
                self.edition.saturating_add(1023)
            );
            return Err(CompileError::new(message));
        }
        let set = self.options.as_ref().and_then(|it| it.features.as_ref());
        // feature_set: "defaults" of editions 2023 and 2024 are the same for these.
        let features = Features {
            presence: FieldPresence::Explicit,
            enums: EnumType::Open,
            repeated: RepeatedFieldEncoding::Packed,
            encoding: MessageEncoding::LengthPrefixed,
        }
        .with(set);
        let mut lowered = std::mem::take(&mut file.message_type);
        let mut walk = Walk {
            file,
            path: Vec::new(),
            closed: Vec::new(),
        };
        if features.presence == FieldPresence::LegacyRequired {
            let message = "LEGACY_REQUIRED does not apply to a whole file; set it on fields";
            return Err(walk.error(message));
        }
        for (index, (message, own)) in (0..).zip(lowered.iter_mut().zip(&self.messages)) {
            walk.within([4, index], |walk| walk.message(message, own, features))?;
        }
        for (index, (it, own)) in (0..).zip(walk.file.enum_type.iter().zip(&self.enums)) {
            walk.within([5, index], |walk| walk.enumeration(it, own, features))?;
        }
        let closed = walk.closed;
        file.message_type = lowered;
        file.syntax = Some("proto3".to_owned());
        Ok(closed)
    }
}

/// The features of an item, those it has from what it lies in among them.
#[derive(Clone, Copy, Debug)]
struct Features {
    presence: FieldPresence,
    enums: EnumType,
    repeated: RepeatedFieldEncoding,
    encoding: MessageEncoding,
}

impl Features {
    fn with(mut self, set: Option<&FeatureSet>) -> Self {
        let Some(set) = set else {
            return self;
        };
        if set.field_presence() != FieldPresence::Unknown {
            self.presence = set.field_presence();
        }
        if set.enum_type() != EnumType::Unknown {
            self.enums = set.enum_type();
        }
        if set.repeated_field_encoding() != RepeatedFieldEncoding::Unknown {
            self.repeated = set.repeated_field_encoding();
        }
        if set.message_encoding() != MessageEncoding::Unknown {
            self.encoding = set.message_encoding();
        }
        self
    }
}

/// Goes through what is in a file.
struct Walk<'a> {
    file: &'a FileDescriptorProto,
    /// Where the walk is, as in `google.protobuf.SourceCodeInfo`.
    path: Vec<i32>,
    /// The paths of closed enums.
    closed: Vec<Vec<i32>>,
}

impl Walk<'_> {
    fn message(
        &mut self,
        message: &mut DescriptorProto,
        own: &MessageFeatures,
        outer: Features,
    ) -> Result<(), CompileError> {
        if message.options.as_ref().is_some_and(|it| it.map_entry()) {
            return Ok(());
        }
        let set = own.options.as_ref().and_then(|it| it.features.as_ref());
        self.belongs(set, &[])?;
        let features = outer.with(set);
        let oneofs: Vec<Features> = own
            .oneofs
            .iter()
            .map(|it| features.with(it.options.as_ref().and_then(|it| it.features.as_ref())))
            .collect();
        let maps = maps(message);
        for (index, (field, own)) in (0..).zip(message.field.iter_mut().zip(&own.fields)) {
            let oneof = field.oneof_index.and_then(|it| usize::try_from(it).ok());
            let outer = oneof.and_then(|it| oneofs.get(it)).unwrap_or(&features);
            let is_map = maps.iter().any(|it| it == field.type_name());
            self.within([2, index], |walk| walk.field(field, own, *outer, is_map))?;
        }
        for (index, (it, own)) in (0..).zip(message.nested_type.iter_mut().zip(&own.messages)) {
            self.within([3, index], |walk| walk.message(it, own, features))?;
        }
        for (index, (it, own)) in (0..).zip(message.enum_type.iter().zip(&own.enums)) {
            self.within([4, index], |walk| walk.enumeration(it, own, features))?;
        }
        Ok(())
    }

    fn field(
        &self,
        field: &mut FieldDescriptorProto,
        own: &FieldFeatures,
        outer: Features,
        is_map: bool,
    ) -> Result<(), CompileError> {
        let options = own.options.as_ref();
        let set = options.and_then(|it| it.features.as_ref());
        self.belongs(
            set,
            &[FIELD_PRESENCE, REPEATED_FIELD_ENCODING, MESSAGE_ENCODING],
        )?;
        if options.is_some_and(|it| it.packed.is_some()) {
            let message = "editions have no option `packed`; say features.repeated_field_encoding = \
                           PACKED or EXPANDED";
            return Err(self.error(message));
        }
        let features = outer.with(set);
        // editions/features.mdx, "features.message_encoding": a map and what it holds are not delimited.
        let is_message = field.r#type() == Type::Message;
        if is_message && !is_map && features.encoding == MessageEncoding::Delimited {
            field.set_type(Type::Group);
        }
        let is_singular = field.label() != Label::Repeated;
        if let Some(presence) = set.and_then(|it| it.field_presence) {
            self.presence_is_right(field, presence)?;
        }
        if !is_singular {
            if is_packable(field.r#type()) {
                let packed = features.repeated == RepeatedFieldEncoding::Packed;
                field.options.get_or_insert_default().packed = Some(packed);
            }
        } else if field.oneof_index.is_none() {
            match features.presence {
                FieldPresence::LegacyRequired => field.set_label(Label::Required),
                FieldPresence::Implicit if !is_message => {
                    if field.default_value.is_some() {
                        let message = "a field with a default tells whether it is set; give it \
                                       [features.field_presence = EXPLICIT], or no default";
                        return Err(self.error(message));
                    }
                }
                // A group of proto3 is an `Option` only if it says so; a message is one in any case.
                _ if field.r#type() == Type::Message => {}
                _ => field.proto3_optional = Some(true),
            }
        }
        Ok(())
    }

    /// editions/features.mdx, "features.field_presence": not on fields of oneofs, and not on those
    /// that are repeated; a message always tells whether it is set.
    fn presence_is_right(
        &self,
        field: &FieldDescriptorProto,
        presence: i32,
    ) -> Result<(), CompileError> {
        let implicit = presence == FieldPresence::Implicit as i32;
        let message = if field.label() == Label::Repeated {
            "features.field_presence does not apply to repeated fields; remove it"
        } else if field.oneof_index.is_some() {
            "features.field_presence does not apply to fields of a oneof; remove it"
        } else if implicit && matches!(field.r#type(), Type::Message | Type::Group) {
            "message fields always track presence; remove features.field_presence"
        } else {
            return Ok(());
        };
        Err(self.error(message))
    }

    fn enumeration(
        &mut self,
        it: &EnumDescriptorProto,
        own: &EnumFeatures,
        outer: Features,
    ) -> Result<(), CompileError> {
        let set = own.options.as_ref().and_then(|it| it.features.as_ref());
        self.belongs(set, &[ENUM_TYPE])?;
        let first = it.value.first().map_or(0, |value| value.number());
        if outer.with(set).enums == EnumType::Closed {
            self.closed.push(self.path.clone());
            return Ok(());
        }
        if first == 0 {
            return Ok(());
        }
        let message = "the first value of an open enum is 0; make it so, or say option \
                       features.enum_type = CLOSED";
        self.within([2, 0], |walk| Err(walk.error(message)))
    }

    /// Refuses features that are not for such an item: `known` are.
    fn belongs(&self, set: Option<&FeatureSet>, known: &[&str]) -> Result<(), CompileError> {
        let Some(set) = set else {
            return Ok(());
        };
        let found = [
            (FIELD_PRESENCE, set.field_presence.is_some()),
            (ENUM_TYPE, set.enum_type.is_some()),
            (
                REPEATED_FIELD_ENCODING,
                set.repeated_field_encoding.is_some(),
            ),
            (MESSAGE_ENCODING, set.message_encoding.is_some()),
        ];
        let misplaced = found
            .iter()
            .find(|(name, set)| *set && !known.contains(name));
        misplaced.map_or(Ok(()), |(name, _)| {
            let places = match *name {
                ENUM_TYPE => "the file or on enums",
                _ => "the file or on fields",
            };
            Err(self.error(&format!(
                "features.{name} does not apply here; set it on {places}"
            )))
        })
    }

    fn within(
        &mut self,
        step: [i32; 2],
        walk: impl FnOnce(&mut Self) -> Result<(), CompileError>,
    ) -> Result<(), CompileError> {
        self.path.extend(step);
        let result = walk(self);
        self.path.truncate(self.path.len() - step.len());
        result
    }

    /// An error at the name of what the walk is at.
    fn error(&self, message: &str) -> CompileError {
        let mut path = self.path.clone();
        path.push(1);
        CompileError::new(message).at(Position::of(self.file, &path))
    }
}

const FIELD_PRESENCE: &str = "field_presence";
const ENUM_TYPE: &str = "enum_type";
const REPEATED_FIELD_ENCODING: &str = "repeated_field_encoding";
const MESSAGE_ENCODING: &str = "message_encoding";

/// The full names of the entries of maps in `message`, by their ends, since names are unique there.
fn maps(message: &DescriptorProto) -> Vec<String> {
    let nested = message.nested_type.iter();
    let entries = nested.filter(|it| it.options.as_ref().is_some_and(|it| it.map_entry()));
    let entries: Vec<String> = entries
        .map(|it| format!(".{}.{}", message.name(), it.name()))
        .collect();
    let fields = message.field.iter().map(|it| it.type_name());
    fields
        .filter(|name| entries.iter().any(|entry| name.ends_with(entry)))
        .map(str::to_owned)
        .collect()
}

/// encoding.mdx, "Packed Repeated Fields": all scalars but strings and bytes.
fn is_packable(of: Type) -> bool {
    !matches!(of, Type::String | Type::Bytes | Type::Message | Type::Group)
}
