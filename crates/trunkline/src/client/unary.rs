//! The client's side of a call of one request and one response.

use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use trunkline_codec::{Expect, Metadata, Status, grammar};
use trunkline_transport::Body;

use crate::call::deadline::{self, Deadline};
use crate::call::kind::CallKind;
use crate::call::message::Message;
use crate::call::messages::Messages;
use crate::call::receive::Receive;
use crate::call::response::Response;
use crate::client::backend::Backend;
use crate::client::call::{Call, Selecting, Started};
use crate::client::opening::{Opening, Start};
use crate::client::outgoing::OutgoingCall;
use crate::client::recipe::Recipe;

impl<R: Message> IntoFuture for Call<Response<R>> {
    type Output = Result<Response<R>, Status>;
    type IntoFuture = Started<Response<R>>;

    fn into_future(self) -> Self::IntoFuture {
        let stage = Stage::New;
        Box::pin(Unary { call: self, stage })
    }
}

/// The future of a call.
///
/// It is allocated for each call, so it is kept small. The parts that only some calls need, with interceptors
/// or with a response that arrives in parts, are in a box.
struct Unary<R> {
    /// Kept for a transparent retry.
    call: Call<Response<R>>,
    stage: Stage,
}

#[expect(
    clippy::large_enum_variant,
    reason = "nearly all calls are the large one, and a box would be allocated for each"
)]
enum Stage {
    /// Nothing has been sent.
    New,
    /// The channel does not know yet whether it has a service config.
    Selecting(Selecting),
    /// Without interceptors, before the head of the response arrives.
    Plain(Plain),
    Messages(Box<Messages>),
    Ended,
}

impl<R: Message> Unary<R> {
    fn begin(&mut self) -> Result<Stage, Status> {
        let call = &mut self.call;
        let (channel, request) = call.begin(CallKind::Unary)?;
        let request = request.unwrap_or_default();
        if !channel.is_plain() || call.outgoing.cancel.is_some() {
            let recorder = channel.recorder(&call.outgoing, CallKind::Unary);
            let message = recorder.as_ref().map(|it| call.message(&request, it));
            let (call, body) = (call.outgoing.take(), Body::pieces(request, None));
            let (kind, start) = (CallKind::Unary, Start::Unwatched);
            let messages = channel.start(call, body, kind, start, recorder.clone());
            let messages = messages.of_type::<R>();
            if let (Some(recorder), Some(message)) = (recorder, message) {
                message.record(&recorder);
            }
            return Ok(Stage::Messages(Box::new(messages)));
        }
        let (backend, body) = (channel.backend, Body::pieces(request, None));
        Ok(Stage::Plain(Plain {
            deadline: call.outgoing.head.deadline.map(Deadline::new),
            opening: Opening::new(&backend, &mut call.outgoing, body, Start::Unwatched, None),
            backend,
        }))
    }
}

impl<R: Message> Future for Unary<R> {
    type Output = Result<Response<R>, Status>;

    // Way of a unary call, client 3: drives the whole call, within its deadline.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Stage::New = this.stage {
            match this.call.selecting() {
                Some(selecting) => this.stage = Stage::Selecting(selecting),
                None => this.stage = this.begin()?,
            }
        }
        if let Stage::Selecting(selecting) = &mut this.stage {
            let config = ready!(selecting.as_mut().poll(cx));
            this.call.selected(config, CallKind::Unary)?;
            this.stage = this.begin()?;
        }
        let response = match &mut this.stage {
            Stage::Plain(plain) => match ready!(plain.poll_response(cx, &mut this.call.outgoing)) {
                Replied::Whole(response) => response,
                Replied::InParts(mut messages) => {
                    let response = messages.poll_only(cx);
                    this.stage = Stage::Messages(messages);
                    ready!(response)
                }
            },
            Stage::Messages(messages) => ready!(messages.poll_only(cx)),
            Stage::New | Stage::Selecting(_) | Stage::Ended => {
                Err(Status::internal("the call has ended"))
            }
        };
        this.stage = Stage::Ended;
        Poll::Ready(response)
    }
}

/// A call that waits only for its head and its deadline.
struct Plain {
    backend: Backend,
    opening: Opening,
    deadline: Option<Deadline>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "it is handed on at once, and a box would be allocated for each call"
)]
enum Replied<R> {
    Whole(Result<Response<R>, Status>),
    /// The response has not arrived in full, or is not valid.
    InParts(Box<Messages>),
}

impl Plain {
    fn poll_response<R: Message>(
        &mut self,
        cx: &mut Context<'_>,
        call: &mut OutgoingCall,
    ) -> Poll<Replied<R>> {
        let recipe = || Some(Recipe::new(self.backend.clone(), call.take(), None));
        let head = match self.opening.poll(cx, recipe) {
            Poll::Ready(Err(status)) => {
                let reader = self.backend.reader(call, Expect::One);
                let deadline = self.deadline.take();
                let receive = Receive::failed(reader, status, deadline);
                return Poll::Ready(Replied::InParts(Box::new(Messages::new(receive, None))));
            }
            Poll::Ready(Ok(head)) => Poll::Ready(head),
            Poll::Pending => Poll::Pending,
        };
        if let Some(deadline) = &mut self.deadline
            && match head.is_pending() {
                true => deadline.poll(cx).is_ready(),
                false => deadline.has_passed(),
            }
        {
            let status = deadline::exceeded(self.opening.phase());
            return Poll::Ready(Replied::Whole(Err(status)));
        }
        head.map(|response| self.response(response, call))
    }

    /// Returns the response immediately if it is valid and has arrived in full, as most have.
    fn response<R: Message>(
        &mut self,
        response: http::Response<Body>,
        call: &OutgoingCall,
    ) -> Replied<R> {
        let (head, mut body) = response.into_parts();
        if body.full_data().is_some()
            && let Some((data, trailers)) = body.take_full()
        {
            let data = data.into_bytes();
            let compressors = self.backend.compressors();
            let max_size = self.backend.max_recv_message_size(call);
            let message = trailers.as_ref().and_then(|trailers| {
                grammar::only_message(&head, &data, trailers, max_size, compressors)
            });
            if let Some(message) = message {
                let head = Metadata::from_headers(head.headers);
                return Replied::Whole(match R::decode(message.into()) {
                    Ok(message) => {
                        let trailers = Metadata::from_headers(trailers.unwrap_or_default());
                        Ok(Response::received(message, head, trailers, false))
                    }
                    Err(status) => Err(status.with_response_metadata(head)),
                });
            }
            body = Body::full(data, trailers);
        }
        let response = http::Response::from_parts(head, body);
        let reader = self.backend.reader(call, Expect::One);
        let deadline = self.deadline.take();
        let receive = Receive::response(reader, response, deadline);
        Replied::InParts(Box::new(Messages::new(receive, None)))
    }
}
