//! Numbers of extensions that only a message set may have.
//!
//! A message with `message_set_wire_format` has extensions up to 2,147,483,646, any other up to
//! 536,870,911, and the compiler inside knows only the second limit. So such a number is read as
//! another one, a stand-in, and put back where it belongs: in the descriptor as soon as it is read, and
//! in that which the compiler has checked when it is done.

use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

use crate::error::{CompileError, Position};
use crate::raw;

/// The largest number of a field; descriptor.h, `FieldDescriptor::kMaxNumber`.
const LAST: i32 = 536_870_911;

/// descriptor.proto: `FieldDescriptorProto.number`.
const NUMBER: u64 = 3;

/// The large numbers in the text of a file, by what stands there for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct LargeNumbers(Vec<(i32, i32)>);

impl LargeNumbers {
    /// The text to write in place of `number`; `None` if any message may have that number.
    ///
    /// `original` is the whole text of the file: a stand-in must not be in it.
    pub(crate) fn stand_in(&mut self, number: &str, original: &str) -> Option<String> {
        let number = parsed(number).filter(|it| (LAST + 1..i32::MAX).contains(it))?;
        let known = self.0.iter().find(|(_, it)| *it == number);
        let stand_in = match known {
            Some((stand_in, _)) => *stand_in,
            None => {
                let last = self.0.last().map_or(LAST, |(stand_in, _)| *stand_in);
                let mut below = (1..last).rev();
                below.find(|it| !original.contains(&it.to_string()))?
            }
        };
        if known.is_none() {
            self.0.push((stand_in, number));
        }
        Some(stand_in.to_string())
    }

    /// Puts the numbers back into what was read from the text.
    ///
    /// # Errors
    ///
    /// A range with such numbers in a message that is not a message set.
    pub(crate) fn restore(&self, file: &mut FileDescriptorProto) -> Result<(), CompileError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let number = |read: i32| self.0.iter().find(|(it, _)| *it == read).map(|(_, it)| *it);
        each_extension(file, &mut |_, extension| {
            extension.number = number(extension.number()).or(extension.number);
        });
        let mut wrong = None;
        each_message(file, &mut |path, message| {
            let is_message_set = is_message_set(message);
            for (index, range) in (0..).zip(&mut message.extension_range) {
                range.start = number(range.start()).or(range.start);
                // A range ends before its end.
                let last = number(range.end() - 1);
                range.end = last.map(|it| it + 1).or(range.end);
                if range.end() - 1 > LAST && !is_message_set {
                    wrong.get_or_insert_with(|| [path, &[5, index]].concat());
                }
            }
        });
        wrong.map_or(Ok(()), |path| {
            let message = format!("message numbers must be between 1 and {LAST}");
            Err(CompileError::new(message).at(Position::of(file, &path)))
        })
    }
}

/// A number of protobuf: decimal, hexadecimal or octal.
fn parsed(number: &str) -> Option<i32> {
    let prefixed = |prefix: [&str; 2]| prefix.iter().find_map(|it| number.strip_prefix(it));
    match (prefixed(["0x", "0X"]), number.strip_prefix('0')) {
        (Some(digits), _) => i32::from_str_radix(digits, 16).ok(),
        (None, Some(digits)) => i32::from_str_radix(digits, 8).ok(),
        (None, None) => number.parse().ok(),
    }
}

/// The large number of one extension while another stands in its place.
#[derive(Debug)]
pub(crate) struct Hidden {
    /// From the file to the extension: the number of a field, and which of those that have it.
    path: Vec<(u64, usize)>,
    number: i32,
}

