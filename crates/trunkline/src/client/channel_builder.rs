//! A channel to be, and its settings.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use trunkline_channel::{ChannelLimits, Connections, Policy, Resolver, Settings, Targets};
use trunkline_codec::head::ClientFields;
use trunkline_codec::{Compressor, Compressors, Metadata, Status};
use trunkline_transport::Address;
#[cfg(feature = "__tls")]
use trunkline_transport::ClientTls;

use crate::call::compression::known_compressor;
use crate::client::backend::{Backend, BackendKind, ChannelOptions};
use crate::client::channel::Channel;
use crate::client::defaults::CallDefaults;

/// gRFC A8, "Client-side behavior": a client must not ask more often.
const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(10);

/// A channel to be: see [`Channel::to`].
#[derive(Clone, Debug)]
pub struct ChannelBuilder {
    settings: Settings,
    authority: Option<String>,
    limits: ChannelLimits,
    compressors: Compressors,
    compress: Option<String>,
    /// None if no call has any, as most.
    defaults: Option<Box<CallDefaults>>,
}

impl Channel {
    /// Connects to an address, to text such as `host:port`, `http://host:port`, `https://host:port` or
    /// `unix:/path`, or to a list of either: see [`Targets`]. The port is 443 by default, and 80 with
    /// `http://`.
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
    /// `https://` is TLS, checked against the authorities that the system trusts; for others, and for
    /// a certificate of the client's own, see [`ChannelBuilder::tls`].
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the target cannot be read; UNAVAILABLE if the name does not resolve,
    /// or no HTTP/2 server answers, each within `connect_timeout` (20 s). The message names the target, the cause and the way out.
    pub async fn connect(targets: impl Into<Targets>) -> Result<Self, Status> {
        Self::to(targets).connect().await
    }

