//! Which of its endpoints a channel calls.

use crate::target_address::TargetAddress;

/// The policy that spreads calls over the addresses of a channel.
///
/// All that is built on connections, such as retries or the ejection of bad addresses, will be said
/// in the same place: how endpoints become subchannels, and which subchannel a call uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Spread {
    /// All calls go to one address, the first that can be reached.
    #[default]
    PickFirst,
    /// There is a connection to every address, and calls take those that can be used in turn.
    RoundRobin,
}

impl Spread {
    /// A subchannel has connections to one of its endpoints.
    pub(crate) fn subchannels(self, endpoints: Vec<TargetAddress>) -> Vec<Vec<TargetAddress>> {
        match self {
            Self::PickFirst => vec![endpoints],
            Self::RoundRobin => endpoints.into_iter().map(|it| vec![it]).collect(),
        }
    }

    /// Returns true if a subchannel connects again without waiting for a call.
    pub(crate) fn stays_connected(self) -> bool {
        match self {
            Self::PickFirst => false,
            Self::RoundRobin => true,
        }
    }
}
