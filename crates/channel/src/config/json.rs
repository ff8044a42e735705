//! JSON in the form that protobuf defines for messages ("ProtoJSON Format"), read field by field.
//!
//! A field has its camelCase name or the one in the `.proto` file, and `null` counts as absent. Numbers may be strings.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde_core::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use trunkline_codec::{Code, Status};

/// The characters of a value that a message repeats.
const SHOWN: usize = 100;
/// The longest `google.protobuf.Duration`, about 10,000 years.
const MAX_DURATION: Duration = Duration::from_secs(315_576_000_000);

/// Parses a document whose objects have each key once.
///
/// # Errors
///
/// INVALID_ARGUMENT if the text is not JSON, or an object has a key twice. `subject` is the name of the text.
pub(crate) fn parse(subject: &str, text: &str) -> Result<Value, Status> {
    // serde_json's own values keep the last of two equal keys.
    let value = serde_json::from_str::<UniqueKeys>(text).and_then(|_| serde_json::from_str(text));
    value.map_err(|error| {
        Status::invalid_argument(format!("the {subject} is not valid JSON: {error}"))
    })
}

/// An object, with its place in the document.
pub(crate) struct JsonObject<'a> {
    path: String,
    fields: &'a Map<String, Value>,
}

impl<'a> JsonObject<'a> {
    /// Takes a whole document.
    pub(crate) fn document(subject: &str, value: &'a Value) -> Result<Self, Status> {
        let fields = value.as_object().ok_or_else(|| {
            let shown = shown(value);
            Status::invalid_argument(format!("the {subject} is {shown}, not an object"))
        })?;
        Ok(Self {
            path: String::new(),
            fields,
        })
    }

    /// Returns a field that may be absent.
    pub(crate) fn field(&self, name: &str) -> Result<Option<JsonField<'a>>, Status> {
        let other = snake_case(name);
        let set = |name: &str| self.fields.get(name).filter(|value| !value.is_null());
        let value = match (set(name), set(&other)) {
            (Some(_), Some(_)) if other != name => {
                let path = self.path_of(name);
                return Err(Status::invalid_argument(format!(
                    "{path}: the field is also set as {other}; keep one of them"
                )));
            }
            (Some(value), _) | (None, Some(value)) => value,
            (None, None) => return Ok(None),
        };
        let path = self.path_of(name);
        Ok(Some(JsonField { path, value }))
    }

    /// Reads a field that may be absent.
    pub(crate) fn optional<T>(
        &self,
        name: &str,
        read: impl FnOnce(&JsonField<'a>) -> Result<T, Status>,
    ) -> Result<Option<T>, Status> {
        self.field(name)?.as_ref().map(read).transpose()
    }

    /// Reads a field that must be set.
    pub(crate) fn required<T>(
        &self,
        name: &str,
        read: impl FnOnce(&JsonField<'a>) -> Result<T, Status>,
    ) -> Result<T, Status> {
        self.optional(name, read)?.ok_or_else(|| {
            let path = self.path_of(name);
            Status::invalid_argument(format!("{path}: the field is missing, and required"))
        })
    }

    fn path_of(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }
}

/// A value other than `null`, with its place in the document.
pub(crate) struct JsonField<'a> {
    pub(crate) path: String,
    pub(crate) value: &'a Value,
}

impl<'a> JsonField<'a> {
    /// Makes the error of a value that is not as `expected` says.
    pub(crate) fn invalid(&self, expected: &str) -> Status {
        let (path, shown) = (&self.path, shown(self.value));
        Status::invalid_argument(format!("{path}: {shown} is not {expected}"))
    }

