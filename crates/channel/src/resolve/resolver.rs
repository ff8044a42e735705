//! Resolvers: user code that finds the endpoints of a target and follows their changes.

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use http::uri::Authority;
use tokio::sync::{Notify, mpsc, oneshot};
use trunkline_codec::Status;

use super::target_uri::TargetUri;
use crate::attributes::Attributes;
use crate::config::ServiceConfig;
use crate::config::config_parser::ConfigParser;
use crate::endpoint::Endpoint;

/// Finds the endpoints of the targets of one or several URI schemes, and reports their changes.
///
/// A channel whose target has one of the [`schemes`](Self::schemes) runs the future of [`start`](Self::start) while it
/// is in use, and drops it when it becomes idle or is dropped. The future reports what it finds with [`Updates::put`],
/// as often as it likes.
///
/// ```
/// # mod trunkline { pub use trunkline_channel as channel; pub use trunkline_transport::Address; }
/// use tokio::sync::watch;
/// use trunkline::Address;
/// use trunkline::channel::{Endpoint, Resolution, Resolver, TargetUri, Updates};
///
/// /// A registry in this process, which pushes every change.
/// struct Registry(watch::Receiver<Vec<Address>>);
///
/// impl Resolver for Registry {
///     fn schemes(&self) -> &[&str] {
///         &["registry"]
///     }
///
///     fn start(&self, _: &TargetUri, mut updates: Updates) -> impl Future<Output = ()> + Send + 'static {
///         let mut addresses = self.0.clone();
///         async move {
///             loop {
///                 let endpoints = addresses.borrow_and_update().iter().cloned().map(Endpoint::new).collect();
///                 updates.put(Resolution::new(endpoints)).await;
///                 if addresses.changed().await.is_err() {
///                     return;
///                 }
///             }
///         }
///     }
/// }
/// ```
pub trait Resolver: Send + Sync + 'static {
    /// Returns the schemes: a letter, then letters, digits, `+`, `-` or `.`; compared without regard to case.
    fn schemes(&self) -> &[&str];

    /// Returns the [`Authority`](https://docs.rs/http/1/http/uri/struct.Authority.html) of `target`, `host` or
    /// `host:port`: the value of `:authority` in calls, unless `ChannelBuilder::authority` sets another. Its
    /// host is also the name for which the certificate of a server must be valid, unless
    /// `ClientTls::server_name` sets another. Default: the path of the target.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the target is not valid for this resolver. Building the channel fails with it.
    fn authority(&self, target: &TargetUri) -> Result<Authority, Status> {
        let path = target.path_text();
        Authority::try_from(&*path).map_err(|_| {
            Status::invalid_argument(format!(
                "cannot connect to {target}: {path:?} is not an authority, such as example.com:443; set ChannelBuilder::authority"
            ))
        })
    }

    /// Returns the future that resolves `target` until it is dropped. If it ends, the endpoints stay as they are. If it
    /// panics, the channel starts it again after a pause.
    fn start(
        &self,
        target: &TargetUri,
        updates: Updates,
    ) -> impl Future<Output = ()> + Send + 'static;
}

/// Endpoints, and what belongs to them, for [`Updates::put`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Resolution {
    /// The endpoints, or the error that the resolver has met. After an error, the endpoints of the last
    /// resolution without one stay in use. If there was none, calls fail with the error, except those that wait
    /// for ready.
    pub endpoints: Result<Vec<Endpoint>, Status>,
    /// The service config, from [`Updates::service_config`]; `None` if the resolver has none. After an
    /// error, the previous service config stays in use. If there was none, the default of the channel is used; if it has
    /// no default, calls fail with the error (gRFC A21).
    pub service_config: Option<Result<Arc<ServiceConfig>, Status>>,
    /// Attributes of the whole resolution, for balancers.
    pub attributes: Attributes,
    /// A note that is appended to the error message of calls if the list of endpoints is empty, such as the
    /// reason. Default: empty.
    pub note: Cow<'static, str>,
    /// Further endpoints are on their way: a failure to connect is not final.
    pub(crate) is_partial: bool,
}

impl Resolution {
    /// Creates a resolution of endpoints.
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self {
            endpoints: Ok(endpoints),
            service_config: None,
            attributes: Attributes::default(),
            note: Cow::Borrowed(""),
            is_partial: false,
        }
    }

    /// Creates a resolution that has failed.
    pub fn failed(status: Status) -> Self {
        Self {
            endpoints: Err(status),
            ..Self::new(Vec::new())
        }
    }
}

/// The response of a channel to a [`Resolution`].
#[derive(Clone, Debug)]
#[must_use = "a resolver should look again, after a pause, if its resolution was refused"]
pub enum Verdict {
    /// The channel uses the resolution.
    Used,
    /// The channel cannot use it, for this reason. The resolver should pause and look again.
    Refused(Status),
}

