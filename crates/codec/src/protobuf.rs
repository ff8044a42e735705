//! The wire format of protobuf, for the small messages that the framework itself reads and writes: fields one after
//! another, each a tag and a value (protobuf.dev, "Encoding").

/// The fields of a message, each with its number; `None` in place of the first one that is malformed, which is the last.
#[derive(Debug)]
pub struct MessageFields<'a>(
    /// The bytes that are left.
    pub &'a [u8],
);

/// The value of a field.
#[derive(Debug, PartialEq)]
pub enum Field<'a> {
    /// An integer, a boolean or the number of an enum value.
    Varint(u64),
    /// A `double`, or eight bytes of another type.
    Double(f64),
    /// A string, bytes, or a message.
    Bytes(&'a [u8]),
    /// Four bytes, which are skipped.
    Fixed32,
}

const VARINT: u64 = 0;
const DOUBLE: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

impl<'a> Iterator for MessageFields<'a> {
    type Item = Option<(u32, Field<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> MessageFields<'a> {
    fn field(&mut self) -> Option<(u32, Field<'a>)> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok()?;
        // Field numbers have 29 bits, and 0 is none.
        if number == 0 || number >= 1 << 29 {
            return None;
        }
        let field = match tag & 7 {
            VARINT => Field::Varint(self.varint()?),
            DOUBLE => Field::Double(f64::from_le_bytes(self.bytes(8)?.try_into().ok()?)),
            LENGTH => {
                let length = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(self.bytes(length)?)
            }
            FIXED32 => {
                self.bytes(4)?;
                Field::Fixed32
            }
            // Groups, which proto3 does not have.
            _ => return None,
        };
        Some((number, field))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

/// Writes a `uint64` field, or an `int64` or `int32` that is not negative, unless it is 0.
pub fn put_varint(message: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_tag(message, number, VARINT);
        put(message, value);
    }
}

/// Writes a `double` field, unless it is 0.
pub fn put_double(message: &mut Vec<u8>, number: u32, value: f64) {
    if value != 0.0 {
        put_tag(message, number, DOUBLE);
        message.extend(value.to_le_bytes());
    }
}

/// Writes a `bytes` or `string` field, or a message.
pub fn put_bytes(message: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(message, number, LENGTH);
    put(message, bytes.len() as u64);
    message.extend(bytes);
}

fn put_tag(message: &mut Vec<u8>, number: u32, wire_type: u64) {
    put(message, u64::from(number) << 3 | wire_type);
}

fn put(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}
