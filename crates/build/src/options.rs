//! Values of options, written so that the compiler takes all that protoc takes.
//!
//! Options of `float` and `double` may be `inf` and `nan`; a message in braces may name extensions by
//! relative names; and `packed` is for the values of options as well, which the compiler overlooks.

use std::collections::HashMap;
use std::ops::Range;

use prost_types::{FieldDescriptorProto, FileDescriptorProto, UninterpretedOption};

use crate::names::joined;
use crate::numbers::each_message;
use crate::symbols::{Symbols, Value, View, Wanted};
use crate::tokens::{Kind, Token, tokens};

/// Sets the option `packed` of fields, so that the compiler knows of it before it writes the values of
/// options: it would go by the syntax of the file.
pub(crate) fn set_packed(file: &mut FileDescriptorProto) {
    // The paths of the options, whose places move to the field that is set.
    let mut taken: Vec<(Vec<i32>, i32)> = Vec::new();
    let mut set = |field: &mut FieldDescriptorProto, path: &[i32]| {
        let Some(options) = &mut field.options else {
            return;
        };
        let is_packed = |it: &UninterpretedOption| match it.name.as_slice() {
            [name] => name.name_part == "packed" && !name.is_extension,
            _ => false,
        };
        let mut all = options.uninterpreted_option.iter();
        let Some(index) = all.position(is_packed) else {
            return;
        };
        let value = options.uninterpreted_option[index].identifier_value();
        options.packed = match value {
            "true" => Some(true),
            "false" => Some(false),
            _ => return,
        };
        options.uninterpreted_option.remove(index);
        let path = [path, &[8, 999]].concat();
        taken.push((path, i32::try_from(index).unwrap_or(i32::MAX)));
    };
    for (index, extension) in (0..).zip(&mut file.extension) {
        set(extension, &[7, index]);
    }
    each_message(file, &mut |path, message| {
        for (index, field) in (0..).zip(&mut message.field) {
            set(field, &[path, &[2, index]].concat());
        }
        for (index, extension) in (0..).zip(&mut message.extension) {
            set(extension, &[path, &[6, index]].concat());
        }
    });
    let taken: HashMap<Vec<i32>, i32> = taken.into_iter().collect();
    let info = file.source_code_info.as_mut().filter(|_| !taken.is_empty());
    for location in info.into_iter().flat_map(|it| &mut it.location) {
        let Some((last, path)) = location.path.split_last() else {
            continue;
        };
        match taken.get(path) {
            Some(index) if index == last => {
                // descriptor.proto: `FieldOptions.packed`.
                location.path.truncate(path.len() - 1);
                location.path.push(2);
            }
            Some(index) if index < last => {
                let moved = last - 1;
                location.path.pop();
                location.path.push(moved);
            }
            _ => {}
        }
    }
}

/// Gives the key and the value of each map the features of the map, as protoc does: parser.cc,
/// "GenerateMapEntry".
pub(crate) fn share_features(file: &mut FileDescriptorProto) {
    each_message(file, &mut |_, message| {
        for field in &message.field {
            let options = field.options.as_ref().map(|it| &it.uninterpreted_option);
            let options = options.into_iter().flatten();
            let features = options.filter(|it| {
                let first = it.name.first();
                first.is_some_and(|it| it.name_part == "features" && !it.is_extension)
            });
            let features: Vec<UninterpretedOption> = features.cloned().collect();
            if features.is_empty() {
                continue;
            }
            let mut entries = message.nested_type.iter_mut();
            let entry = entries.find(|it| {
                let is_entry = it.options.as_ref().is_some_and(|it| it.map_entry());
                is_entry && it.name() == field.type_name()
            });
            let fields = entry.into_iter().flat_map(|it| &mut it.field);
            for part in fields {
                let options = part.options.get_or_insert_default();
                options
                    .uninterpreted_option
                    .extend(features.iter().cloned());
            }
        }
    });
}

/// Edits the value of an option, whose name is absolute; `of` is the message that it is a field of.
pub(crate) fn prepare(option: &mut UninterpretedOption, of: &str, symbols: &Symbols, view: &View) {
    let value = lead_to_value(option, of, symbols);
    if value == Some(&Value::Float) {
        // parser.cc, "ParseOption", and descriptor.cc, "SetOptionValue".
        let number = match option.identifier_value() {
            "inf" => f64::INFINITY,
            "nan" => f64::NAN,
            _ => return,
        };
        option.identifier_value = None;
        option.double_value = Some(number);
    }
    if let (Some(text), Some(Value::Message(of))) = (&option.aggregate_value, value) {
        let edited = Aggregate::edited(text, of, symbols, view);
        option.aggregate_value = Some(edited);
    }
}

