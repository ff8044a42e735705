//! Hosts and ports as users write them, and what they may hold in percent-encoding.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// A host, by name or IP address, and the port if it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// A name, or an IP address without brackets and zone.
    pub(crate) host: String,
    /// The interface on which an IPv6 address is meant, by name or number (RFC 4007, section 11).
    pub(crate) zone: Option<String>,
    pub(crate) port: Option<u16>,
}

impl HostPort {
    /// Reads `host`, `host:port`, `[address]:port` and `[address%zone]:port`, which is no URI: in
    /// `[fe80::1%251]:80` the zone is interface 251. In `%25eth0` it is eth0 all the same, because people
    /// write it so.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for a message.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::read(text, false)
    }

    /// As [`parse`](Self::parse), in a URI: `[fe80::1%251]:80` has interface 1 as its zone.
    pub(crate) fn parse_uri(text: &str) -> Result<Self, String> {
        Self::read(text, true)
    }

    fn read(text: &str, is_uri: bool) -> Result<Self, String> {
        if text.contains('@') {
            return Err("user names in an address are not supported".to_owned());
        }
        let (host, zone, port) = match text.strip_prefix('[') {
            Some(rest) => bracketed(rest, is_uri)?,
            None => plain(text)?,
        };
        Ok(Self {
            host: host.to_owned(),
            zone,
            port: port.map(parse_port).transpose()?,
        })
    }

    /// The IP address, if it is one and takes nobody to ask: a zone is a number.
    pub(crate) fn address(&self, port: u16) -> Option<SocketAddr> {
        let ip: IpAddr = self.host.parse().ok()?;
        match (ip, &self.zone) {
            (_, None) => Some(SocketAddr::new(ip, port)),
            (IpAddr::V6(ip), Some(zone)) => {
                let scope = zone.parse().ok()?;
                Some(SocketAddrV6::new(ip, port, 0, scope).into())
            }
            (IpAddr::V4(_), Some(_)) => None,
        }
    }

    /// The host as the system's resolver takes it: with its zone, and without brackets.
    pub(crate) fn to_resolve(&self) -> String {
        match &self.zone {
            None => self.host.clone(),
            Some(zone) => format!("{}%{zone}", self.host),
        }
    }

    /// Returns the host as it goes on the wire: as it was written, but for the zone, which RFC 6874, section
    /// 4, keeps to the machine.
    pub(crate) fn authority(&self) -> String {
        Self {
            zone: None,
            ..self.clone()
        }
        .to_string()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.to_resolve())?,
            false => f.write_str(&self.host)?,
        }
        match self.port {
            None => Ok(()),
            Some(port) => write!(f, ":{port}"),
        }
    }
}

type HostParts<'a> = (&'a str, Option<String>, Option<&'a str>);

/// Returns what stands behind the first bracket.
fn bracketed(text: &str, is_uri: bool) -> Result<HostParts<'_>, String> {
    let (inside, rest) = text.split_once(']').ok_or("the ] is missing")?;
    let (host, zone) = match inside.split_once('%') {
        None => (inside, None),
        Some((host, zone)) => (host, Some(parse_zone(zone, is_uri)?)),
    };
    if host.parse::<Ipv6Addr>().is_err() {
        return Err(format!("{host:?} is not an IPv6 address"));
    }
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Ok((host, zone, None)),
        None => Err("only a port can follow the ]".to_owned()),
        Some(port) => Ok((host, zone, Some(port))),
    }
}

fn plain(text: &str) -> Result<HostParts<'_>, String> {
    let (host, port) = match text.split_once(':') {
        None => (text, None),
        Some((host, port)) => (host, Some(port)),
    };
    if port.is_some_and(|port| port.contains(':')) {
        return Err("an IPv6 address has to be in brackets, as in [::1]:50051".to_owned());
    }
    match host.is_empty() {
        true => Err("the host is missing".to_owned()),
        false => Ok((host, None, port)),
    }
}

/// A zone behind its `%`. RFC 6874, section 2, writes that as `%25` in a URI, and what follows in
/// percent-encoding; people write the zone as `ip` shows it. Outside of a URI a number is a number.
fn parse_zone(text: &str, is_uri: bool) -> Result<String, String> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let zone = match text.strip_prefix("25") {
        Some(encoded) if !encoded.is_empty() && (is_uri || !is_number) => {
            String::from_utf8(percent_decoded(encoded)?)
                .map_err(|_| "the zone is not text".to_owned())?
        }
        _ => text.to_owned(),
    };
    match zone.is_empty() {
        true => Err("the zone behind the % is missing".to_owned()),
        false => Ok(zone),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    if text.is_empty() {
        return Err("the port behind the colon is missing".to_owned());
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("the port {text:?} is not a number"));
    }
    let port = text.parse();
    port.map_err(|_| format!("the port {text} is out of range: the largest is 65535"))
}

/// The bytes that `text` stands for (RFC 3986, section 2.1).
pub(crate) fn percent_decoded(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let pair = digit().zip(digit());
                let value = pair.and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
                value.ok_or("a % has to be followed by two hexadecimal digits, and a literal % is written %25")?
            }
            byte => byte,
        });
    }
    Ok(decoded)
}

