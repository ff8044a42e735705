//! The parts of an attempt at a call that its credentials can use.

use http::uri::{Authority, PathAndQuery};
use trunkline_channel::{Origin, SecurityLevel};
use trunkline_codec::Status;

/// An attempt at a call, as its credentials see it.
///
/// ```
/// use trunkline::credentials::CallInfo;
///
/// let call = CallInfo::new("example.com:443", "/helloworld.Greeter/SayHello")?;
/// assert_eq!(call.service_url(), "https://example.com/helloworld.Greeter");
/// # Ok::<(), trunkline::Status>(())
/// ```
#[derive(Clone, Debug)]
pub struct CallInfo {
    authority: Authority,
    path: PathAndQuery,
    security_level: SecurityLevel,
}

impl CallInfo {
    /// Creates the description of a call over TLS, for tests of credentials.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the authority or the path of the method is not valid.
    pub fn new(authority: &str, path: &str) -> Result<Self, Status> {
        let invalid = |error| Status::invalid_argument(format!("{authority:?}, {path:?}: {error}"));
        Ok(Self {
            authority: authority.parse().map_err(invalid)?,
            path: path.parse().map_err(invalid)?,
            security_level: SecurityLevel::PrivacyAndIntegrity,
        })
    }

    pub(crate) fn of(origin: &Origin, path: &PathAndQuery) -> Self {
        Self {
            authority: origin.authority.clone(),
            path: path.clone(),
            security_level: origin.security_level,
        }
    }

    /// Returns the URL of the service, `https://AUTHORITY/package.Service`, without the port if it is 443. Issuers of
    /// tokens use it as the audience.
    pub fn service_url(&self) -> String {
        let authority = self.authority.as_str();
        let authority = authority.strip_suffix(":443").unwrap_or(authority);
        let path = self.path();
        let service = path.rsplit_once('/').map_or(path, |(service, _)| service);
        format!("https://{authority}{service}")
    }

    /// Returns the path of the method, `/package.Service/Method`.
    pub fn path(&self) -> &str {
        self.path.as_str()
    }

    /// Returns the name of the server, as the call sends it in `:authority`. Over TLS, this is the name that the
    /// certificate of the server was checked for, unless the channel sets another authority or server name.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// Returns the protection of the connection.
    pub fn security_level(&self) -> SecurityLevel {
        self.security_level
    }
}
