//! Load reports of servers (ORCA, gRFC A51), in protobuf: `xds.data.orca.v3.OrcaLoadReport`, and the request for a
//! stream of them, `xds.service.orca.v3.OrcaLoadReportRequest`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::metadata;
use crate::protobuf::{self, Field, MessageFields};
use http::{HeaderMap, HeaderName};

const LOAD_REPORT: HeaderName = HeaderName::from_static(LoadReport::TRAILER);

/// The size of a report or of a request for reports, in bytes. Larger ones are malformed.
const MESSAGE_SIZE_MAX: usize = 64 << 10;

/// The number of names in a report or in a request for reports. Messages with more are malformed.
const NAMES_MAX: usize = 1_000;

/// A server's report of its load, in ORCA, the load report format of gRPC and Envoy (gRFC A51).
///
/// A server sends one with a call, as the trailer `endpoint-load-metrics-bin`, or on a stream of its own. A
/// handler adds one to its response with `ResponseHandle::report_load`; the service `LoadReports` has such
/// streams.
///
/// ```
/// # mod trunkline { pub use trunkline_codec::*; }
/// use trunkline::LoadReport;
///
/// let mut report = LoadReport::default();
/// report.application_utilization = 0.5;
/// report.rps_fractional = 100.0;
/// report.named_metrics.insert("queue".to_owned(), 3.0);
/// assert_eq!(LoadReport::decode(&report.encode()), Some(report));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The share of the CPU that is in use, 0 to 1; above 1 if the server uses more than it was assigned.
    pub cpu_utilization: f64,
    /// The share of the memory that is in use, 0 to 1.
    pub mem_utilization: f64,
    /// A measure of use that the application has defined; 0 if it has none.
    pub application_utilization: f64,
    /// Queries per second.
    pub rps_fractional: f64,
    /// Errors per second.
    pub eps: f64,
    /// Costs of the request, by name.
    pub request_cost: BTreeMap<String, f64>,
    /// Shares of further resources, 0 to 1, by name.
    pub utilization: BTreeMap<String, f64>,
    /// Further measures, by name.
    pub named_metrics: BTreeMap<String, f64>,
}

impl LoadReport {
    /// The key of the trailer that contains the report of a call.
    pub const TRAILER: &'static str = "endpoint-load-metrics-bin";

    /// Decodes a report. `None` if it is malformed, is larger than 64 KiB, or has more than 1,000 names. Values are
    /// taken as they are: a server can send negative ones and NaN.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let mut report = Self::default();
        for field in fields(message)? {
            match field? {
                (1, Field::Double(value)) => report.cpu_utilization = value,
                (2, Field::Double(value)) => report.mem_utilization = value,
                // 3 is rps, which is deprecated.
                (4, Field::Bytes(entry)) => decode_entry(entry, &mut report.request_cost)?,
                (5, Field::Bytes(entry)) => decode_entry(entry, &mut report.utilization)?,
                (6, Field::Double(value)) => report.rps_fractional = value,
                (7, Field::Double(value)) => report.eps = value,
                (8, Field::Bytes(entry)) => decode_entry(entry, &mut report.named_metrics)?,
                (9, Field::Double(value)) => report.application_utilization = value,
                _ => {}
            }
        }
        let maps = [
            &report.request_cost,
            &report.utilization,
            &report.named_metrics,
        ];
        let names: usize = maps.iter().map(|it| it.len()).sum();
        (names <= NAMES_MAX).then_some(report)
    }

    /// Encodes the report.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = Vec::new();
        let values = [
            (1, self.cpu_utilization),
            (2, self.mem_utilization),
            (6, self.rps_fractional),
            (7, self.eps),
            (9, self.application_utilization),
        ];
        for (number, value) in values {
            protobuf::put_double(&mut message, number, value);
        }
        let maps = [
            (4, &self.request_cost),
            (5, &self.utilization),
            (8, &self.named_metrics),
        ];
        for (number, map) in maps {
            for (name, value) in map {
                let mut entry = Vec::new();
                protobuf::put_bytes(&mut entry, 1, name.as_bytes());
                protobuf::put_double(&mut entry, 2, *value);
                protobuf::put_bytes(&mut message, number, &entry);
            }
        }
        message
    }

    /// Returns the report in the trailers of a call; `None` if they have none, or one that is malformed.
    pub fn from_trailers(trailers: &HeaderMap) -> Option<Self> {
        Self::decode(&metadata::first_bin(trailers.get(LOAD_REPORT)?)?)
    }

    /// Adds the report to the trailers of an HTTP response, in a tower layer or service, where it replaces an
    /// earlier one. Trailers with 24,576 different keys already, the limit of `http::HeaderMap`, stay as they
    /// are.
    pub fn write_to(&self, trailers: &mut HeaderMap) {
        let _fits = trailers.try_insert(LOAD_REPORT, metadata::encode_bin(&self.encode()));
    }
}