    pub(crate) fn object(&self) -> Result<JsonObject<'a>, Status> {
        let fields = self.value.as_object();
        Ok(JsonObject {
            path: self.path.clone(),
            fields: fields.ok_or_else(|| self.invalid("an object"))?,
        })
    }

    pub(crate) fn list(&self) -> Result<Vec<Self>, Status> {
        let entries = self.value.as_array();
        let entries = entries.ok_or_else(|| self.invalid("a list"))?.iter();
        let fields = entries.enumerate().map(|(at, value)| Self {
            path: format!("{}[{at}]", self.path),
            value,
        });
        Ok(fields.collect())
    }

    pub(crate) fn boolean(&self) -> Result<bool, Status> {
        let value = self.value.as_bool();
        value.ok_or_else(|| self.invalid("a boolean; write true or false, without quotes"))
    }

    pub(crate) fn string(&self) -> Result<&'a str, Status> {
        let value = self.value.as_str();
        value.ok_or_else(|| self.invalid("a string; write it in quotes"))
    }

    /// Returns a whole number that is not negative. One above `u64::MAX` becomes that.
    pub(crate) fn unsigned(&self) -> Result<u64, Status> {
        let number = self.number().and_then(|number| unsigned(&number));
        number.ok_or_else(|| self.invalid("a whole number of 0 or more"))
    }

    pub(crate) fn float(&self) -> Result<f64, Status> {
        let number = self.number().and_then(|number| number.as_f64());
        let finite = number.filter(|number| number.is_finite());
        finite.ok_or_else(|| self.invalid("a number"))
    }

    /// Returns a duration that is not negative.
    pub(crate) fn duration(&self) -> Result<Duration, Status> {
        let duration = self.value.as_str().and_then(duration);
        duration.ok_or_else(|| {
            self.invalid(
                "a duration; write seconds with an s, such as \"1.5s\", up to 315576000000s",
            )
        })
    }

    /// Returns a status code other than OK, which is a number or a name in letters of any case.
    pub(crate) fn failure_code(&self) -> Result<Code, Status> {
        let code = match self.value {
            Value::Number(number) => unsigned(number)
                .and_then(|number| Code::ALL.get(usize::try_from(number).ok()?).copied()),
            Value::String(name) => name.to_ascii_uppercase().parse().ok(),
            _ => None,
        };
        let failure = code.filter(|code| *code != Code::OK);
        failure.ok_or_else(|| {
            self.invalid("the code of a failure; write its name, such as \"UNAVAILABLE\", or its number, from 1 to 16")
        })
    }

    fn number(&self) -> Option<Number> {
        match self.value {
            Value::Number(number) => Some(number.clone()),
            Value::String(text) => text.parse().ok(),
            _ => None,
        }
    }
}

/// Returns a value as text, which is cut if it is long.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Writes a duration as [`JsonField::duration`] reads it.
pub(crate) fn duration_text(duration: Duration) -> String {
    match duration.subsec_nanos() {
        0 => format!("{}s", duration.as_secs()),
        nanos => {
            let fraction = format!("{nanos:09}");
            format!("{}.{}s", duration.as_secs(), fraction.trim_end_matches('0'))
        }
    }
}

fn duration(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (is_negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (seconds, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    if !is_digits(seconds) || !is_digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    let duration = Duration::new(seconds.parse().ok()?, nanos);
    (duration <= MAX_DURATION && !(is_negative && duration > Duration::ZERO)).then_some(duration)
}

fn unsigned(number: &Number) -> Option<u64> {
    let whole = |number: &f64| *number >= 0.0 && number.is_finite() && number.fract() == 0.0;
    let rounded = || number.as_f64().filter(whole).map(|number| number as u64);
    number.as_u64().or_else(rounded)
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Any value without an object that has a key twice.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueKeysVisitor)
    }
}

struct UniqueKeysVisitor;