    /// A channel with settings of its own, to one target or to a list: see [`Targets`].
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
            settings: Settings::new(targets),
            authority: None,
            limits: ChannelLimits::default(),
            compressors: Compressors::default(),
            compress: None,
            defaults: None,
        }
    }

    /// Connects now.
    ///
    /// # Errors
    ///
    /// As [`Channel::connect`].
    pub async fn connect(self) -> Result<Channel, Status> {
        let channel = self.connect_lazy()?;
        if let Some(connections) = channel.backend.connections() {
            connections.connect().await?;
        }
        Ok(channel)
    }

    /// Connects when the first call is made.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the target, or the authority, cannot be read, the files of TLS cannot be
    /// used, the encoding to [compress](Self::compress) with is not known, or default metadata is not
    /// allowed.
    pub fn connect_lazy(self) -> Result<Channel, Status> {
        let mut settings = self.settings;
        if let Some(text) = self.authority {
            let authority = text.parse();
            settings.authority = Some(
                authority
                    .map_err(|_| Status::invalid_argument(format!("{text:?} is no authority")))?,
            );
        }
        let compress = match &self.compress {
            None => None,
            Some(name) => Some(known_compressor("the channel", name, &self.compressors)?),
        };
        if let Some(failure) = self.defaults.as_ref().and_then(|it| it.failure.as_ref()) {
            return Err(Status::invalid_argument(failure.message()));
        }
        let limits = Arc::new(self.limits);
        settings.limits = limits.clone();
        let fields = ClientFields::new(self.compressors);
        let connections = Connections::new(settings)?;
        let mut options = ChannelOptions::new(limits, fields);
        options.compress = compress;
        options.defaults = self.defaults;
        let connections = BackendKind::Server(connections);
        Ok(Channel::of(Backend::new(connections, options)))
    }

    /// Uses TLS with these settings, for a target of any form but `http://`.
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

    /// Calls go to one address, the first that can be reached. This is the default.
    #[must_use]
    pub fn pick_first(mut self) -> Self {
        self.settings.policy = Policy::PickFirst;
        self
    }

    /// Keeps a connection to every address, and lets calls take those that can be used in turn.
    #[must_use]
    pub fn round_robin(mut self) -> Self {
        self.settings.policy = Policy::RoundRobin;
        self
    }

    /// Asks `resolver` for the addresses of names, and not the system.
    #[must_use]
    pub fn resolver(mut self, resolver: impl Resolver) -> Self {
        self.settings.set_resolver(resolver);
        self
    }

    /// Lets `connect` make the byte stream to an address: in memory, through a tunnel that the caller opens, with faults.
    /// HTTP/2 is spoken over it as over a socket. At the end it is shut down (`poll_shutdown`) and read
    /// until the server closes it, or sends nothing for `Http2Limits::custom_io_linger_time` (1 s).
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

    /// Bounds the attempt to reach one address, with the handshakes of TLS and HTTP/2, and by itself
    /// each attempt to resolve a name; 20 s by default. Of several addresses, the next is tried beside
    /// one that is silent (`connect_stagger`), and each has this time for itself.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.limits.connect_timeout = timeout;
        self
    }

    /// How many connections the channel has to its server at most; 4 by default, and there is always
    /// one: 0 is as good as 1.
    ///
    /// A further one is opened when each that there is has as many calls as the server allows, or
    /// 100 if it allows more: all calls of a connection share one lock and one TCP stream. No call
    /// waits for it, and none fails if it cannot be opened; that is tried again after a pause
    /// (`connection_retry_pause`). Calls go to the connection with the fewest calls, and one that no
    /// call needs is closed after a while (`connection_idle_time`), except for the last.
    ///
    /// Calls of one channel may thus reach the server on different connections, and, through a load
    /// balancer, different servers. With 1, all calls share one connection, and those above the
    /// server's limit wait.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.limits.max_connections = connections;
        self
    }

    /// After how long without a byte from the server a connection with an open call asks whether it is
    /// there (PING); never by default, and every 10 s at most: a shorter time is taken as 10 s (gRFC
    /// A8). Without an answer within [`keepalive_timeout`](Self::keepalive_timeout) the connection
    /// ends: its calls fail with UNAVAILABLE, and the next call makes another.
    ///
    /// A server may find it too often: most permit every 5 minutes. It then ends the connection
    /// ("too_many_pings"), and the next ones of this channel wait twice as long.
    #[must_use]
    pub fn keepalive_time(mut self, time: Duration) -> Self {
        self.limits.http2.keepalive_time = time.max(KEEPALIVE_TIME_MIN);
        self
    }

    /// How long a server that was asked has to answer; 20 s by default. On Linux it is also how long
    /// what was sent may stay without an acknowledgement (TCP_USER_TIMEOUT).
    #[must_use]
    pub fn keepalive_timeout(mut self, timeout: Duration) -> Self {
        self.limits.http2.keepalive_timeout = timeout;
        self
    }

    /// Asks also while no call is open, so that the next call finds a connection that works. Servers
    /// permit that less often.
    #[must_use]
    pub fn keepalive_without_calls(mut self) -> Self {
        self.limits.keepalive_without_calls = true;
        self
    }

    /// The largest message taken from the server, in bytes, also after inflating; 4 MiB by default.
    #[must_use]
    pub fn max_recv_message_size(mut self, bytes: usize) -> Self {
        self.limits.messages.max_recv_message_size = bytes;
        self
    }

    /// The largest message sent, in bytes before compression; 4 GiB by default.
    #[must_use]
    pub fn max_send_message_size(mut self, bytes: usize) -> Self {
        self.limits.messages.max_send_message_size = bytes;
        self
    }

    /// What goes into `:authority` in the place of the target's own.
    #[must_use]
    pub fn authority(mut self, authority: &str) -> Self {
        self.authority = Some(authority.to_owned());
        self
    }

    /// Compresses the requests of all calls with the encoding of that name, such as `gzip`, as far as
    /// they have more than [`compress_above`](Self::compress_above) bytes and get smaller by it. A
    /// call can say otherwise: [`Call::compress`](crate::Call::compress).
    ///
    /// The server has to know the encoding; if it does not, all calls that were compressed fail with
    /// UNIMPLEMENTED. A name that the channel does not know fails
    /// [`connect_lazy`](Self::connect_lazy) with INVALID_ARGUMENT.
    #[must_use]
    pub fn compress(mut self, compressor: &str) -> Self {
        self.compress = Some(compressor.to_owned());
        self
    }

    /// Sets the timeout of each call that does not [set its own](crate::Call::timeout); none by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.defaults.get_or_insert_default().timeout = Some(timeout);
        self
    }

    /// Adds a pair of metadata to each call, before the metadata of the call itself. The same key can be
    /// added more than once, and a call that adds it too sends both values.
    ///
    /// If the key or the value is not allowed, [`connect_lazy`](Self::connect_lazy) fails with
    /// INVALID_ARGUMENT.
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

    /// Adds a pair of binary metadata to each call; its key ends in `-bin`. Otherwise as
    /// [`metadata`](Self::metadata).
    #[must_use]
    pub fn metadata_bin(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        let defaults = self.defaults.get_or_insert_default();
        defaults.add(|metadata| metadata.append_bin(key, value));
        self
    }

    /// Adds all pairs of `metadata` to each call. Otherwise as [`metadata`](Self::metadata).
    #[must_use]
    pub fn extend_metadata(mut self, metadata: Metadata) -> Self {
        let defaults = self.defaults.get_or_insert_default();
        defaults.metadata.extend(metadata);
        self
    }

    /// The largest message, in bytes, that is sent as it is although the channel compresses; 1 KiB by
    /// default. With 0 every message is compressed that gets smaller by it.
    #[must_use]
    pub fn compress_above(mut self, bytes: usize) -> Self {
        self.limits.messages.compress_above = bytes;
        self
    }

    /// Adds an encoding for messages, behind those that there are, or in the place of one of the same
    /// name; gzip and deflate are there by default.
    #[must_use]
    pub fn compressor(mut self, compressor: impl Compressor + 'static) -> Self {
        self.compressors = self.compressors.with(compressor);
        self
    }

    /// Takes no compressed messages, and sends none.
    #[must_use]
    pub fn no_compression(mut self) -> Self {
        self.compressors = Compressors::none();
        self
    }

    /// Changes any limit.
    #[must_use]
    pub fn with_limits(mut self, change: impl FnOnce(&mut ChannelLimits)) -> Self {
        change(&mut self.limits);
        self
    }
}
