//! Error messages for failed TLS handshakes.

use std::io;
use std::time::Duration;

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
use trunkline_codec::Status;

/// The message for a server that does not select HTTP/2 in ALPN.
pub(super) const NO_H2: &str = "it speaks TLS, and not HTTP/2: gRPC needs a server, or a proxy before it, that offers h2 in ALPN; is this the gRPC port?";

/// Returns the status for a failed handshake of the client with `name`.
pub(super) fn on_connect(name: &str, server_name: &ServerName<'_>, error: io::Error) -> Status {
    let why = match rustls_error(&error) {
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => {
                "it ended the connection in the TLS handshake: does it speak TLS? Use http:// if it does not".to_owned()
            }
            _ => format!("the TLS handshake failed: {error}"),
        },
        Some(Error::InvalidCertificate(why)) => about_certificate(why, server_name),
        // RFC 8446, section 5.1: these errors mean that the bytes are not a TLS record.
        Some(Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::MessageTooLarge,
        )) => "it does not speak TLS: use http:// for a plaintext server".to_owned(),
        Some(Error::NoApplicationProtocol) => NO_H2.to_owned(),
        Some(Error::AlertReceived(alert)) => about_alert(*alert),
        Some(Error::PeerIncompatible(why)) => {
            format!("its TLS has nothing in common with ours, which is 1.2 and 1.3 with modern ciphers: {why:?}")
        }
        Some(error) => format!("the TLS handshake failed: {error}"),
    };
    Status::unavailable(format!("cannot connect to {name}: {why}")).with_source(error)
}

/// Replaces a TLS alert on an open connection by an error that explains it.
pub(super) fn on_open(error: io::Error) -> io::Error {
    match rustls_error(&error) {
        Some(Error::AlertReceived(alert)) => io::Error::new(error.kind(), about_alert(*alert)),
        _ => error,
    }
}

fn rustls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn about_alert(alert: AlertDescription) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::CertificateRequired | Alert::NoCertificate => "it asks for a client certificate, and was given none: set one with ClientTls::identity_files".to_owned(),
        Alert::NoApplicationProtocol => NO_H2.to_owned(),
        Alert::UnknownCA
        | Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::AccessDenied
        | Alert::DecryptError => format!(
            "it refuses this client's certificate ({alert:?}): it has to be valid now, for clients, and from an authority that the server trusts"
        ),
        Alert::UnrecognisedName => "it serves nothing by the name it was asked for: set another with ClientTls::server_name".to_owned(),
        alert => format!("it refuses the TLS handshake ({alert:?})"),
    }
}

fn about_certificate(why: &CertificateError, server_name: &ServerName<'_>) -> String {
    let name = server_name.to_str();
    match why {
        CertificateError::UnknownIssuer => "its certificate is issued by an authority that is not trusted here: add that authority with ClientTls::ca_file".to_owned(),
        CertificateError::BadSignature => "its certificate is from another authority with the same name as a trusted one: if the authority was renewed, set its new certificate with ClientTls::ca_file".to_owned(),
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<_> = presented.iter().map(|name| bare_name(name)).collect();
            let names = match names.is_empty() {
                true => "no name at all".to_owned(),
                false => names.join(", "),
            };
            format!("its certificate is valid for {names}, and not for {name}: connect by such a name, or say which one to expect with ClientTls::server_name")
        }
        CertificateError::ExpiredContext { time, not_after } => format!(
            "its certificate expired {} ago: it has to be renewed, unless the clock here is wrong",
            between(*not_after, *time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "its certificate is valid only in {}: is the clock right, here and there?",
            between(*time, *not_before)
        ),
        CertificateError::InvalidPurposeContext { .. } => format!(
            "its certificate is not for servers ({why}): it needs the extended key usage serverAuth"
        ),
        why => format!("its certificate cannot be used: {why}"),
    }
}

/// Removes the type from a name: rustls returns `DnsName("a.b")` and `IpAddress(1.2.3.4)`.
fn bare_name(presented: &str) -> &str {
    let inside = presented
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(presented).trim_matches('"')
}

fn between(from: UnixTime, to: UnixTime) -> String {
    const HOUR: u64 = 60 * 60;
    let seconds = Duration::from_secs(to.as_secs().saturating_sub(from.as_secs())).as_secs();
    match seconds {
        0..HOUR => "less than an hour".to_owned(),
        HOUR..172_800 => format!("{} hours", seconds / HOUR),
        _ => format!("{} days", seconds / (24 * HOUR)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_given_without_what_kind_they_are() {
        for (presented, bare) in [
            ("DnsName(\"*.a.test\")", "*.a.test"),
            ("IpAddress(127.0.0.1)", "127.0.0.1"),
            ("a.test", "a.test"),
        ] {
            assert_eq!(bare_name(presented), bare);
        }
    }

    #[test]
    fn times_are_told_in_hours_and_then_in_days() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        for (seconds, told) in [
            (0, "less than an hour"),
            (3_599, "less than an hour"),
            (3_600, "1 hours"),
            (172_799, "47 hours"),
            (172_800, "2 days"),
        ] {
            assert_eq!(between(at(7), at(7 + seconds)), told);
        }
        assert_eq!(between(at(7), at(0)), "less than an hour");
    }
}
