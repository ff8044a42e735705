//! The authorities that a client trusts by default, selected by the features of this crate.

use rustls::RootCertStore;
use trunkline_codec::Status;

/// Loads the authorities that the system trusts.
///
/// # Errors
///
/// UNAVAILABLE if there are none.
#[cfg(feature = "tls-native-roots")]
pub(super) fn load() -> Result<RootCertStore, Status> {
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

/// Returns Mozilla's list of authorities.
///
/// # Errors
///
/// None.
#[cfg(all(feature = "tls-webpki-roots", not(feature = "tls-native-roots")))]
pub(super) fn load() -> Result<RootCertStore, Status> {
    Ok(RootCertStore::from_iter(
        webpki_roots::TLS_SERVER_ROOTS.iter().cloned(),
    ))
}

/// Fails: see [`check`].
///
/// # Errors
///
/// As [`check`].
#[cfg(not(any(feature = "tls-native-roots", feature = "tls-webpki-roots")))]
pub(super) fn load() -> Result<RootCertStore, Status> {
    check().map(|()| RootCertStore::empty())
}

/// Checks that this build has a list of authorities, without loading it.
///
/// # Errors
///
/// INVALID_ARGUMENT if the build has none. The message names the features that add one.
pub(super) fn check() -> Result<(), Status> {
    match cfg!(any(
        feature = "tls-native-roots",
        feature = "tls-webpki-roots"
    )) {
        true => Ok(()),
        false => Err(Status::invalid_argument(
            "this build trusts no authorities by default: enable the feature `tls-native-roots` or `tls-webpki-roots` of trunkline, or set your own with ClientTls::ca_file",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_a_list_of_authorities_says_which_features_bring_one() {
        match check() {
            Ok(()) => assert!(!load().expect("a list of authorities").is_empty()),
            Err(status) => assert!(status.message().contains("`tls-webpki-roots`"), "{status}"),
        }
    }
}
