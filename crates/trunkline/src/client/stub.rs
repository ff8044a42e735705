//! The client that generated clients wrap, which turns typed messages into calls.

use crate::call::message::{Message, frame_of};
use crate::call::method::Method;
use crate::call::response::Response;
use crate::call::sender::Sender;
use crate::call::streaming::Streaming;
use crate::client::call::Call;
use crate::client::channel::Channel;
use crate::client::client_stream::ClientStream;

/// A client for calls without generated code, which takes the path of the method and the types of the
/// messages. Generated clients wrap it.
///
/// Messages can be protobuf messages, or bytes ([`Raw`](crate::Raw)):
///
/// ```no_run
/// use trunkline::{Channel, Client, Method, Raw};
///
/// # async fn example() -> trunkline::Result<()> {
/// let client = Client::new(Channel::connect("localhost:50051").await?);
/// let method = Method::new("/helloworld.Greeter/SayHello");
/// let response = client.unary::<Raw, Raw>(method, Raw("\n\x05World".into())).await?;
/// println!("{:?}", response.0);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// Creates a client that uses `channel`.
    pub fn new(channel: Channel) -> Self {
        Self { channel }
    }

    // Way of a unary call, client 2: encodes the message into one frame; returns a `Call`.
    /// Returns a call of one request and one response. Await it to start the call.
    pub fn unary<Q: Message, R: Message>(&self, method: Method, request: Q) -> Call<Response<R>> {
        Call::with_request::<Q>(self.channel.clone(), &method, self.frame(&request))
    }

    /// Returns a call of one request and many responses. Await it to start the call.
    pub fn server_streaming<Q: Message, R: Message>(
        &self,
        method: Method,
        request: Q,
    ) -> Call<Streaming<R>> {
        Call::with_request::<Q>(self.channel.clone(), &method, self.frame(&request))
    }

    /// Returns a call of many requests and one response. Await it to start the call.
    pub fn client_streaming<Q: Message, R: Message>(
        &self,
        method: Method,
    ) -> Call<ClientStream<Q, R>> {
        Call::new(self.channel.clone(), &method, None)
    }

    /// Returns a call of many requests and many responses. Await it to start the call.
    pub fn bidi_streaming<Q: Message, R: Message>(
        &self,
        method: Method,
    ) -> Call<(Sender<Q>, Streaming<R>)> {
        Call::new(self.channel.clone(), &method, None)
    }

    /// Returns this client with the channel that `change` returns.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fn example(client: trunkline::Client) {
    /// let patient = client.clone().with_channel(|channel| channel.timeout(Duration::from_secs(60)));
    /// # }
    /// ```
    #[must_use]
    pub fn with_channel(self, change: impl FnOnce(Channel) -> Channel) -> Self {
        Self::new(change(self.channel))
    }

    /// Returns the channel.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    fn frame<Q: Message>(
        &self,
        request: &Q,
    ) -> Result<trunkline_codec::Payload, trunkline_codec::Status> {
        let max_size = self.channel.backend.limits().messages.max_send_message_size;
        frame_of(request, request.encoded_len(), None, max_size)
    }
}
