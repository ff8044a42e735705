//! The trait of call credentials, and what combines them.

use std::pin::Pin;

use trunkline_codec::{Metadata, Status};

use crate::credentials::call_info::CallInfo;
use trunkline_channel::SecurityLevel;

/// A source of metadata that identifies the caller.
///
/// ```
/// use trunkline::credentials::{CallCredentials, CallInfo};
/// use trunkline::{Metadata, Status};
///
/// /// Signs the method of each call.
/// struct Signature;
///
/// impl CallCredentials for Signature {
///     async fn metadata(&self, call: &CallInfo) -> Result<Metadata, Status> {
///         let mut metadata = Metadata::new();
///         metadata.insert("x-signature", &format!("signed:{}", call.path()))?;
///         Ok(metadata)
///     }
/// }
/// ```
pub trait CallCredentials: Send + Sync + 'static {
    /// Returns the metadata to add to one attempt at a call.
    ///
    /// The method must not block the thread. It runs for many calls at the same time, and is dropped when the call
    /// ends, by its deadline or because it is cancelled. [`CachedToken`](crate::credentials::CachedToken) shares one
    /// fetch among all calls.
    ///
    /// # Errors
    ///
    /// The call fails with the status that you return. Return UNAVAILABLE if a retry may help, and otherwise
    /// UNAUTHENTICATED. Codes that are reserved for applications, such as NOT_FOUND, become INTERNAL (gRFC A54).
    fn metadata(&self, call: &CallInfo) -> impl Future<Output = Result<Metadata, Status>> + Send;

    /// Returns the lowest level of a connection on which the metadata may be sent. Default:
    /// [`SecurityLevel::PrivacyAndIntegrity`].
    fn required_security(&self) -> SecurityLevel {
        SecurityLevel::PrivacyAndIntegrity
    }

    /// Returns the same credentials for any connection, including plaintext TCP.
    ///
    /// Anyone on the network can then read and use the credentials, unless something else encrypts the traffic, as a
    /// service mesh does.
    fn allow_plaintext(self) -> AllowPlaintext<Self>
    where
        Self: Sized,
    {
        AllowPlaintext(self)
    }

    /// Returns credentials that add the metadata of `self`, followed by that of `other`. They require the higher
    /// security level of the two.
    fn and<C: CallCredentials>(self, other: C) -> Composite<Self, C>
    where
        Self: Sized,
    {
        Composite(self, other)
    }
}

/// Credentials for any connection, which [`CallCredentials::allow_plaintext`] returns.
///
/// ```
/// use trunkline::credentials::{BearerToken, CallCredentials, SecurityLevel};
///
/// let token = BearerToken::new("sesame")?.allow_plaintext();
/// assert_eq!(token.required_security(), SecurityLevel::NoSecurity);
/// # Ok::<(), trunkline::Status>(())
/// ```
#[derive(Clone, Debug)]
pub struct AllowPlaintext<C>(C);

impl<C: CallCredentials> CallCredentials for AllowPlaintext<C> {
    fn metadata(&self, call: &CallInfo) -> impl Future<Output = Result<Metadata, Status>> + Send {
        self.0.metadata(call)
    }

    fn required_security(&self) -> SecurityLevel {
        SecurityLevel::NoSecurity
    }
}

/// Two credentials in one, which [`CallCredentials::and`] returns.
///
/// ```
/// use trunkline::credentials::{BearerToken, CallCredentials, SecurityLevel};
///
/// let both = BearerToken::new("a")?.and(BearerToken::new("b")?.allow_plaintext());
/// assert_eq!(both.required_security(), SecurityLevel::PrivacyAndIntegrity);
/// # Ok::<(), trunkline::Status>(())
/// ```
#[derive(Clone, Debug)]
pub struct Composite<A, B>(A, B);

impl<A: CallCredentials, B: CallCredentials> CallCredentials for Composite<A, B> {
    async fn metadata(&self, call: &CallInfo) -> Result<Metadata, Status> {
        let mut metadata = self.0.metadata(call).await?;
        metadata.extend(self.1.metadata(call).await?);
        Ok(metadata)
    }

    fn required_security(&self) -> SecurityLevel {
        self.0.required_security().max(self.1.required_security())
    }
}

type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Metadata, Status>> + Send + 'a>>;

/// [`CallCredentials`] of any type.
pub(crate) trait AnyCredentials: Send + Sync {
    fn metadata<'a>(&'a self, call: &'a CallInfo) -> Fetching<'a>;
    fn required_security(&self) -> SecurityLevel;
}

impl<C: CallCredentials> AnyCredentials for C {
    fn metadata<'a>(&'a self, call: &'a CallInfo) -> Fetching<'a> {
        Box::pin(CallCredentials::metadata(self, call))
    }

    fn required_security(&self) -> SecurityLevel {
        CallCredentials::required_security(self)
    }
}