impl<'de> Visitor<'de> for UniqueKeysVisitor {
    type Value = UniqueKeys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_i64<E>(self, _: i64) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_u64<E>(self, _: u64) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_f64<E>(self, _: f64) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_str<E>(self, _: &str) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_unit<E>(self) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<UniqueKeys, A::Error> {
        while entries.next_element::<UniqueKeys>()?.is_some() {}
        Ok(UniqueKeys)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<UniqueKeys, A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = fields.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(Error::custom(format_args!("the key {key:?} is set twice")));
            }
            fields.next_value::<UniqueKeys>()?;
            keys.insert(key);
        }
        Ok(UniqueKeys)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read<'a, T>(
        document: &'a Value,
        read: impl FnOnce(&JsonField<'a>) -> Result<T, Status>,
    ) -> Result<Option<T>, Status> {
        JsonObject::document("test", document)?.optional("aField", read)
    }

    #[test]
    fn a_field_has_two_names_and_may_be_null() {
        let value = |document: Value| read(&document, JsonField::unsigned);
        assert_eq!(value(json!({ "aField": 1 })).unwrap(), Some(1));
        assert_eq!(value(json!({ "a_field": 1 })).unwrap(), Some(1));
        assert_eq!(
            value(json!({ "aField": null, "a_field": 1 })).unwrap(),
            Some(1)
        );
        assert_eq!(value(json!({ "aField": null })).unwrap(), None);
        assert_eq!(value(json!({ "afield": 1, "AField": 1 })).unwrap(), None);
        let status = value(json!({ "aField": 1, "a_field": 1 })).unwrap_err();
        let message = "aField: the field is also set as a_field; keep one of them";
        assert_eq!(status.message(), message);
    }

    #[test]
    fn numbers_may_be_strings_and_whole_ones_may_have_a_point() {
        let unsigned = |value: Value| read(&json!({ "aField": value }), JsonField::unsigned).ok();
        let accepted = [
            (json!(0), 0),
            (json!(-0.0), 0),
            (json!(2.0), 2),
            (json!(1e3), 1_000),
            (json!("7"), 7),
            (json!("1e3"), 1_000),
            (json!(u64::MAX), u64::MAX),
            (json!("18446744073709551616"), u64::MAX),
            (json!(1e300), u64::MAX),
        ];
        for (value, expected) in accepted {
            assert_eq!(unsigned(value.clone()), Some(Some(expected)), "{value}");
        }
        let rejected = [
            json!(-1),
            json!(0.5),
            json!(""),
            json!(" 1"),
            json!("1 "),
            json!("+1"),
            json!("0x1"),
            json!("NaN"),
            json!("1e999"),
            json!(true),
            json!([1]),
        ];
        for value in rejected {
            assert_eq!(unsigned(value.clone()), None, "{value}");
        }
    }

    #[test]
    fn durations_have_the_limits_of_the_protobuf_type() {
        let accepted = [
            ("0s", Duration::ZERO),
            ("-0s", Duration::ZERO),
            ("-0.000s", Duration::ZERO),
            ("007s", Duration::from_secs(7)),
            ("0.000000001s", Duration::from_nanos(1)),
            ("1.10s", Duration::from_millis(1_100)),
            ("315576000000.000s", MAX_DURATION),
        ];
        for (text, expected) in accepted {
            assert_eq!(duration(text), Some(expected), "{text}");
            assert_eq!(duration(&duration_text(expected)), Some(expected), "{text}");
        }
        let rejected = [
            "",
            "s",
            "-s",
            "1",
            "1S",
            "1s ",
            "--1s",
            "+-1s",
            "-0.1s",
            "1.1.1s",
            "1.+1s",
            "1.0000000000s",
            "315576000000.000000001s",
            "99999999999999999999s",
            "\u{661}s",
        ];
        for text in rejected {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_key_that_is_set_twice_is_found_at_any_depth_and_written_in_any_way() {
        for text in [
            r#"{"a": 1, "b": 2, "a": 1}"#,
            r#"[[{"x": {"a": null, "\u0061": null}}]]"#,
        ] {
            let status = parse("test", text).unwrap_err();
            let part = "the test is not valid JSON: the key \"a\" is set twice at line 1";
            assert!(status.message().starts_with(part), "{status}");
        }
        assert!(parse("test", r#"[{"a": {"a": 1}}, {"a": 1}]"#).is_ok());
    }

    #[test]
    fn a_document_of_any_depth_is_an_error_or_a_value() {
        for depth in [1, 100, 127, 128, 100_000] {
            let text = "[".repeat(depth) + &"]".repeat(depth);
            assert_eq!(parse("test", &text).is_ok(), depth < 128, "{depth}");
        }
    }

    #[test]
    fn a_long_value_is_cut_in_messages() {
        let status = read(
            &json!({ "aField": "\u{e4}".repeat(1_000) }),
            JsonField::boolean,
        )
        .unwrap_err();
        assert!(status.message().len() < 400, "{status}");
        assert!(
            status.message().contains("\u{e4}... is not a boolean"),
            "{status}"
        );
    }
}
