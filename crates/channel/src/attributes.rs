//! Typed values that travel with endpoints and resolutions.

use std::fmt;
use std::sync::Arc;

/// Typed values that a resolver attaches to an endpoint, or to all that it has found, for a balancer.
///
/// A set of attributes has at most one value of each type. Cloning is cheap. Attributes do not count for the identity
/// of an endpoint: a change of them reaches the balancer, and connections stay open.
///
/// ```
/// # mod trunkline { pub use trunkline_channel as channel; }
/// use trunkline::channel::Attributes;
///
/// #[derive(Clone, Debug, PartialEq)]
/// struct Zone(&'static str);
///
/// let attributes = Attributes::default().with(Zone("eu-west-1a"));
/// assert_eq!(attributes.get::<Zone>(), Some(&Zone("eu-west-1a")));
/// assert_eq!(attributes.get::<String>(), None);
/// ```
#[derive(Clone, Default)]
pub struct Attributes(Option<Arc<http::Extensions>>);

impl Attributes {
    /// Returns these attributes with `value`, which replaces an earlier value of the same type.
    #[must_use]
    pub fn with<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        Arc::make_mut(self.0.get_or_insert_default()).insert(value);
        self
    }

    /// Returns the value of type `T`, if there is one.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.0.as_ref()?.get()
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.as_ref().map_or(0, |it| it.len());
        write!(f, "Attributes({count})")
    }
}
