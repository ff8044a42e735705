//! The builder of a channel, with its settings.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use trunkline_channel::{
    ChannelLimits, ChannelSettings, Connections, Lookup, Policy, Resolver, Targets,
};
use trunkline_codec::head::ClientFields;
use trunkline_codec::{Compressor, Compressors, Metadata, Status};
#[cfg(feature = "__tls")]
use trunkline_transport::ClientTls;
use trunkline_transport::{Address, Proxy};

use crate::call::compression::find_compressor;
use crate::client::backend::{Backend, BackendKind, ChannelOptions};
use crate::client::channel::Channel;
use crate::client::defaults::CallDefaults;
use crate::credentials::{AttachedCredentials, CallCredentials};

/// gRFC A8, "Client-side behavior": a client must not send PING frames more often.
const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(10);

/// A builder of channels with settings, which [`Channel::to`] returns.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline::Result<()> {
/// use trunkline::Channel;
///
/// let channel = Channel::to("localhost:50051").round_robin().compress("gzip").connect_lazy()?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ChannelBuilder {
    settings: ChannelSettings,
    authority: Option<String>,
    limits: ChannelLimits,
    compressors: Compressors,
    compress: Option<String>,
    /// `None` if no default is set.
    defaults: Option<Box<CallDefaults>>,
}

impl Channel {
    /// Connects to an address, to text such as `host:port`, `http://host:port`, `https://host:port` or
    /// `unix:/path`, or to a list of them; see [`Targets`]. If the text contains no port, it is 80 for
    /// `http://` and 443 otherwise, even without TLS; so write the port.
    ///
    /// ```no_run
    /// # use trunkline::Channel;
    /// # async fn example() -> trunkline::Result<()> {
    /// let by_name = Channel::connect("localhost:50051").await?;
    /// let server = trunkline::Server::new().bind("127.0.0.1:0").await?;
    /// let by_address = Channel::connect(server.local_addr()).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// `https://` uses TLS with the certificate authorities that the system trusts. For other authorities
    /// or a client certificate, use [`ChannelBuilder::tls`].
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if a target is malformed. UNAVAILABLE if the name does not resolve, or if no
    /// HTTP/2 server responds; each of the two steps has a time limit, `connect_timeout` (default: 20 s).
    pub async fn connect(targets: impl Into<Targets>) -> Result<Self, Status> {
        Self::to(targets).connect().await
    }

    /// Returns the builder of a channel to one target or to several; see [`Targets`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline::Result<()> {
    /// let channel = trunkline::Channel::to("localhost:50051")
    ///     .connect_timeout(Duration::from_secs(1))
    ///     .max_recv_message_size(16 << 20)
    ///     .connect_lazy()?;
    /// # Ok(()) }
    /// ```
    pub fn to(targets: impl Into<Targets>) -> ChannelBuilder {
        ChannelBuilder::new(targets.into())
    }
}

impl ChannelBuilder {
    fn new(targets: Targets) -> Self {
        Self {
            settings: ChannelSettings::new(targets),
            authority: None,
            limits: ChannelLimits::default(),
            compressors: Compressors::default(),
            compress: None,
            defaults: None,
        }
    }

    /// Returns the channel after it has connected.
    ///
    /// # Errors
    ///
    /// The errors of [`connect_lazy`](Self::connect_lazy), and of [`Channel::connect`].
    pub async fn connect(self) -> Result<Channel, Status> {
        let channel = self.connect_lazy()?;
        if let Some(connections) = channel.backend.connections() {
            connections.connect().await?;
        }
        Ok(channel)
    }

    /// Returns the channel immediately. It connects at its first call.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if a target, the authority or the metadata is invalid, the TLS files cannot be
    /// used, the channel has no [compressor](Self::compress) of the selected name, or its
    /// [credentials](Self::credentials) would be sent in plaintext.
    pub fn connect_lazy(self) -> Result<Channel, Status> {
        let mut settings = self.settings;
        if let Some(text) = self.authority {
            let authority = text.parse();
            settings.authority = Some(authority.map_err(|_| {
                Status::invalid_argument(format!(
                    "{text:?} is not an authority, such as example.com:443"
                ))
            })?);
        }
        let compress = match &self.compress {
            None => None,
            Some(name) => find_compressor("the channel", name, &self.compressors)
                .map_err(Status::invalid_argument)?,
        };
        if let Some(failure) = self.defaults.as_ref().and_then(|it| it.failure.as_ref()) {
            return Err(Status::invalid_argument(failure.message()));
        }
        let limits = Arc::new(self.limits);
        settings.limits = limits.clone();
        let fields = ClientFields::new(self.compressors);
        let connections = Connections::new(settings)?;
        let credentials = self.defaults.as_ref();
        if let Some(credentials) = credentials.and_then(|it| it.credentials.as_ref())
            && credentials.required_security() > connections.security_level()
        {
            return Err(Status::invalid_argument(format!(
                "the channel to {connections} has call credentials and would send them in plaintext: use TLS, or `allow_plaintext()` of the credentials if something else encrypts the traffic"
            )));
        }
        let mut options = ChannelOptions::new(limits, fields);
        options.compress = compress;
        options.defaults = self.defaults;
        let connections = BackendKind::Server(connections);
        Ok(Channel::of(Backend::new(connections, options)))
    }

