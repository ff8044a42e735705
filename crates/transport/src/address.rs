//! The address of one end of a connection.

use std::fmt;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use trunkline_codec::Status;

use crate::host_port::{HostPort, percent_decoded, percent_encoded};

/// The longest path or name of a Unix socket, in bytes: `sun_path` has room for it and for a NUL.
pub(crate) const UNIX_NAME_MAX: usize = match cfg!(any(target_os = "linux", target_os = "android"))
{
    true => 107,
    false => 103,
};

/// The address of one end of a connection.
///
/// Its text, such as `127.0.0.1:50051`, `[::1]:50051`, `unix:/path` or `unix-abstract:name`, can be used to
/// listen and to connect, and can be parsed with [`FromStr`]. The exceptions are `InMemory` and Unix sockets
/// without a path.
///
/// ```
/// # mod trunkline { pub use trunkline_transport::Address; }
/// use trunkline::Address;
///
/// let address: Address = "unix:/run/greeter.sock".parse()?;
/// assert_eq!(address.to_string(), "unix:/run/greeter.sock");
/// assert_eq!(Address::from(([127, 0, 0, 1], 50051)).to_string(), "127.0.0.1:50051");
/// # Ok::<(), trunkline_codec::Status>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// The path of a Unix socket, or `None` for an unnamed socket, such as that of most clients.
    Unix(Option<PathBuf>),
    /// The name of a Unix socket without a file, in the abstract namespace of Linux.
    UnixAbstract(Vec<u8>),
    /// A text that only a connector of the user understands, as in the target `passthrough:///text`.
    Passthrough(String),
    /// A connection in memory, or over a byte stream of the application.
    InMemory,
}

impl Address {
    /// Returns the IP address and port, or `None` if the address is not that of a TCP socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(addr) => Some(*addr),
            Self::Unix(_) | Self::UnixAbstract(_) | Self::Passthrough(_) | Self::InMemory => None,
        }
    }

    /// Parses a Unix socket with the prefix `unix:` or `unix-abstract:`. Returns `None` for other text,
    /// and a description of the problem as the error.
    ///
    /// The naming document (grpc/doc/naming.md): `unix:path`, `unix:///absolute_path`. They are URIs,
    /// in percent-encoding.
    pub(crate) fn local(text: &str) -> Option<Result<Self, String>> {
        if let Some(name) = after_scheme(text, "unix-abstract:") {
            return Some(local_name(name, "name").and_then(abstract_address));
        }
        let path = after_scheme(text, "unix:")?;
        Some(
            local_name(path, "path").and_then(|path| match path.contains(&0) {
                true => Err("the path has a NUL byte".to_owned()),
                false => path_address(path),
            }),
        )
    }

    /// Returns a Unix socket as tokio names it, and whether it has a file: a name without one has NUL
    /// in front.
    #[cfg(unix)]
    pub(crate) fn to_unix_path(&self) -> Option<(PathBuf, bool)> {
        use std::os::unix::ffi::OsStringExt;
        match self {
            Self::Unix(Some(path)) => Some((path.clone(), true)),
            Self::UnixAbstract(name) => {
                let name = [b"\0", &name[..]].concat();
                Some((std::ffi::OsString::from_vec(name).into(), false))
            }
            Self::Unix(None) | Self::Tcp(_) | Self::Passthrough(_) | Self::InMemory => None,
        }
    }
}

/// Returns the text after `scheme`, which counts in any case (RFC 3986, section 3.1).
pub(crate) fn after_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (before, after) = text.split_at_checked(scheme.len())?;
    before.eq_ignore_ascii_case(scheme).then_some(after)
}

/// Reads the part behind the scheme of a Unix socket.
fn local_name(text: &str, what: &str) -> Result<Vec<u8>, String> {
    let name = match text.strip_prefix("//") {
        None => text,
        Some(name) if name.starts_with('/') => name,
        Some(_) => return Err(format!("a {what} behind // has to begin with /")),
    };
    match name.is_empty() {
        true => Err(format!("the {what} is empty")),
        false => {
            let decoded = percent_decoded(name)?;
            match decoded.len() > UNIX_NAME_MAX {
                true => Err(format!(
                    "the {what} has {} bytes, and a socket's has at most {UNIX_NAME_MAX}",
                    decoded.len()
                )),
                false => Ok(decoded),
            }
        }
    }
}

#[cfg(unix)]
fn path_address(path: Vec<u8>) -> Result<Address, String> {
    use std::os::unix::ffi::OsStringExt;
    let path = std::ffi::OsString::from_vec(path);
    Ok(Address::Unix(Some(path.into())))
}

#[cfg(not(unix))]
fn path_address(_: Vec<u8>) -> Result<Address, String> {
    Err("Unix sockets are not supported on this system: use host:port".to_owned())
}

fn abstract_address(name: Vec<u8>) -> Result<Address, String> {
    match cfg!(any(target_os = "linux", target_os = "android")) {
        true => Ok(Address::UnixAbstract(name)),
        false => Err(match cfg!(unix) {
            true => "only Linux has Unix sockets without a file: use unix:/path".to_owned(),
            false => "only Linux has Unix sockets without a file: use host:port".to_owned(),
        }),
    }
}

/// Prints the address as in a target: `127.0.0.1:50051`, `unix:/path`, `unix-abstract:name`. Prints
/// `in-memory` for [`Address::InMemory`].
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(None) => f.write_str("unix:"),
            Self::Unix(Some(path)) => write!(f, "unix:{}", path_text(path)),
            Self::UnixAbstract(name) => {
                write!(
                    f,
                    "unix-abstract:{}{}",
                    slashes(name),
                    percent_encoded(name)
                )
            }
            Self::Passthrough(text) => {
                write!(f, "passthrough:///{}", percent_encoded(text.as_bytes()))
            }
            Self::InMemory => f.write_str("in-memory"),
        }
    }
}

