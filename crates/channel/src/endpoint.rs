//! Endpoints: the servers that a resolver has found.

use std::fmt;
use std::sync::Arc;

use trunkline_transport::Address;

use crate::attributes::Attributes;

/// A server that a resolver has found: its addresses, all of which lead to the same server, and its attributes.
///
/// Two endpoints are the same server if they have the same addresses, in any order; attributes do not count.
///
/// ```
/// # mod trunkline { pub use trunkline_channel as channel; pub use trunkline_transport::Address; }
/// use trunkline::Address;
/// use trunkline::channel::{Endpoint, EndpointWeight};
///
/// let endpoint = Endpoint::new(Address::Tcp(([10, 0, 0, 1], 50051).into())).with(EndpointWeight(3));
/// assert_eq!(endpoint.addresses().len(), 1);
/// assert_eq!(endpoint.attributes().get(), Some(&EndpointWeight(3)));
/// ```
#[derive(Clone, Debug)]
pub struct Endpoint {
    addresses: Arc<[Address]>,
    attributes: Attributes,
}

/// The weight of an endpoint among the others of its list, an attribute for policies that use weights. Default: 1;
/// 0 counts as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointWeight(pub u32);

/// The key of an endpoint on the ring of the policy `ring_hash_experimental`, an attribute (gRFC A76). Default:
/// the first address as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HashKey(pub Arc<str>);

/// The identity of an endpoint: the set of its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EndpointKey(Box<[Address]>);

impl Endpoint {
    /// Creates an endpoint with one address.
    pub fn new(address: Address) -> Self {
        Self::with_addresses([address])
    }

    /// Creates an endpoint with several addresses, in the order in which to try them.
    pub fn with_addresses(addresses: impl IntoIterator<Item = Address>) -> Self {
        Self {
            addresses: addresses.into_iter().collect(),
            attributes: Attributes::default(),
        }
    }

    /// Returns this endpoint with an attribute, which replaces an earlier one of the same type.
    #[must_use]
    pub fn with<T: Clone + Send + Sync + 'static>(mut self, attribute: T) -> Self {
        self.attributes = self.attributes.with(attribute);
        self
    }

    /// Returns the addresses.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Returns the attributes.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// Returns the weight, at least 1: see [`EndpointWeight`].
    pub fn weight(&self) -> u32 {
        let weight = self.attributes.get::<EndpointWeight>();
        weight.map_or(1, |it| it.0.max(1))
    }

    /// Returns true if `other` is the same server.
    pub fn is_same(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    /// Returns the identity of the server.
    pub(crate) fn key(&self) -> EndpointKey {
        let mut addresses = self.addresses.to_vec();
        addresses.sort_unstable();
        addresses.dedup();
        EndpointKey(addresses.into())
    }
}

/// The addresses, as messages name the endpoint.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, address) in self.addresses.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            write!(f, "{separator}{address}")?;
        }
        Ok(())
    }
}