    /// Sets the TLS settings, and uses TLS for every target except `http://`.
    ///
    /// ```no_run
    /// # async fn example() -> trunkline::Result<()> {
    /// use trunkline::tls::ClientTls;
    /// use trunkline::Channel;
    ///
    /// let channel = Channel::to("https://localhost:50051")
    ///     .tls(ClientTls::new().ca_file("ca.pem"))
    ///     .connect()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "__tls")]
    #[must_use]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.settings.tls = Some(tls);
        self
    }

    /// Sends all calls to one address: the first, in the order of the list, that can be reached. This is
    /// the default.
    #[must_use]
    pub fn pick_first(mut self) -> Self {
        self.settings.set_policy("pick_first");
        self
    }

    /// Keeps a connection to every address, and distributes calls evenly over the addresses that can be
    /// reached.
    #[must_use]
    pub fn round_robin(mut self) -> Self {
        self.settings.set_policy("round_robin");
        self
    }

    /// Selects a load balancing policy by its name, with its default configuration: one that [`policy`](Self::policy)
    /// has added, or a [built-in one](crate::balancing::Policies::builtin). Default: `pick_first`. A service config can
    /// select another.
    ///
    /// | name | use of the servers |
    /// | --- | --- |
    /// | `pick_first` | all calls go to the first address that can be reached |
    /// | `round_robin` | calls go to all connected servers in turn |
    /// | `weighted_round_robin` | calls follow weights, from the load that servers report |
    /// | `least_request_experimental` | a call goes to the server with the fewest calls, of a few chosen at random |
    /// | `ring_hash_experimental` | calls with the same hash go to the same server |
    /// | `random_subsetting_experimental` | the client uses some of the servers, with another policy; needs a configuration |
    /// | `outlier_detection_experimental` | servers that fail more often than others are avoided, with another policy; needs a configuration |
    ///
    /// If no policy has this name, or the policy needs a configuration, [`connect_lazy`](Self::connect_lazy) returns
    /// INVALID_ARGUMENT.
    #[must_use]
    pub fn use_policy(mut self, name: &str) -> Self {
        self.settings.set_policy(name);
        self
    }

    /// Adds a load balancing policy of your own. This does not select it: [`use_policy`](Self::use_policy) or a
    /// service config does, by its name.
    ///
    /// If a policy of this name exists, [`connect_lazy`](Self::connect_lazy) returns INVALID_ARGUMENT.
    #[must_use]
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.settings.add_policy(policy);
        self
    }

    /// Sets the service config that is in force while the resolver has none: JSON, as in
    /// grpc/doc/service_config.md. Default: none.
    ///
    /// It selects the load balancing policy, timeouts, limits, retries and hedging for methods.
    /// [`ServiceConfig`](crate::channel::ServiceConfig) lists the specifications that define it. If it is invalid,
    /// [`connect_lazy`](Self::connect_lazy) returns INVALID_ARGUMENT, which names the field.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline::Result<()> {
    /// let channel = trunkline::Channel::to("localhost:50051")
    ///     .service_config(r#"{"methodConfig": [{
    ///         "name": [{"service": "helloworld.Greeter"}],
    ///         "retryPolicy": {
    ///             "maxAttempts": 4,
    ///             "initialBackoff": "0.1s",
    ///             "maxBackoff": "1s",
    ///             "backoffMultiplier": 2,
    ///             "retryableStatusCodes": ["UNAVAILABLE"]
    ///         }
    ///     }]}"#)
    ///     .connect_lazy()?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn service_config(mut self, json: &str) -> Self {
        self.settings.service_config = Some(json.to_owned());
        self
    }

    /// Ignores the service configs of resolvers. Default: they replace that of
    /// [`service_config`](Self::service_config) (gRFC A21).
    #[must_use]
    pub fn ignore_resolved_service_config(mut self) -> Self {
        self.settings.ignore_resolved_service_config = true;
        self
    }

    /// Selects whether calls are made again by the retry and hedging policies of the service config. Default: true.
    /// Transparent retries, of calls that no server has processed, are made in any case.
    /// [Interceptors](crate::Interceptor) run once for a call, not for each attempt.
    #[must_use]
    pub fn retries(mut self, retries: bool) -> Self {
        self.settings.retries = retries;
        self
    }

    /// Looks up names with `lookup` instead of the system's resolver.
    #[must_use]
    pub fn lookup(mut self, lookup: impl Lookup) -> Self {
        self.settings.set_lookup(lookup);
        self
    }

    /// Looks up names again at this interval while all is well. By default, a channel looks up its names again only after
    /// it has lost a connection or could not open one, so servers that are added receive no calls.
    ///
    /// Set it for names whose addresses change while the old ones work, such as those of headless Kubernetes services
    /// that grow. It applies to policies that use several servers, such as [`round_robin`](Self::round_robin).
    /// After a failure, the channel normally waits until 30 s after the last lookup (`resolve_interval`) before it looks
    /// again; a shorter interval here shortens this wait, too. Alternatively, servers can close connections from time to
    /// time (`max_connection_age`).
    #[must_use]
    pub fn resolve_every(mut self, interval: Duration) -> Self {
        self.settings.resolve_every = Some(interval);
        self
    }

    /// Looks for a service config in DNS whenever the name is looked up: in the TXT records of `_grpc_config.HOST`,
    /// where HOST is the name (gRFC A2). Default: false, because it costs a query for each lookup. A query that fails is logged, and
    /// leaves the service config as it is.
    ///
    /// If the channel has no [`lookup`](Self::lookup) of its own, this needs the feature `hickory`; otherwise
    /// [`connect_lazy`](Self::connect_lazy) returns INVALID_ARGUMENT, as it does for a list of several targets.
    /// `localhost` and addresses have no service config.
    #[must_use]
    pub fn dns_service_config(mut self, enabled: bool) -> Self {
        self.settings.dns_service_config = enabled;
        self
    }

    /// Checks the health of servers if the service config asks for it with `healthCheckConfig` (gRFC A17). Default:
    /// true. Policies that use several servers then send no calls to a server that is not healthy.
    #[must_use]
    pub fn health_checks(mut self, enabled: bool) -> Self {
        self.settings.health_checks = enabled;
        self
    }

    /// Adds a resolver for targets with its URI schemes, such as `registry:///orders`. A resolver that was added later
    /// replaces earlier ones with the same scheme, and the built-in schemes as well.
    #[must_use]
    pub fn resolver(mut self, resolver: impl Resolver) -> Self {
        self.settings.add_resolver(resolver);
        self
    }

    /// Chooses the HTTP proxy of each target by its host and port. `None` connects directly. The function runs when the
    /// channel is built. Unix sockets and targets of a [`resolver`](Self::resolver) have no proxy.
    ///
    /// Default: the environment variable `grpc_proxy`, `HTTPS_PROXY` or `https_proxy`, the first that is not empty, with
    /// the exceptions in `no_grpc_proxy`, `NO_PROXY` or `no_proxy`, and never for this machine. A channel with a
    /// [`connector`](Self::connector) or a [`lookup`](Self::lookup) ignores the environment.
    ///
    /// The channel connects to the proxy and asks it for a tunnel to the target (CONNECT). The proxy resolves the name.
    /// TLS runs inside the tunnel. If the proxy refuses, calls fail with UNAVAILABLE (gRFC A1).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline::Result<()> {
    /// use trunkline::channel::Proxy;
    ///
    /// let proxy = Proxy::parse("http://proxy.example:3128")?;
    /// let channel = trunkline::Channel::to("https://api.example")
    ///     .proxy(move |host, _port| host.ends_with(".example").then(|| proxy.clone()))
    ///     .connect_lazy()?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn proxy(
        mut self,
        choose: impl Fn(&str, u16) -> Option<Proxy> + Send + Sync + 'static,
    ) -> Self {
        self.settings.set_proxy(choose);
        self
    }

    /// Connects without a proxy, regardless of the environment; see [`proxy`](Self::proxy).
    #[must_use]
    pub fn no_proxy(mut self) -> Self {
        self.settings.set_no_proxy();
        self
    }

    /// Connects to an address with `connect`, which returns a byte stream, such as one in memory or
    /// through a tunnel. Default: the channel connects to TCP and Unix sockets.
    ///
    /// When a connection ends, the channel shuts the stream down (`poll_shutdown`). It then reads until
    /// the server closes the stream or sends nothing for `Http2Limits::custom_io_linger_time` (default: 1
    /// s).
    ///
    /// ```
    /// # async fn example() -> trunkline::Result<()> {
    /// use tokio::net::TcpStream;
    /// use trunkline::{Address, Channel};
    ///
    /// let channel = Channel::to("127.0.0.1:50051").connector(|address: Address| async move {
    ///     let address = address.tcp().ok_or(std::io::ErrorKind::Unsupported)?;
    ///     TcpStream::connect(address).await
    /// });
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn connector<F, Fut, IO>(mut self, connect: F) -> Self
    where
        F: Fn(Address) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.settings.set_connector(connect);
        self
    }

    /// Sets the timeout of each attempt to connect to an address, including the handshakes of TLS and
    /// HTTP/2. Default: 20 s. The resolution of a name has a separate timeout of the same duration.
    ///
    /// If an address has not responded after `connect_stagger` (default: 250 ms), the channel tries the
    /// next one at the same time, with a timeout of its own.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.limits.connect_timeout = timeout;
        self
    }

    /// Limits the number of connections to one server. Default: 4. 0 is treated as 1.
    ///
    /// The calls of a connection share a lock and a TCP stream, so several connections can carry more. The
    /// channel opens another when each existing connection is busy: it has as many calls as the server permits,
    /// or 100 if the server permits more. A call uses the connection with the fewest calls. Calls neither wait
    /// for an additional connection nor fail because of it; if it cannot be opened, the channel tries again
    /// after `connection_retry_pause` (default: 1 s). A connection that has not been used for
    /// `connection_idle_time` (default: 30 s) is closed, unless it is the last one.
    ///
    /// Calls of one channel can therefore use different connections and, through a load balancer, reach
    /// different servers. With a limit of 1, all calls share one connection, and wait when it has as many
    /// calls as the server permits.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.limits.max_connections = connections;
        self
    }

    /// Sets how long a server can be silent during a call before the channel sends a PING. Default:
    /// never. Minimum: 10 s (gRFC A8).
    ///
    /// If the server sends nothing within [`keepalive_timeout`](Self::keepalive_timeout) of the PING, the
    /// connection is closed, its calls fail with UNAVAILABLE, and the next call reconnects.
    ///
    /// Most servers permit a PING every 5 minutes. A server that receives them more often closes the
    /// connection ("too_many_pings"), and the channel then doubles the time for its next connections.
    #[must_use]
    pub fn keepalive_time(mut self, time: Duration) -> Self {
        self.limits.http2.keepalive_time = time.max(KEEPALIVE_TIME_MIN);
        self
    }

    /// Sets how long a server can remain silent after a PING: any byte from it is enough, not only the
    /// acknowledgment. Default: 20 s. On Linux, this also limits how long sent data can remain unacknowledged
    /// (TCP_USER_TIMEOUT).
    #[must_use]
    pub fn keepalive_timeout(mut self, timeout: Duration) -> Self {
        self.limits.http2.keepalive_timeout = timeout;
        self
    }

    /// Sends PING frames even while no call is open, so that a lost connection is noticed before the next
    /// call. Many servers permit PING frames less often in this case.
    #[must_use]
    pub fn keepalive_without_calls(mut self) -> Self {
        self.limits.keepalive_without_calls = true;
        self
    }

    /// Limits the size of received messages, in bytes both as received and after decompression. Default: 4 MiB.
    /// A larger message ends its call with RESOURCE_EXHAUSTED.
    #[must_use]
    pub fn max_recv_message_size(mut self, bytes: usize) -> Self {
        self.limits.messages.max_recv_message_size = bytes;
        self
    }

    /// Limits the size of sent messages, in bytes before compression. Default: 4 GiB. A larger message is not
    /// sent. If it is the only request, the call fails with RESOURCE_EXHAUSTED; in a stream, `send` returns
    /// that error, and the call continues.
    #[must_use]
    pub fn max_send_message_size(mut self, bytes: usize) -> Self {
        self.limits.messages.max_send_message_size = bytes;
        self
    }

    /// Sets the value of `:authority`, which names the server in requests. Default: the host and port of the
    /// target; for a target with a [`Resolver`](crate::channel::Resolver), the value of its `authority` method.
    ///
    /// This does not change the name for which the certificate of the server must be valid: see
    /// [`ClientTls::server_name`](crate::tls::ClientTls::server_name).
    #[must_use]
    pub fn authority(mut self, authority: &str) -> Self {
        self.authority = Some(authority.to_owned());
        self
    }

    /// Compresses the requests of all calls with the compressor of that name, such as `gzip`. `identity`
    /// disables compression. Default: `identity`.
    ///
    /// A message is compressed if it has more than [`compress_above`](Self::compress_above) bytes and
    /// compression makes it smaller. A call can override this with
    /// [`Call::compress`](crate::Call::compress). If the server does not support the compressor,
    /// calls with compressed messages fail with UNIMPLEMENTED.
    ///
    /// If the channel has no compressor of that name, [`connect_lazy`](Self::connect_lazy) returns
    /// INVALID_ARGUMENT.
    #[must_use]
    pub fn compress(mut self, compressor: &str) -> Self {
        self.compress = Some(compressor.to_owned());
        self
    }

    /// Sets the timeout of calls that do not [set their own](crate::Call::timeout). Default: unlimited.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.defaults.get_or_insert_default().timeout = Some(timeout);
        self
    }

    /// Adds a pair of metadata that each call sends. The same key can be added more than once. If a call
    /// adds a pair with the same key, both are sent, the channel's first.
    ///
    /// If the key or the value is invalid, [`connect_lazy`](Self::connect_lazy) returns INVALID_ARGUMENT.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline::Result<()> {
    /// let channel = trunkline::Channel::to("localhost:50051")
    ///     .timeout(Duration::from_secs(5))
    ///     .metadata("x-tenant", "acme")
    ///     .connect_lazy()?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn metadata(mut self, key: &str, value: &str) -> Self {
        let defaults = self.defaults.get_or_insert_default();
        defaults.add(|metadata| metadata.append(key, value));
        self
    }

    /// Adds a pair of binary metadata, whose key ends in `-bin`, that each call sends. See
    /// [`metadata`](Self::metadata).
    #[must_use]
    pub fn metadata_bin(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        let defaults = self.defaults.get_or_insert_default();
        defaults.add(|metadata| metadata.append_bin(key, value));
        self
    }

    /// Adds metadata; each call sends all of its pairs. See [`metadata`](Self::metadata).
    #[must_use]
    pub fn extend_metadata(mut self, metadata: Metadata) -> Self {
        let defaults = self.defaults.get_or_insert_default();
        defaults.metadata.extend(metadata);
        self
    }

    /// Adds credentials for every call; see [`credentials`](crate::credentials). Several are sent in the order in which
    /// they were added, followed by those of the call.
    ///
    /// If no target of the channel has connections that are secure enough, [`connect_lazy`](Self::connect_lazy) returns
    /// INVALID_ARGUMENT. If only some are, calls on the connections that are not secure enough fail with
    /// UNAUTHENTICATED before anything is sent.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline::Result<()> {
    /// use trunkline::credentials::BearerToken;
    ///
    /// let channel = trunkline::Channel::to("https://localhost:50051")
    ///     .credentials(BearerToken::new("sesame")?)
    ///     .connect_lazy()?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn credentials(mut self, credentials: impl CallCredentials) -> Self {
        let defaults = self.defaults.get_or_insert_default();
        AttachedCredentials::add(&mut defaults.credentials, credentials);
        self
    }

    /// Sets the size, in bytes, up to which messages are not compressed. Default: 1 KiB. With 0, every
    /// message that compression makes smaller is compressed.
    #[must_use]
    pub fn compress_above(mut self, bytes: usize) -> Self {
        self.limits.messages.compress_above = bytes;
        self
    }

    /// Adds a compressor, which the channel prefers less than the existing ones. A compressor of the same
    /// name is replaced. Default: gzip and deflate.
    #[must_use]
    pub fn compressor(mut self, compressor: impl Compressor + 'static) -> Self {
        self.compressors = self.compressors.with(compressor);
        self
    }

    /// Removes all compressors, so the channel neither accepts nor sends compressed messages.
    #[must_use]
    pub fn no_compression(mut self) -> Self {
        self.compressors = Compressors::none();
        self
    }

    /// Changes any of the [limits](crate::limits).
    #[must_use]
    pub fn with_limits(mut self, change: impl FnOnce(&mut ChannelLimits)) -> Self {
        change(&mut self.limits);
        self
    }
}
