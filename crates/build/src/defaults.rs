//! Defaults of floating-point fields, as protoc writes them in descriptors.

use prost_types::field_descriptor_proto::Type;
use prost_types::{FieldDescriptorProto, FileDescriptorProto};

use crate::numbers::each_message;

/// Writes the defaults of fields of type `float` and `double` in as few digits as protoc does.
pub(crate) fn write_defaults(file: &mut FileDescriptorProto) {
    file.extension.iter_mut().for_each(write_default);
    each_message(file, &mut |_, message| {
        let fields = message.field.iter_mut().chain(&mut message.extension);
        fields.for_each(write_default);
    });
}

fn write_default(field: &mut FieldDescriptorProto) {
    let Some(number) = field.default_value.as_ref().and_then(|it| it.parse().ok()) else {
        return;
    };
    let written = match field.r#type.and_then(|it| Type::try_from(it).ok()) {
        Some(Type::Double) => double(number),
        Some(Type::Float) => float(number as f32),
        _ => return,
    };
    field.default_value = Some(written);
}

/// strtod.cc, "SimpleDtoa".
fn double(number: f64) -> String {
    let short = digits(number, 15);
    match short.parse() == Ok(number) {
        true => short,
        false => digits(number, 17),
    }
}

/// strtod.cc, "SimpleFtoa".
fn float(number: f32) -> String {
    let short = digits(number.into(), 6);
    match short.parse() == Ok(number) {
        true => short,
        false => digits(number.into(), 9),
    }
}

/// A number in as many digits at most, as `%g` of C has it.
fn digits(number: f64, count: usize) -> String {
    if !number.is_finite() {
        return match number {
            _ if number.is_nan() => "nan",
            _ if number > 0.0 => "inf",
            _ => "-inf",
        }
        .to_owned();
    }
    let scientific = format!("{number:.*e}", count - 1);
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let trimmed = |digits: &str| match digits.contains('.') {
        true => digits
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned(),
        false => digits.to_owned(),
    };
    match usize::try_from(i32::try_from(count).unwrap_or(i32::MAX) - 1 - exponent) {
        Ok(decimals) if exponent >= -4 => trimmed(&format!("{number:.decimals$}")),
        _ => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{}e{sign}{:02}", trimmed(mantissa), exponent.unsigned_abs())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_protoc_writes_them() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (51.5e3, "51500"),
            (7e22, "7e+22"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (0.1, "0.1"),
            (1.0 / 3.0, "0.33333333333333331"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-8e-280, "-8e-280"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(double(number), expected);
        }
        for (number, expected) in [
            (9e9, "9e+09"),
            (2e8, "2e+08"),
            (123_456.0, "123456"),
            (1_234_567.0, "1234567"),
            (0.1, "0.1"),
            (f32::MAX, "3.40282347e+38"),
            (-8e-28, "-8e-28"),
        ] {
            assert_eq!(float(number), expected);
        }
    }
}