/// A client's request for a stream of load reports (ORCA, gRFC A51).
///
/// ```
/// use std::time::Duration;
/// use trunkline_codec::LoadReportRequest;
///
/// let mut request = LoadReportRequest::default();
/// request.report_interval = Duration::from_secs(10);
/// assert_eq!(LoadReportRequest::decode(&request.encode()), Some(request));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReportRequest {
    /// The time between two reports. With zero, the server chooses.
    pub report_interval: Duration,
    /// The costs of requests to report, by name; all if it is empty.
    pub request_cost_names: Vec<String>,
}

impl LoadReportRequest {
    /// Decodes a request. `None` if it is malformed, is larger than 64 KiB, has more than 1,000 names, or asks for
    /// a negative interval.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let mut request = Self::default();
        for field in fields(message)? {
            match field? {
                (1, Field::Bytes(duration)) => request.report_interval = decode_duration(duration)?,
                (2, Field::Bytes(name)) => request.request_cost_names.push(text(name)?),
                _ => {}
            }
        }
        (request.request_cost_names.len() <= NAMES_MAX).then_some(request)
    }

    /// Encodes the request.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = Vec::new();
        if !self.report_interval.is_zero() {
            let mut duration = Vec::new();
            protobuf::put_varint(&mut duration, 1, self.report_interval.as_secs());
            protobuf::put_varint(&mut duration, 2, self.report_interval.subsec_nanos().into());
            protobuf::put_bytes(&mut message, 1, &duration);
        }
        for name in &self.request_cost_names {
            protobuf::put_bytes(&mut message, 2, name.as_bytes());
        }
        message
    }
}

fn fields(message: &[u8]) -> Option<MessageFields<'_>> {
    (message.len() <= MESSAGE_SIZE_MAX).then_some(MessageFields(message))
}

/// Adds an entry of a `map<string, double>`. `None` if it is malformed.
fn decode_entry(entry: &[u8], map: &mut BTreeMap<String, f64>) -> Option<()> {
    let (mut name, mut value) = (String::new(), 0.0);
    for field in MessageFields(entry) {
        match field? {
            (1, Field::Bytes(bytes)) => name = text(bytes)?,
            (2, Field::Double(double)) => value = double,
            _ => {}
        }
    }
    map.insert(name, value);
    Some(())
}