/// `bytes` as text that [`percent_decoded`] reads.
pub(crate) fn percent_encoded(bytes: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte.is_ascii_graphic() && *byte != b'%' {
            true => encoded.push(char::from(*byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_ports_and_zones_are_read() {
        let read = |host: &str, zone: Option<&str>, port| {
            Ok(HostPort {
                host: host.to_owned(),
                zone: zone.map(str::to_owned),
                port,
            })
        };
        let wrong = |why: &str| Err(why.to_owned());
        for (text, expected) in [
            ("localhost", read("localhost", None, None)),
            ("localhost:0", read("localhost", None, Some(0))),
            ("localhost:65535", read("localhost", None, Some(65535))),
            ("localhost:00080", read("localhost", None, Some(80))),
            ("1.2.3.4:5", read("1.2.3.4", None, Some(5))),
            ("[::1]", read("::1", None, None)),
            ("[::1]:5", read("::1", None, Some(5))),
            ("[fe80::1%lo]:5", read("fe80::1", Some("lo"), Some(5))),
            ("[fe80::1%25lo]:5", read("fe80::1", Some("lo"), Some(5))),
            ("[fe80::1%25l%6F]", read("fe80::1", Some("lo"), None)),
            ("[fe80::1%3]:5", read("fe80::1", Some("3"), Some(5))),
            ("[fe80::1%253]:5", read("fe80::1", Some("253"), Some(5))),
            // A number as `ip` shows it, which is no encoding of anything.
            ("[fe80::1%25]:5", read("fe80::1", Some("25"), Some(5))),
            (
                "localhost:65536",
                wrong("the port 65536 is out of range: the largest is 65535"),
            ),
            (
                "localhost:70000000000000000000",
                wrong("the port 70000000000000000000 is out of range: the largest is 65535"),
            ),
            ("localhost:http", wrong("the port \"http\" is not a number")),
            ("localhost:+80", wrong("the port \"+80\" is not a number")),
            ("localhost:-1", wrong("the port \"-1\" is not a number")),
            ("localhost:", wrong("the port behind the colon is missing")),
            ("", wrong("the host is missing")),
            (":80", wrong("the host is missing")),
            (
                "::1",
                wrong("an IPv6 address has to be in brackets, as in [::1]:50051"),
            ),
            ("[::1", wrong("the ] is missing")),
            ("[::1]80", wrong("only a port can follow the ]")),
            (
                "[localhost]:80",
                wrong("\"localhost\" is not an IPv6 address"),
            ),
            ("[]:80", wrong("\"\" is not an IPv6 address")),
            ("[1.2.3.4]:80", wrong("\"1.2.3.4\" is not an IPv6 address")),
            ("[fe80::1%]:80", wrong("the zone behind the % is missing")),
            ("[fe80::1%25%ff]:80", wrong("the zone is not text")),
            (
                "me@localhost:80",
                wrong("user names in an address are not supported"),
            ),
        ] {
            assert_eq!(HostPort::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn a_number_behind_a_percent_sign_is_in_encoding_in_a_uri_only() {
        for (zone, plain, uri) in [
            ("1", "1", "1"),
            ("25", "25", "25"),
            ("251", "251", "1"),
            ("25251", "25251", "251"),
            ("lo", "lo", "lo"),
            ("25lo", "lo", "lo"),
            ("25l%6F", "lo", "lo"),
            ("25%6Co", "lo", "lo"),
        ] {
            let text = format!("[fe80::1%{zone}]:80");
            let (as_plain, as_uri) = (HostPort::parse(&text), HostPort::parse_uri(&text));
            let zones = [as_plain, as_uri].map(|it| it.expect("an address").zone);
            assert_eq!(
                zones,
                [Some(plain.to_owned()), Some(uri.to_owned())],
                "{text}"
            );
        }
    }

    #[test]
    fn the_zone_stays_out_of_what_goes_on_the_wire() {
        for (text, shown, authority, address) in [
            ("a:1", "a:1", "a:1", None),
            ("1.2.3.4", "1.2.3.4", "1.2.3.4", Some("1.2.3.4:9")),
            ("[::1]:1", "[::1]:1", "[::1]:1", Some("[::1]:9")),
            ("[fe80::1%25lo]:1", "[fe80::1%lo]:1", "[fe80::1]:1", None),
            (
                "[fe80::1%7]",
                "[fe80::1%7]",
                "[fe80::1]",
                Some("[fe80::1%7]:9"),
            ),
        ] {
            let parsed = HostPort::parse(text).expect("an address");
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(parsed.authority(), authority);
            let address = address.map(|it| it.parse().expect("an address"));
            assert_eq!(parsed.address(9), address, "{text}");
        }
    }

    #[test]
    fn percent_encoding_is_read_and_written() {
        for (text, bytes) in [
            ("/run/a.sock", Some(&b"/run/a.sock"[..])),
            ("/run/a%20b%25", Some(b"/run/a b%")),
            ("%00%ff%FF", Some(b"\0\xff\xff")),
            ("%", None),
            ("%2", None),
            ("%+1", None),
            ("100%", None),
            ("%zz", None),
        ] {
            let decoded = percent_decoded(text);
            assert_eq!(decoded.as_deref().ok(), bytes, "{text}");
            if let Some(bytes) = bytes {
                let again = percent_decoded(&percent_encoded(bytes));
                assert_eq!(again.as_deref(), Ok(bytes));
            }
        }
    }
}
