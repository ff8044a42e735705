//! Call credentials: metadata that identifies the caller, such as a bearer token.
//!
//! Credentials belong to all calls of a channel ([`ChannelBuilder::credentials`], [`Channel::credentials`]) or to one
//! call ([`Call::credentials`]). A call with both sends both, the channel's first. They run once for each attempt at the
//! call, after a connection has been picked, and within the call's deadline.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline::Result<()> {
//! use trunkline::Channel;
//! use trunkline::credentials::BearerToken;
//!
//! let channel = Channel::to("https://localhost:50051")
//!     .credentials(BearerToken::new("sesame")?)
//!     .connect_lazy()?;
//! # Ok(()) }
//! ```
//!
//! | to send | use |
//! | --- | --- |
//! | a token that does not change | [`BearerToken`] |
//! | a JSON Web Token from a file that another program renews, such as a Kubernetes service account token | [`JwtFile`] |
//! | a token that your code fetches, cached until shortly before it expires | [`CachedToken`] |
//! | a token of an OAuth 2.0 server | [`CachedToken`] with [`TokenRequest`] |
//! | anything else | your own [`CallCredentials`] |
//!
//! **Credentials are not sent over a connection that others on the network can read, by default.** A call whose
//! connection has a lower [`SecurityLevel`] than its credentials require fails with UNAUTHENTICATED before anything is
//! sent, and [`ChannelBuilder::connect_lazy`] returns INVALID_ARGUMENT if no target can have that level. If the network
//! itself encrypts, as a service mesh does, use [`CallCredentials::allow_plaintext`].
//!
//! HTTP/2 does not index the values that credentials add, and `Debug` does not print them (RFC 7541, section 7.1.3).
//! Interceptors and observers do not receive them.
//!
//! [`Call::credentials`]: crate::Call::credentials
//! [`Channel::credentials`]: crate::Channel::credentials
//! [`ChannelBuilder::connect_lazy`]: crate::ChannelBuilder::connect_lazy
//! [`ChannelBuilder::credentials`]: crate::ChannelBuilder::credentials

mod attached;
mod bearer_token;
mod cached_token;
mod call_credentials;
mod call_info;
mod jwt;
mod jwt_file;
mod oauth2;
mod token;
mod token_cache;

pub(crate) use attached::AttachedCredentials;
pub use bearer_token::BearerToken;
pub use cached_token::CachedToken;
pub use call_credentials::{AllowPlaintext, CallCredentials, Composite};
pub use call_info::CallInfo;
pub use jwt_file::JwtFile;
pub use oauth2::{SubjectTokenType, TokenRequest};
pub use token::Token;
pub use trunkline_channel::SecurityLevel;