/// A `google.protobuf.Duration` that is not negative.
fn decode_duration(duration: &[u8]) -> Option<Duration> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in MessageFields(duration) {
        match field? {
            (1, Field::Varint(value)) => seconds = i64::try_from(value).ok()?.unsigned_abs(),
            (2, Field::Varint(value)) => nanos = u32::try_from(value).ok()?,
            _ => {}
        }
    }
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn full() -> LoadReport {
        LoadReport {
            cpu_utilization: 0.5,
            mem_utilization: 0.25,
            application_utilization: 0.75,
            rps_fractional: 100.0,
            eps: 2.0,
            request_cost: BTreeMap::from([("db".to_owned(), 3.0), (String::new(), -1.0)]),
            utilization: BTreeMap::from([("gpu".to_owned(), 0.125)]),
            named_metrics: BTreeMap::from([("queue".to_owned(), 7.0)]),
        }
    }

    /// The bytes are what `protoc --encode=xds.data.orca.v3.OrcaLoadReport` writes: 0.5 is 0x3fe0 << 48, a tag is
    /// number << 3 | wire type.
    #[test]
    fn a_report_has_the_bytes_of_protobuf() {
        let mut report = LoadReport {
            cpu_utilization: 0.5,
            ..LoadReport::default()
        };
        report.named_metrics.insert("q".to_owned(), 0.5);
        let half = [0, 0, 0, 0, 0, 0, 0xe0, 0x3f];
        let entry = [&[0x0a, 1, b'q', 0x11][..], &half].concat();
        let expected = [&[0x09][..], &half, &[0x42, 12], &entry].concat();
        assert_eq!(report.encode(), expected);
        assert_eq!(LoadReport::decode(&expected), Some(report));
    }

    #[test]
    fn messages_come_back_as_they_were_encoded() {
        assert_eq!(LoadReport::decode(&full().encode()), Some(full()));
        assert_eq!(LoadReport::decode(&[]), Some(LoadReport::default()));
        let request = LoadReportRequest {
            report_interval: Duration::new(12, 500_000_000),
            request_cost_names: vec!["db".to_owned(), String::new()],
        };
        assert_eq!(LoadReportRequest::decode(&request.encode()), Some(request));
        let empty = LoadReportRequest::default();
        assert!(empty.encode().is_empty());
        assert_eq!(LoadReportRequest::decode(&[]), Some(empty));
    }

    #[test]
    fn unknown_fields_are_skipped_and_the_last_of_several_values_counts() {
        let known = LoadReport {
            eps: 1.0,
            ..LoadReport::default()
        };
        let unknown = [
            &[0x18, 0xff, 0x01][..],            // 3, rps
            &[0x55, 1, 2, 3, 4],                // 10, fixed32
            &[0x5a, 2, 0xff, 0xff],             // 11, bytes
            &[0x08, 1],                         // 1 as a varint, which is not its type
            &[0x39, 0, 0, 0, 0, 0, 0, 0, 0x40], // 7, eps = 2
        ];
        let message = [&unknown.concat()[..], &known.encode()].concat();
        assert_eq!(LoadReport::decode(&message), Some(known));
    }

    #[test]
    fn malformed_messages_are_no_report() {
        let malformed: [&[u8]; 11] = [
            &[0x09],                   // a tag without a value
            &[0x09, 0, 0, 0],          // too few bytes of a double
            &[0x80],                   // a varint that does not end
            &[0xff; 11],               // a varint of more than 64 bits
            &[0x00, 0],                // field 0
            &[0x0b, 0x0c],             // a group
            &[0x0e],                   // a wire type that does not exist
            &[0x22, 5, 0x0a, 1],       // an entry that is longer than the message
            &[0x22, 3, 0x0a, 1, 0xff], // a name that is not UTF-8
            &[0x22, 2, 0x11, 0],       // an entry with too few bytes of a double
            &[
                0x22, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            ], // of 2^64 - 1 bytes
        ];
        for message in malformed {
            assert_eq!(LoadReport::decode(message), None, "{message:x?}");
        }
        let negative_seconds = [&[0x0a, 11, 0x08][..], &[0xff; 9], &[0x01]].concat();
        let nanos_above_a_second = [0x0a, 6, 0x10, 0x80, 0x94, 0xeb, 0xdc, 0x03];
        let name_not_utf8 = [0x12, 1, 0xff];
        for message in [&negative_seconds[..], &nanos_above_a_second, &name_not_utf8] {
            assert_eq!(LoadReportRequest::decode(message), None, "{message:x?}");
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_decoded_without_a_panic() {
        let message = full().encode();
        for at in 0..message.len() {
            let _ = LoadReport::decode(&message[..at]);
            for byte in 0..=u8::MAX {
                let mut changed = message.clone();
                changed[at] = byte;
                let _ = LoadReport::decode(&changed);
                let _ = LoadReportRequest::decode(&changed);
            }
        }
    }

    #[test]
    fn names_and_bytes_are_limited() {
        let with_names = |count: usize| {
            let report = LoadReport {
                utilization: (0..count).map(|it| (it.to_string(), 1.0)).collect(),
                ..LoadReport::default()
            };
            LoadReport::decode(&report.encode()).is_some()
        };
        assert_eq!([999, 1_000, 1_001].map(with_names), [true, true, false]);
        let repeated = [0x22, 0].repeat(1_001);
        let report = LoadReport::decode(&repeated).expect("one name, repeated");
        assert_eq!(report.request_cost.len(), 1);
        let of_size = |size: usize| {
            // Field 11 with its tag and a length of three bytes.
            let mut message = Vec::new();
            protobuf::put_bytes(&mut message, 11, &vec![0; size - 4]);
            assert_eq!(message.len(), size);
            LoadReport::decode(&message).is_some()
        };
        assert_eq!([65_535, 65_536, 65_537].map(of_size), [true, true, false]);
        let with_cost_names = |count: usize| {
            let request = LoadReportRequest {
                request_cost_names: vec![String::new(); count],
                ..LoadReportRequest::default()
            };
            LoadReportRequest::decode(&request.encode()).is_some()
        };
        assert_eq!(
            [999, 1_000, 1_001].map(with_cost_names),
            [true, true, false]
        );
    }

    #[test]
    fn a_report_in_trailers_is_base64_with_or_without_padding() {
        let mut trailers = HeaderMap::new();
        assert_eq!(LoadReport::from_trailers(&trailers), None);
        full().write_to(&mut trailers);
        full().write_to(&mut trailers);
        assert_eq!(trailers.len(), 1);
        assert_eq!(LoadReport::from_trailers(&trailers), Some(full()));
        // eps = 2 is 39 00 00 00 00 00 00 00 40, nine bytes; with field 11 of one byte, ten.
        for (value, expected) in [
            ("OQAAAAAAAABA", Some(2.0)),
            ("OQAAAAAAAABAWAE", Some(2.0)),
            ("OQAAAAAAAABAWAE=", Some(2.0)),
            ("OQAAAAAAAABA,!", Some(2.0)),
            ("", Some(0.0)),
            ("OQAA", None),
            ("!", None),
        ] {
            trailers.insert(LOAD_REPORT, HeaderValue::from_static(value));
            let found = LoadReport::from_trailers(&trailers);
            assert_eq!(found.map(|it| it.eps), expected, "{value:?}");
        }
    }
}
