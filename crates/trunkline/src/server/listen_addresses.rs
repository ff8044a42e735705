//! The addresses on which a server listens, as users write them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use trunkline_codec::Status;
use trunkline_transport::Address;

/// The addresses on which a server listens: one, or a list.
///
/// An address is text (`host:port`, `unix:/path`, or on Linux `unix-abstract:name`), a [`SocketAddr`],
/// an IP address with a port, or an [`Address`].
///
/// ```
/// use std::net::{Ipv6Addr, SocketAddr};
/// use trunkline::server::ListenAddresses;
///
/// let address = SocketAddr::from(([10, 0, 0, 1], 50051));
/// assert_eq!(ListenAddresses::from(address).to_string(), "10.0.0.1:50051");
/// let local = (Ipv6Addr::LOCALHOST, 50051);
/// assert_eq!(ListenAddresses::from(local).to_string(), "[::1]:50051");
/// let both = ListenAddresses::from(["127.0.0.1:50051", "unix:/run/greeter.sock"]);
/// assert_eq!(both.to_string(), "127.0.0.1:50051, unix:/run/greeter.sock");
/// ```
#[derive(Clone, Debug)]
pub struct ListenAddresses(Vec<String>);

impl ListenAddresses {
    /// Returns the addresses as text.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the list is empty.
    pub(crate) fn texts(&self) -> Result<&[String], Status> {
        match self.0.is_empty() {
            false => Ok(&self.0),
            true => Err(Status::invalid_argument(
                "cannot listen: the list of addresses is empty",
            )),
        }
    }
}

impl From<String> for ListenAddresses {
    fn from(address: String) -> Self {
        Self(vec![address])
    }
}

impl From<&str> for ListenAddresses {
    fn from(address: &str) -> Self {
        address.to_owned().into()
    }
}

impl From<&String> for ListenAddresses {
    fn from(address: &String) -> Self {
        address.clone().into()
    }
}

impl From<SocketAddr> for ListenAddresses {
    fn from(address: SocketAddr) -> Self {
        address.to_string().into()
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for ListenAddresses {
    fn from(address: (I, u16)) -> Self {
        SocketAddr::from(address).into()
    }
}

impl From<Address> for ListenAddresses {
    fn from(address: Address) -> Self {
        address.to_string().into()
    }
}

impl From<&Address> for ListenAddresses {
    fn from(address: &Address) -> Self {
        address.to_string().into()
    }
}

impl<T: Into<Self>, const N: usize> From<[T; N]> for ListenAddresses {
    fn from(addresses: [T; N]) -> Self {
        addresses.into_iter().collect()
    }
}

impl<T: Into<Self>> From<Vec<T>> for ListenAddresses {
    fn from(addresses: Vec<T>) -> Self {
        addresses.into_iter().collect()
    }
}

impl<T: Into<Self> + Clone> From<&[T]> for ListenAddresses {
    fn from(addresses: &[T]) -> Self {
        addresses.iter().cloned().collect()
    }
}

impl<T: Into<Self>> FromIterator<T> for ListenAddresses {
    fn from_iter<I: IntoIterator<Item = T>>(addresses: I) -> Self {
        let lists = addresses.into_iter().map(|address| address.into().0);
        Self(lists.flatten().collect())
    }
}

impl fmt::Display for ListenAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}