/// Names the fields that an option leads through as the compiler knows them. Returns what its value is.
fn lead_to_value<'a>(
    option: &mut UninterpretedOption,
    of: &str,
    symbols: &'a Symbols,
) -> Option<&'a Value> {
    let mut of = format!("google.protobuf.{of}");
    let mut value = None;
    for part in &mut option.name {
        let name = match part.name_part.strip_prefix('.') {
            Some(full) if part.is_extension => full.to_owned(),
            _ => joined(&of, &part.name_part),
        };
        value = symbols.value(&name);
        if let Some(stand_in) = symbols.stand_in(&name) {
            stand_in.clone_into(&mut part.name_part);
        }
        if let Some(Value::Message(name)) = value {
            of.clone_from(name);
        }
    }
    value
}

/// Goes through a message in the text format for the fields and the extensions that it names.
struct Aggregate<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    symbols: &'a Symbols,
    view: &'a View,
    edits: Vec<(Range<usize>, String)>,
}

impl<'a> Aggregate<'a> {
    /// The text of a message `of`, with absolute names.
    fn edited(text: &str, of: &str, symbols: &'a Symbols, view: &'a View) -> String {
        if !text.contains('[') && !symbols.has_stand_ins() {
            return text.to_owned();
        }
        let tokens = tokens(text);
        let mut aggregate = Aggregate {
            tokens: &tokens,
            at: 0,
            symbols,
            view,
            edits: Vec::new(),
        };
        while aggregate.at < tokens.len() {
            aggregate.message(Some(of));
        }
        let mut edited = text.to_owned();
        for (range, name) in aggregate.edits.iter().rev() {
            edited.replace_range(range.clone(), name);
        }
        edited
    }

    fn next(&mut self) -> Option<&'a Token<'a>> {
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        Some(token)
    }

    fn says(&self, text: &str) -> bool {
        self.tokens.get(self.at).is_some_and(|it| it.text == text)
    }

    /// The fields of a message, and what closes it; without a name nothing is known of its fields.
    fn message(&mut self, of: Option<&str>) {
        while let Some(token) = self.next() {
            match token.text {
                "}" | ">" => return,
                "[" => {
                    let inner = self.extension(of);
                    self.value(inner.as_deref());
                }
                name if token.kind == Kind::Name => {
                    let full = of.map_or_else(String::new, |of| joined(of, name));
                    if let Some(stand_in) = self.symbols.stand_in(&full) {
                        self.edits.push((token.range(), stand_in.to_owned()));
                    }
                    self.value(message_of(self.symbols.value(&full)));
                }
                _ => {}
            }
        }
    }

    /// The name of an extension, or that of the type of an `Any`, and the bracket behind it. Returns the
    /// message that its value is.
    fn extension(&mut self, of: Option<&str>) -> Option<String> {
        let start = self.at;
        while self.next().is_some_and(|it| it.text != "]") {}
        let inside = &self.tokens[start..self.at.saturating_sub(1).max(start)];
        let (first, last) = (inside.first()?, inside.last()?);
        let slash = inside.iter().rposition(|it| it.text == "/");
        let name = &inside[slash.map_or(0, |at| at + 1)..];
        let name: String = name.iter().map(|it| it.text).collect();
        if slash.is_some() {
            return Some(name);
        }
        // descriptor.cc, "AggregateOptionFinder::FindExtension": from the message, not from the option.
        let full = self
            .view
            .resolve(self.symbols, &name, of?, Wanted::Extension)
            .ok()?;
        self.edits.push((first.at..last.end(), full.clone()));
        message_of(self.symbols.value(&full)).map(str::to_owned)
    }

    /// The value of a field, which is a message `of` if there is one in it.
    fn value(&mut self, of: Option<&str>) {
        if self.says(":") {
            self.at += 1;
        }
        if self.says("[") {
            self.at += 1;
            while let Some(token) = self.next()
                && token.text != "]"
            {
                if matches!(token.text, "{" | "<") {
                    self.message(of);
                }
            }
        } else if self.says("{") || self.says("<") {
            self.at += 1;
            self.message(of);
        } else {
            self.at += usize::from(self.says("-"));
            self.at += 1;
        }
    }
}

fn message_of(value: Option<&Value>) -> Option<&str> {
    match value? {
        Value::Message(name) => Some(name),
        _ => None,
    }
}