/// A resolution on its way to the control task.
pub(crate) struct PushedResolution {
    pub(crate) resolution: Resolution,
    pub(crate) verdict: oneshot::Sender<Verdict>,
}

/// The handle with which a resolver passes what it finds to the channel.
pub struct Updates {
    to: mpsc::Sender<PushedResolution>,
    wanted: Arc<Notify>,
    parser: Arc<ConfigParser>,
}

impl Updates {
    pub(crate) fn new(
        to: mpsc::Sender<PushedResolution>,
        wanted: Arc<Notify>,
        parser: Arc<ConfigParser>,
    ) -> Self {
        Self { to, wanted, parser }
    }

    /// Parses a service config with the load balancing policies and limits of the channel, for
    /// [`Resolution::service_config`].
    ///
    /// # Errors
    ///
    /// The errors of [`ServiceConfig::parse`]. Put them into the resolution as well.
    pub fn service_config(&self, json: &str) -> Result<Arc<ServiceConfig>, Status> {
        self.parser.parse(json)
    }

    /// Passes a resolution to the channel, and waits for its verdict.
    pub async fn put(&mut self, resolution: Resolution) -> Verdict {
        let (verdict, verdict_receiver) = oneshot::channel();
        let resolved = PushedResolution {
            resolution,
            verdict,
        };
        // Both fail only in a channel that is going away, which drops this future.
        if self.to.send(resolved).await.is_err() {
            return std::future::pending().await;
        }
        match verdict_receiver.await {
            Ok(verdict) => verdict,
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until the channel asks for a new look, because it has lost a connection or cannot open one.
    /// Requests that arrive before this is awaited count as one. A resolver decides how often it looks.
    ///
    /// A resolver that asks a registry again and again, at least once a minute and at most once a second:
    ///
    /// ```
    /// # mod trunkline { pub use trunkline_channel as channel; pub use trunkline_codec::Status; pub use trunkline_transport::Address; }
    /// use std::time::Duration;
    /// use tokio::time::{sleep, timeout};
    /// use trunkline::channel::{Endpoint, Resolution, Updates, Verdict};
    ///
    /// # async fn look_up() -> Result<Vec<Endpoint>, trunkline::Status> { Ok(Vec::new()) }
    /// async fn poll(mut updates: Updates) {
    ///     loop {
    ///         let resolution = look_up().await.map_or_else(Resolution::failed, Resolution::new);
    ///         let pause = match updates.put(resolution).await {
    ///             Verdict::Used => Duration::from_secs(60),
    ///             // The channel cannot use the list, because it is empty, for example.
    ///             Verdict::Refused(_) => Duration::from_secs(5),
    ///         };
    ///         sleep(Duration::from_secs(1)).await;
    ///         let _ = timeout(pause, updates.asked()).await;
    ///     }
    /// }
    /// ```
    pub async fn asked(&mut self) {
        self.wanted.notified().await;
    }
}

impl Updates {
    /// Drops the requests that have arrived: what follows them is new enough.
    pub(crate) fn forget_requests(&self) {
        let mut request = std::pin::pin!(self.wanted.notified());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = request.as_mut().poll(&mut cx);
    }
}

impl fmt::Debug for Updates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Updates").finish_non_exhaustive()
    }
}

pub(crate) type Resolving = Pin<Box<dyn Future<Output = ()> + Send>>;

trait ErasedResolver: Send + Sync {
    fn schemes(&self) -> &[&str];
    fn authority(&self, target: &TargetUri) -> Result<Authority, Status>;
    fn start(&self, target: &TargetUri, updates: Updates) -> Resolving;
}

impl<R: Resolver> ErasedResolver for R {
    fn schemes(&self) -> &[&str] {
        Resolver::schemes(self)
    }

    fn authority(&self, target: &TargetUri) -> Result<Authority, Status> {
        Resolver::authority(self, target)
    }

    fn start(&self, target: &TargetUri, updates: Updates) -> Resolving {
        Box::pin(Resolver::start(self, target, updates))
    }
}

/// A resolver of any type.
#[derive(Clone)]
pub(crate) struct AnyResolver(Arc<dyn ErasedResolver>);

impl AnyResolver {
    pub(crate) fn new(resolver: impl Resolver) -> Self {
        Self(Arc::new(resolver))
    }

    pub(crate) fn has_scheme(&self, scheme: &str) -> bool {
        let mut schemes = self.0.schemes().iter();
        schemes.any(|it| it.eq_ignore_ascii_case(scheme))
    }

    pub(crate) fn authority(&self, target: &TargetUri) -> Result<Authority, Status> {
        self.0.authority(target)
    }

    pub(crate) fn start(&self, target: &TargetUri, updates: Updates) -> Resolving {
        self.0.start(target, updates)
    }
}

impl fmt::Debug for AnyResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resolver").field(&self.0.schemes()).finish()
    }
}
