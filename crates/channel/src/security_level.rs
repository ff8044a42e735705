//! The protection of a connection against others on the network.

use trunkline_transport::{Address, Target};

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
    /// Returns the level of connections to an address of `target`.
    pub(crate) fn of(address: &Address, target: &Target) -> Self {
        match address {
            _ if target.wants_tls() == Some(true) => Self::PrivacyAndIntegrity,
            // Behind the proxy is the network.
            _ if target.is_proxied() => Self::NoSecurity,
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
    use trunkline_transport::Proxy;

    use super::*;

    #[test]
    fn only_tls_secures_tcp_and_proxies() {
        let tcp = Address::Tcp(([127, 0, 0, 1], 1).into());
        let unix = Address::Unix(Some("/a".into()));
        let plain = Target::parse("a:1").expect("a target");
        let proxy = Proxy::parse("p:1").expect("a proxy");
        let proxied = plain.clone().through(proxy.into());
        let secure = proxied.clone().over_tls();
        for (address, target, level) in [
            (&tcp, &plain, SecurityLevel::NoSecurity),
            (&tcp, &secure, SecurityLevel::PrivacyAndIntegrity),
            (&unix, &plain, SecurityLevel::PrivacyAndIntegrity),
            (&unix, &proxied, SecurityLevel::NoSecurity),
            (
                &Address::InMemory,
                &plain,
                SecurityLevel::PrivacyAndIntegrity,
            ),
        ] {
            assert_eq!(
                SecurityLevel::of(address, target),
                level,
                "{address} {target}"
            );
        }
    }
}
