//! The lists of authorities that a client can trust, which the features of this crate add.

use rustls::RootCertStore;
use trunkline_codec::Status;

/// A list of authorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Roots {
    /// The system's list.
    #[cfg(feature = "tls-native-roots")]
    Native,
    /// Mozilla's list.
    #[cfg(feature = "tls-webpki-roots")]
    Webpki,
}

impl Roots {
    /// Returns the default list of this build.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the build has none. The message names the features that add one.
    pub(super) fn of_build() -> Result<Self, Status> {
        let lists: &[Self] = &[
            #[cfg(feature = "tls-native-roots")]
            Self::Native,
            #[cfg(feature = "tls-webpki-roots")]
            Self::Webpki,
        ];
        lists.first().copied().ok_or_else(|| {
            Status::invalid_argument(
                "this build trusts no authorities by default: enable the feature `tls-native-roots` or `tls-webpki-roots` of trunkline, or set your own with ClientTls::ca_file",
            )
        })
    }

    /// Loads the list.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if the system has none.
    pub(super) fn load(self) -> Result<RootCertStore, Status> {
        match self {
            #[cfg(feature = "tls-native-roots")]
            Self::Native => load_native(),
            #[cfg(feature = "tls-webpki-roots")]
            Self::Webpki => Ok(RootCertStore::from_iter(
                webpki_roots::TLS_SERVER_ROOTS.iter().cloned(),
            )),
        }
    }
}

#[cfg(feature = "tls-native-roots")]
fn load_native() -> Result<RootCertStore, Status> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Certificates that the verifier cannot parse are skipped: systems have some.
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        let why = match loaded.errors.first() {
            None => String::new(),
            Some(error) => format!(": {error}"),
        };
        return Err(Status::unavailable(format!(
            "this system has no certificates of authorities{why}; install them (Debian: ca-certificates), or set your own with ClientTls::ca_file"
        )));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_a_list_of_authorities_says_which_features_bring_one() {
        match Roots::of_build() {
            Ok(roots) => assert!(!roots.load().expect("a list of authorities").is_empty()),
            Err(status) => assert!(status.message().contains("`tls-webpki-roots`"), "{status}"),
        }
    }
}
