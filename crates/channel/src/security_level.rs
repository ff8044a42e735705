//! The protection of a connection against others on the network.

use trunkline_transport::Address;

/// The protection of a connection, which call credentials can demand.
///
/// ```
/// # mod trunkline { pub use trunkline_channel as credentials; }
/// use trunkline::credentials::SecurityLevel;
///
/// assert!(SecurityLevel::IntegrityOnly < SecurityLevel::PrivacyAndIntegrity);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SecurityLevel {
    /// Others on the network can read and change data: TCP without TLS, even on the loopback interface.
    #[default]
    NoSecurity,
    /// Others can read data, but not change it. No connection of Trunkline has this level.
    IntegrityOnly,
    /// Others can neither read nor change data: TLS, Unix sockets, and servers in the same process.
    PrivacyAndIntegrity,
}

impl SecurityLevel {
    /// Returns the level of connections to `address`.
    pub(crate) fn of(address: &Address, is_secure: bool) -> Self {
        match address {
            _ if is_secure => Self::PrivacyAndIntegrity,
            Address::Unix(_) | Address::UnixAbstract(_) | Address::InMemory => {
                Self::PrivacyAndIntegrity
            }
            // Addresses of a kind that is not known here count as TCP.
            _ => Self::NoSecurity,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tls_secures_tcp() {
        let tcp = Address::Tcp(([127, 0, 0, 1], 1).into());
        let unix = Address::Unix(Some("/a".into()));
        for (address, is_secure, level) in [
            (&tcp, false, SecurityLevel::NoSecurity),
            (&tcp, true, SecurityLevel::PrivacyAndIntegrity),
            (&unix, false, SecurityLevel::PrivacyAndIntegrity),
            (
                &Address::InMemory,
                false,
                SecurityLevel::PrivacyAndIntegrity,
            ),
        ] {
            assert_eq!(
                SecurityLevel::of(address, is_secure),
                level,
                "{address} {is_secure}"
            );
        }
    }
}
