//! Calls with a stream of requests, or of responses, from when they are awaited until the stream is open.

use std::future::IntoFuture;

use trunkline_codec::Status;
use trunkline_transport::{Body, pipe};

use crate::call::kind::CallKind;
use crate::call::message::Message;
use crate::call::messages::Messages;
use crate::call::sender::Sender;
use crate::call::streaming::Streaming;
use crate::client::call::{Call, Started};
use crate::client::client_stream::ClientStream;
use crate::client::opening::Start;

impl<R: Message> IntoFuture for Call<Streaming<R>> {
    type Output = Result<Streaming<R>, Status>;
    type IntoFuture = Started<Streaming<R>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(Streaming::new(self.start::<R>().await?)) })
    }
}

impl<Q: Message, R: Message> IntoFuture for Call<ClientStream<Q, R>> {
    type Output = Result<ClientStream<Q, R>, Status>;
    type IntoFuture = Started<ClientStream<Q, R>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (sender, messages) = self
                .start_sending::<Q, R>(CallKind::ClientStreaming)
                .await?;
            Ok(ClientStream::new(sender, messages))
        })
    }
}

impl<Q: Message, R: Message> IntoFuture for Call<(Sender<Q>, Streaming<R>)> {
    type Output = Result<(Sender<Q>, Streaming<R>), Status>;
    type IntoFuture = Started<(Sender<Q>, Streaming<R>)>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (sender, messages) = self.start_sending::<Q, R>(CallKind::BidiStreaming).await?;
            Ok((sender, Streaming::new(messages)))
        })
    }
}

impl<T> Call<T> {
    /// Starts a call whose responses are a stream, and whose requests are not; done when the stream is
    /// open.
    async fn start<R: Message>(mut self) -> Result<Messages, Status> {
        let (channel, request) = self.begin_selected(CallKind::ServerStreaming).await?;
        let request = request.unwrap_or_default();
        let (kind, start) = (CallKind::ServerStreaming, Start::Watched);
        let recorder = channel.recorder(&self.outgoing, kind);
        let message = recorder.as_ref().map(|it| self.message(&request, it));
        let (call, body) = (self.outgoing.take(), Body::pieces(request, None));
        let mut messages = channel.start(call, body, kind, start, recorder.clone());
        if let (Some(recorder), Some(message)) = (recorder, message) {
            message.record(&recorder);
        }
        messages = messages.of_type::<R>();
        messages.opened().await?;
        Ok(messages)
    }

    async fn start_sending<Q: Message, R: Message>(
        mut self,
        kind: CallKind,
    ) -> Result<(Sender<Q>, Messages), Status> {
        let (channel, _) = self.begin_selected(kind).await?;
        let (writer, reader) = pipe(channel.backend.limits().http2.pipe_size);
        let call = self.outgoing.take();
        let recorder = channel.recorder(&call, kind);
        let mut limits = channel.backend.limits().messages.clone();
        limits.max_send_message_size = channel.backend.max_send_message_size(&call);
        let mut sender = Sender::of_call(
            writer,
            (call.compressor.clone(), call.compress),
            call.head.deadline,
            &limits,
            recorder.clone(),
        );
        let body = Body::pipe(reader);
        let mut messages = channel.start(call, body, kind, Start::Watched, recorder);
        messages = messages.of_type::<R>();
        messages.opened().await?;
        if let Some(hooks) = messages.take_request_hooks() {
            sender.set_message_hooks(hooks);
        }
        if let Some(deadline) = messages.moved_deadline() {
            sender.set_deadline(deadline);
        }
        Ok((sender, messages))
    }
}
