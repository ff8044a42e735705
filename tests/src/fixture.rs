//! What the end-to-end tests of calls share: methods of the four kinds, servers, bounded waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trunkline::server::Methods;
use trunkline::{
    Channel, ChannelBuilder, Client, Method, Raw, Request, Sender, Server, Service, Streaming,
};

/// One request, one response.
pub const UNARY: Method = Method::new("/test.Fixture/Unary");
/// One request, many responses.
pub const SERVER: Method = Method::new("/test.Fixture/ServerStreaming");
/// Many requests, one response.
pub const CLIENT: Method = Method::new("/test.Fixture/ClientStreaming");
/// Many requests, many responses.
pub const BIDI: Method = Method::new("/test.Fixture/BidiStreaming");

/// How many messages go each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One request, one response.
    Unary,
    /// One request, many responses.
    ServerStreaming,
    /// Many requests, one response.
    ClientStreaming,
    /// Many requests, many responses.
    Bidi,
}

impl Kind {
    /// All four.
    pub const ALL: [Self; 4] = [
        Self::Unary,
        Self::ServerStreaming,
        Self::ClientStreaming,
        Self::Bidi,
    ];

    /// The method of this kind.
    pub fn method(self) -> Method {
        match self {
            Self::Unary => UNARY,
            Self::ServerStreaming => SERVER,
            Self::ClientStreaming => CLIENT,
            Self::Bidi => BIDI,
        }
    }
}

/// A message of these bytes.
pub fn raw(bytes: impl Into<Bytes>) -> Raw {
    Raw(bytes.into())
}

/// A service whose methods a test adds by hand.
#[derive(Debug)]
pub struct With<F>(pub F);

impl<F: FnOnce(&mut Methods)> Service for With<F> {
    const NAME: &'static str = "test.Fixture";

    fn add_to(self, methods: &mut Methods) {
        (self.0)(methods);
    }
}

/// The service of handlers that need none.
pub fn nothing() -> Arc<()> {
    Arc::new(())
}

/// Sends back what it receives: one response for each request; for one request and many responses, a response
/// for each byte; for many requests and one response, all bytes in order.
#[derive(Debug)]
pub struct Echo;

impl Service for Echo {
    const NAME: &'static str = "test.Fixture";

    fn add_to(self, methods: &mut Methods) {
        let service = Arc::new(self);
        methods.unary(UNARY, &service, |_, request: Request<Raw>| async move {
            Ok(request.into_inner())
        });
        methods.server_streaming(
            SERVER,
            &service,
            |_, request: Request<Raw>, mut responses: Sender<Raw>| async move {
                for at in 0..request.0.len() {
                    responses.send(Raw(request.0.slice(at..=at))).await?;
                }
                Ok(())
            },
        );
        methods.client_streaming(
            CLIENT,
            &service,
            |_, mut requests: Request<Streaming<Raw>>| async move {
                let mut all = Vec::new();
                while let Some(message) = requests.message().await? {
                    all.extend_from_slice(&message.0);
                }
                Ok(raw(all))
            },
        );
        methods.bidi_streaming(
            BIDI,
            &service,
            |_, mut requests: Request<Streaming<Raw>>, mut responses: Sender<Raw>| async move {
                while let Some(message) = requests.message().await? {
                    responses.send(message).await?;
                }
                Ok(())
            },
        );
    }
}

/// Waits for `future`.
///
/// # Panics
///
/// If it takes more than 20 s.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within 20 s"),
    }
}

/// Serves on a free port for as long as the runtime runs; returns the address.
pub async fn serve(server: Server) -> String {
    let bound = server.bind("127.0.0.1:0").await.expect("a free port");
    let address = bound.local_addr().to_string();
    tokio::spawn(bound.serve());
    address
}

/// A client that is connected to this address.
pub async fn client_of(address: &str) -> Client {
    client_with(Channel::to(address)).await
}

/// A client that is connected as this builder says.
pub async fn client_with(channel: ChannelBuilder) -> Client {
    let connecting = within("connecting", channel.connect());
    Client::new(connecting.await.expect("the server listens"))
}

/// A client over a socket, and one in this process, of the same service.
pub async fn both_ways<S: Service>(mut make: impl FnMut() -> S) -> [(&'static str, Client); 2] {
    let socket = client_of(&serve(Server::new().add_service(make())).await).await;
    let here = Client::new(Channel::in_process(Server::new().add_service(make())));
    [("over a socket", socket), ("in process", here)]
}

/// A message behind its prefix, as it is on the wire.
pub fn frame(message: &[u8]) -> Bytes {
    let len = u32::try_from(message.len()).expect("a message of a test is short");
    [&[0], &len.to_be_bytes()[..], message].concat().into()
}

/// A request as a raw HTTP/2 client sends it.
pub fn raw_request(method: &Method, timeout: Option<&str>) -> http::Request<()> {
    let mut request = http::Request::post(format!("http://localhost{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    request.body(()).expect("the parts are valid")
}

/// Random numbers that are the same in each run (xorshift).
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number, below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}