/// Gives each extension of a message set the first number that its message has for extensions, so that
/// the compiler takes it. `ranges` returns the ranges of a message by the name in `extendee`.
///
/// # Errors
///
/// The path and the number of an extension that its message has no such number for.
pub(crate) fn hide<'a>(
    file: &mut FileDescriptorProto,
    ranges: impl Fn(&str) -> Option<&'a [(i32, i32)]>,
) -> Result<Vec<Hidden>, CompileError> {
    let mut hidden = Vec::new();
    let mut wrong = None;
    each_extension(file, &mut |path, extension| {
        let number = extension.number();
        // Without its message there is another error.
        let Some(ranges) = ranges(extension.extendee()).filter(|_| number > LAST) else {
            return;
        };
        let is_number = |(start, end): &(i32, i32)| (*start..*end).contains(&number);
        if !ranges.iter().any(is_number) {
            let extendee = extension.extendee().trim_start_matches('.');
            let message =
                format!("message '{extendee}' does not define '{number}' as an extension number");
            let path: Vec<i32> = path
                .iter()
                .flat_map(|(field, index)| [*field as i32, *index as i32])
                .collect();
            wrong.get_or_insert_with(|| (message, [&path[..], &[3]].concat()));
            return;
        }
        extension.number = ranges.first().map(|(start, _)| *start);
        hidden.push(Hidden {
            path: path.to_vec(),
            number,
        });
    });
    match wrong {
        Some((message, path)) => Err(CompileError::new(message).at(Position::of(file, &path))),
        None => Ok(hidden),
    }
}

/// Takes what [`hide`] did back, in a descriptor and in the same one serialized.
pub(crate) fn show(hidden: &[Hidden], file: &mut FileDescriptorProto, encoded: &mut Vec<u8>) {
    if hidden.is_empty() {
        return;
    }
    each_extension(file, &mut |path, extension| {
        let found = hidden.iter().find(|it| it.path == path);
        extension.number = found.map(|it| it.number).or(extension.number);
    });
    let changes = hidden.iter().map(|hidden| {
        let mut field = Vec::new();
        raw::push_number(&mut field, NUMBER, hidden.number.unsigned_abs().into());
        (hidden.path.clone(), vec![(NUMBER, field)])
    });
    *encoded = raw::changed(encoded, &changes.collect());
}

/// Whether the option is set, in a descriptor that is or is not yet compiled.
fn is_message_set(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| {
        let mut uninterpreted = options.uninterpreted_option.iter();
        options.message_set_wire_format()
            || uninterpreted.any(|it| {
                let [name] = it.name.as_slice() else {
                    return false;
                };
                name.name_part == "message_set_wire_format"
                    && !name.is_extension
                    && it.identifier_value() == "true"
            })
    })
}

fn each_extension(
    file: &mut FileDescriptorProto,
    change: &mut impl FnMut(&[(u64, usize)], &mut FieldDescriptorProto),
) {
    // descriptor.proto: `FileDescriptorProto.extension`, `DescriptorProto.extension`.
    for (index, extension) in file.extension.iter_mut().enumerate() {
        change(&[(7, index)], extension);
    }
    each_message(file, &mut |path, message| {
        let path = path.chunks_exact(2).map(|step| {
            (
                step[0].unsigned_abs().into(),
                step[1].unsigned_abs() as usize,
            )
        });
        let path: Vec<(u64, usize)> = path.collect();
        for (index, extension) in message.extension.iter_mut().enumerate() {
            change(&[&path[..], &[(6, index)]].concat(), extension);
        }
    });
}

/// Calls `change` for each message, with its path as in `google.protobuf.SourceCodeInfo`.
pub(crate) fn each_message(
    file: &mut FileDescriptorProto,
    change: &mut impl FnMut(&[i32], &mut DescriptorProto),
) {
    fn within(
        message: &mut DescriptorProto,
        path: &[i32],
        change: &mut impl FnMut(&[i32], &mut DescriptorProto),
    ) {
        change(path, message);
        for (index, nested) in (0..).zip(&mut message.nested_type) {
            within(nested, &[path, &[3, index]].concat(), change);
        }
    }
    for (index, message) in (0..).zip(&mut file.message_type) {
        within(message, &[4, index], change);
    }
}