/// Writes a path so that it is read back as the same: its text, with percent-encoding for `%`, control
/// characters, and what is not UTF-8.
fn path_text(path: &Path) -> String {
    let bytes = path.as_os_str().as_encoded_bytes();
    let mut text = slashes(bytes).to_owned();
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char == '%' || char.is_control() {
                true => text.extend(char.to_string().bytes().map(|it| format!("%{it:02X}"))),
                false => text.push(char),
            }
        }
        text.push_str(&percent_encoded(chunk.invalid()));
    }
    text
}

/// Two slashes in front of a name are those of a URI: a name that begins with two needs two more.
fn slashes(name: &[u8]) -> &'static str {
    match name.starts_with(b"//") {
        true => "//",
        false => "",
    }
}

/// Parses an IP address with its port, or a Unix socket. Fails for host names, which are not addresses.
impl FromStr for Address {
    type Err = Status;

    /// # Errors
    ///
    /// INVALID_ARGUMENT if the text is not an address; the message names the problem.
    fn from_str(text: &str) -> Result<Self, Status> {
        let invalid = |why: &str| {
            Status::invalid_argument(format!(
                "{text:?} is not an address: {why} (an address is of the form 127.0.0.1:50051, [::1]:50051, unix:/path or unix-abstract:name)"
            ))
        };
        if let Some(local) = Self::local(text) {
            return local.map_err(|why| invalid(&why));
        }
        if text == "in-memory" {
            return Ok(Self::InMemory);
        }
        let host = HostPort::parse(text).map_err(|why| invalid(&why))?;
        let Some(port) = host.port else {
            return Err(invalid("the port is missing"));
        };
        match host.address(port) {
            Some(address) => Ok(Self::Tcp(address)),
            None => Err(invalid("the host is a name, or its zone is")),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<SocketAddrV4> for Address {
    fn from(address: SocketAddrV4) -> Self {
        Self::Tcp(address.into())
    }
}

impl From<SocketAddrV6> for Address {
    fn from(address: SocketAddrV6) -> Self {
        Self::Tcp(address.into())
    }
}

/// Converts from an IP address and a port.
impl<I: Into<std::net::IpAddr>> From<(I, u16)> for Address {
    fn from(address: (I, u16)) -> Self {
        Self::Tcp(address.into())
    }
}

#[cfg(unix)]
impl From<std::os::unix::net::SocketAddr> for Address {
    fn from(address: std::os::unix::net::SocketAddr) -> Self {
        #[cfg(target_os = "android")]
        use std::os::android::net::SocketAddrExt;
        #[cfg(target_os = "linux")]
        use std::os::linux::net::SocketAddrExt;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(name) = address.as_abstract_name() {
            return Self::UnixAbstract(name.to_owned());
        }
        Self::Unix(address.as_pathname().map(Path::to_owned))
    }
}

#[cfg(unix)]
impl From<tokio::net::unix::SocketAddr> for Address {
    fn from(address: tokio::net::unix::SocketAddr) -> Self {
        std::os::unix::net::SocketAddr::from(address).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_printed_is_read_back() {
        let scoped = SocketAddrV6::new("fe80::1".parse().expect("an address"), 5, 0, 251);
        for (address, shown) in [
            (Address::from(([127, 0, 0, 1], 1)), "127.0.0.1:1"),
            (Address::from((std::net::Ipv6Addr::LOCALHOST, 0)), "[::1]:0"),
            (Address::from(scoped), "[fe80::1%251]:5"),
            (Address::InMemory, "in-memory"),
        ] {
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse::<Address>().expect("an address"), address);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_of_any_bytes_that_is_printed_is_read_back() {
        for (path, shown) in [
            (&b"/run/a.sock"[..], "unix:/run/a.sock"),
            (b"relative", "unix:relative"),
            (b"/a b%41", "unix:/a b%2541"),
            (b"//host/a", "unix:////host/a"),
            ("/\u{e4}\u{85}".as_bytes(), "unix:/\u{e4}%C2%85"),
            (b"/\xff\n", "unix:/%FF%0A"),
        ] {
            let address = path_address(path.to_vec()).expect("a path");
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse::<Address>().expect("an address"), address);
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[tokio::test]
    async fn the_address_of_a_socket_is_that_which_it_was_bound_to() {
        use std::os::unix::net::UnixListener;
        let name = format!("//trunkline-address-{}", std::process::id());
        let address = Address::UnixAbstract(name.into_bytes());
        let (path, has_file) = address.to_unix_path().expect("a Unix socket");
        assert!(!has_file);
        let listener = tokio::net::UnixListener::bind(path).expect("the name is free");
        let bound = listener.local_addr().expect("it is bound");
        assert_eq!(Address::from(bound), address);
        assert_eq!(
            address.to_string().parse::<Address>().expect("an address"),
            address
        );
        let std: UnixListener = listener.into_std().expect("a socket");
        let bound = std.local_addr().expect("it is bound");
        assert_eq!(Address::from(bound), address);
    }

    #[test]
    fn text_that_is_not_an_address_is_refused_with_the_reason() {
        for (text, why) in [
            ("localhost:1", "the host is a name"),
            ("[fe80::1%lo]:1", "the host is a name, or its zone is"),
            ("127.0.0.1", "the port is missing"),
            ("::1:1", "has to be in brackets"),
            ("unix:", ""),
        ] {
            let status = text.parse::<Address>().expect_err("no address");
            let message = status.message();
            assert!(
                message.starts_with(&format!("{text:?} is not an address: ")),
                "{message}"
            );
            assert!(message.contains(why), "{message}");
        }
    }
}
