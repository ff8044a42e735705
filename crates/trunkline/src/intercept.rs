//! Interceptors: code that runs around whole calls, on servers and on clients.
//!
//! [`Server::intercept`](crate::Server::intercept) and [`Channel::intercept`](crate::Channel::intercept) add an
//! [`Interceptor`], which is any `async fn(Context, Next) -> Result<()>`.

pub use crate::call::context::Context;
pub use crate::call::intercept::{Interceptor, Next};
pub use crate::call::kind::{CallKind, Side};
pub use crate::call::message_hooks::MessageRef;
