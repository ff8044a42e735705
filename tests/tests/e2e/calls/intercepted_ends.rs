//! The ends of calls with interceptors, layers and cancel handles: who is told what, and when.

use std::future::{IntoFuture, pending};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use http::{Request as HttpRequest, Response as HttpResponse};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, oneshot};
use tower_layer::layer_fn;
use trunkline::details::DebugInfo;
use trunkline::observe::on_end;
use trunkline::server::Methods;
use trunkline::tower::{Body, LayeredService};
use trunkline::{
    CancelHandle, Channel, Client, Code, Context, Metadata, Next, Raw, Request, Result, Sender,
    Server, Status, Streaming,
};
use trunkline_tests::fixture::{
    BIDI, CLIENT, Echo, SERVER, UNARY, With, both_ways, client_of, nothing, raw, serve, within,
};

type Calling = Pin<Box<dyn Future<Output = Result<HttpResponse<Body>>> + Send>>;

/// A tower service of a function.
#[derive(Clone)]
struct Below<F>(F);

impl<F: FnMut(HttpRequest<Body>) -> Calling> tower_service::Service<HttpRequest<Body>>
    for Below<F>
{
    type Response = HttpResponse<Body>;
    type Error = Status;
    type Future = Calling;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Calling {
        (self.0)(request)
    }
}

fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut TaskContext::from_waker(Waker::noop()))
}

/// A status as a peer has sent it, with details and metadata.
fn of_a_peer() -> Status {
    let mut metadata = Metadata::new();
    metadata
        .insert("internal-host", "db-7")
        .expect("the key is valid");
    let status = Status::not_found("no such user")
        .with_metadata(metadata)
        .with_detail(DebugInfo::new("a table"));
    let status = Status::from_trailers(&status.into_trailers());
    status
        .expect("there is a status")
        .expect_err("it is an error")
}

#[tokio::test]
async fn a_layer_discloses_of_a_peers_status_what_a_handler_does() {
    for is_forwarded in [false, true] {
        let server = || {
            let failing = layer_fn(move |_: LayeredService| {
                Below(move |_| -> Calling {
                    let status = of_a_peer();
                    Box::pin(std::future::ready(Err(match is_forwarded {
                        true => status.forward(),
                        false => status,
                    })))
                })
            });
            Server::new().add_service(Echo).layer(failing)
        };
        let socket = client_of(&serve(server()).await).await;
        let here = Client::new(Channel::in_process(server()));
        for client in [socket, here] {
            let status = client.unary::<Raw, Raw>(UNARY, raw("x")).await.unwrap_err();
            assert_eq!(status.code(), Code::NOT_FOUND);
            assert_eq!(status.message(), "no such user");
            assert_eq!(status.details().len(), usize::from(is_forwarded));
            let host = status.metadata().get("internal-host");
            assert_eq!(host.is_some(), is_forwarded);
        }
    }
    let response: HttpResponse<()> = of_a_peer().into_response();
    assert!(!response.headers().contains_key("internal-host"));
    let response: HttpResponse<()> = of_a_peer().forward().into_response();
    assert!(response.headers().contains_key("internal-host"));
}

/// Tells how the requests of a call end: `None` if the handler is dropped.
struct EndOfRequests(UnboundedSender<Option<bool>>);

impl Drop for EndOfRequests {
    fn drop(&mut self) {
        // The test may be over.
        let _ = self.0.send(None);
    }
}

async fn read_all(mut requests: Streaming<Raw>, end: &EndOfRequests) -> Result<()> {
    loop {
        let next = requests.message().await;
        if !matches!(next, Ok(Some(_))) {
            let _ = end.0.send(Some(next.is_ok()));
            return next.map(drop);
        }
    }
}

#[tokio::test]
async fn a_request_that_a_hook_has_rejected_never_ends_well_for_the_server() {
    let (told, mut ends) = unbounded_channel();
    let service = || {
        let (bidi, client) = (told.clone(), told.clone());
        With(move |methods: &mut Methods| {
            methods.bidi_streaming(
                BIDI,
                &nothing(),
                move |_, requests: Request<Streaming<Raw>>, _: Sender<Raw>| {
                    let end = EndOfRequests(bidi.clone());
                    async move {
                        requests.response().metadata("x-seen", "yes")?;
                        requests.response().send_head();
                        read_all(requests.into_inner(), &end).await
                    }
                },
            );
            methods.client_streaming(
                CLIENT,
                &nothing(),
                move |_, requests: Request<Streaming<Raw>>| {
                    let end = EndOfRequests(client.clone());
                    async move {
                        read_all(requests.into_inner(), &end)
                            .await
                            .map(|()| raw(""))
                    }
                },
            );
        })
    };
    for (way, client) in both_ways(service).await {
        let rejecting = |mut cx: Context, next: Next| async move {
            cx.response_metadata_mut()?.insert("x-mine", "1")?;
            cx.on_request_message(|message| match message.index() {
                0 => Ok(()),
                _ => Err(Status::invalid_argument("rejected")),
            });
            next.run(&mut cx).await
        };
        let client = Client::new(client.channel().clone().intercept(rejecting));
        let (mut sender, mut responses) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
        sender.send(raw("a")).await.unwrap();
        within("the head", responses.head()).await.unwrap();
        let status = sender.send(raw("b")).await.unwrap_err();
        assert_eq!(status.code(), Code::INVALID_ARGUMENT);
        sender.finish();
        let end = within("the end of the requests", ends.recv()).await;
        assert_ne!(end, Some(Some(true)), "{way}");
        let status = within("the end", responses.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::INVALID_ARGUMENT, "{way}");
        let head = responses.head().await.unwrap();
        assert_eq!(head.get("x-seen"), Some("yes"), "{way}: the head that came");
        assert_eq!(head.get("x-mine"), Some("1"), "{way}");
        while end.is_some_and(|end| end.is_some()) && ends.recv().await != Some(None) {}

        let mut stream = client.client_streaming::<Raw, Raw>(CLIENT).await.unwrap();
        stream.send(raw("a")).await.unwrap();
        stream.send(raw("b")).await.unwrap_err();
        stream.half_close();
        let end = within("the end of the requests", ends.recv()).await;
        assert_ne!(end, Some(Some(true)), "{way}");
        let status = within("the end", stream.finish()).await.unwrap_err();
        assert_eq!(status.code(), Code::INVALID_ARGUMENT, "{way}");
        while end.is_some_and(|end| end.is_some()) && ends.recv().await != Some(None) {}
    }
}

#[tokio::test]
async fn a_panic_during_a_cancel_ends_its_call_and_no_other() {
    let channel = Channel::new(Below(|request: HttpRequest<Body>| -> Calling {
        let panics = request.headers().contains_key("x-panic");
        let mut is_polled = false;
        Box::pin(std::future::poll_fn(move |_| {
            assert!(
                !panics || !std::mem::replace(&mut is_polled, true),
                "on purpose"
            );
            Poll::Pending
        }))
    }));
    let (client, handle) = (Client::new(channel), CancelHandle::new());
    let call = || {
        client
            .unary::<Raw, Raw>(UNARY, raw("x"))
            .cancel_with(&handle)
    };
    let mut panics = call().metadata("x-panic", "1").into_future();
    let mut waits = call().into_future();
    assert!(poll_once(panics.as_mut()).is_pending());
    assert!(poll_once(waits.as_mut()).is_pending());
    handle.cancel();
    let status = within("the call that panics", panics).await.unwrap_err();
    assert_eq!(status.code(), Code::INTERNAL, "{status}");
    let status = within("the other call", waits).await.unwrap_err();
    assert_eq!(status.code(), Code::CANCELLED, "{status}");
}

#[tokio::test]
async fn a_cancel_does_not_wait_for_an_interceptor_after_the_call() {
    let (entered, mut has_entered) = unbounded_channel();
    for (way, client) in both_ways(|| Echo).await {
        let entered = entered.clone();
        let waiting = move |mut cx: Context, next: Next| {
            let entered = entered.clone();
            async move {
                next.run(&mut cx).await?;
                let _ = entered.send(());
                pending::<Result<()>>().await
            }
        };
        let client = Client::new(client.channel().clone().intercept(waiting));
        let handle = CancelHandle::new();
        let call = client
            .unary::<Raw, Raw>(UNARY, raw("x"))
            .cancel_with(&handle);
        let call = tokio::spawn(call.into_future());
        within("the interceptor", has_entered.recv()).await;
        handle.cancel();
        let response = within("the call", call).await.unwrap();
        assert_eq!(
            response.unwrap().into_inner(),
            raw("x"),
            "{way}: it had arrived"
        );
    }
}

#[tokio::test]
async fn a_cancel_keeps_a_response_that_had_arrived_below_an_interceptor() {
    let (arrived, mut has_arrived) = unbounded_channel();
    let below = Channel::in_process(Server::new().add_service(Echo));
    let service = Below(move |request: HttpRequest<Body>| -> Calling {
        let (response, receiver) = oneshot::channel();
        let calling = tower_service::Service::call(&mut below.clone(), request);
        let arrived = arrived.clone();
        tokio::spawn(async move {
            let _ = response.send(calling.await);
            let _ = arrived.send(());
        });
        Box::pin(async move { receiver.await.expect("the task sends it") })
    });
    let channel = Channel::new(service)
        .intercept(|mut cx: Context, next: Next| async move { next.run(&mut cx).await });
    let handle = CancelHandle::new();
    let call = Client::new(channel).unary::<Raw, Raw>(UNARY, raw("x"));
    let mut call = call.cancel_with(&handle).into_future();
    assert!(poll_once(call.as_mut()).is_pending());
    within("the response", has_arrived.recv()).await;
    handle.cancel();
    let response = within("the call", call).await.unwrap();
    assert_eq!(response.into_inner(), raw("x"));
}

/// An interceptor that notes the code with which each call ends.
fn noting(
    ends: &Arc<Mutex<Vec<Code>>>,
) -> impl Fn(Context, Next) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> + Send + Sync + use<>
{
    let ends = ends.clone();
    move |mut cx, next| {
        let ends = ends.clone();
        Box::pin(async move {
            let end = next.run(&mut cx).await;
            let code = end.as_ref().err().map_or(Code::OK, Status::code);
            ends.lock().unwrap().push(code);
            end
        })
    }
}

#[tokio::test]
async fn a_clients_interceptor_is_told_of_a_deadline_before_the_head() {
    let ends = Arc::default();
    let service = || {
        With(|methods: &mut Methods| {
            methods.unary(UNARY, &nothing(), |_, _: Request<Raw>| {
                pending::<Result<Raw>>()
            });
        })
    };
    for (way, client) in both_ways(service).await {
        let client = Client::new(client.channel().clone().intercept(noting(&ends)));
        let call = client.unary::<Raw, Raw>(UNARY, raw("x"));
        let status = call.timeout(Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{way}");
        assert_eq!(*ends.lock().unwrap(), [Code::DEADLINE_EXCEEDED], "{way}");
        ends.lock().unwrap().clear();
    }
}

#[tokio::test]
async fn metadata_of_a_clients_interceptor_stays_if_the_call_fails_early() {
    let channel = Channel::new(Below(|_| -> Calling {
        Box::pin(std::future::ready(Err(Status::unavailable("nobody"))))
    }));
    let channel = channel.intercept(|mut cx: Context, next: Next| async move {
        cx.response_metadata_mut()?.insert("x-mine", "1")?;
        cx.response_trailers_mut().insert("x-mine-too", "2")?;
        let end = next.run(&mut cx).await;
        assert_eq!(cx.response_metadata().get("x-mine"), Some("1"));
        assert_eq!(cx.response_trailers().get("x-mine-too"), Some("2"));
        end
    });
    let status = Client::new(channel).unary::<Raw, Raw>(UNARY, raw("x"));
    let status = status.await.unwrap_err();
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
    assert_eq!(status.response_metadata().get("x-mine"), Some("1"));
}

#[tokio::test]
async fn a_clients_interceptor_is_told_of_a_response_that_cannot_be_decoded() {
    let unreadable = || Raw(vec![0x0a, 0xff].into());
    for (way, client) in both_ways(|| Echo).await {
        let ends = Arc::default();
        let client = Client::new(client.channel().clone().intercept(noting(&ends)));
        let unary = client.unary::<Raw, String>(UNARY, unreadable());
        let status = within("the call", unary.into_future()).await.unwrap_err();
        assert_eq!(status.code(), Code::INTERNAL, "{way}");
        let mut stream = client
            .client_streaming::<Raw, String>(CLIENT)
            .await
            .unwrap();
        stream.send(unreadable()).await.unwrap();
        within("the call", stream.finish()).await.unwrap_err();
        let (mut sender, mut responses) = client.bidi_streaming::<Raw, String>(BIDI).await.unwrap();
        sender.send(unreadable()).await.unwrap();
        for _ in 0..2 {
            let status = within("the call", responses.message()).await.unwrap_err();
            assert_eq!(status.code(), Code::INTERNAL, "{way}");
        }
        assert_eq!(*ends.lock().unwrap(), [Code::INTERNAL; 3], "{way}");
    }
}

#[tokio::test]
async fn asking_for_the_head_of_a_request_loses_no_message() {
    let service = || {
        With(|methods: &mut Methods| {
            methods.client_streaming(
                CLIENT,
                &nothing(),
                |_, mut requests: Request<Streaming<Raw>>| async move {
                    let mut all = Vec::new();
                    requests.head().await?;
                    while let Some(message) = requests.message().await? {
                        requests.head().await?;
                        all.extend_from_slice(&message.0);
                    }
                    Ok(raw(all))
                },
            );
        })
    };
    for (way, client) in both_ways(service).await {
        let mut stream = client.client_streaming::<Raw, Raw>(CLIENT).await.unwrap();
        for message in ["a", "b", "c"] {
            stream.send(raw(message)).await.unwrap();
        }
        let response = within("the call", stream.finish()).await.unwrap();
        assert_eq!(response.into_inner(), raw("abc"), "{way}");
    }
}

#[tokio::test]
async fn observers_count_what_had_arrived_of_a_cancelled_call_however_it_is_cancelled() {
    for by_handle in [false, true] {
        let server = Server::new().add_service(Echo);
        let received = Arc::new(AtomicUsize::new(usize::MAX));
        let counted = received.clone();
        let channel = Channel::in_process(server).observe(on_end(move |call| {
            let bytes = usize::try_from(call.bytes_received()).expect("few bytes");
            counted.store(bytes, Ordering::SeqCst);
        }));
        let handle = CancelHandle::new();
        let call = Client::new(channel).server_streaming::<Raw, Raw>(SERVER, raw("ab"));
        let mut responses = call.cancel_with(&handle).await.unwrap();
        within("the head", responses.head()).await.unwrap();
        match by_handle {
            true => handle.cancel(),
            false => responses.cancel(),
        }
        let mut messages = 0;
        while let Ok(Some(_)) = within("the call", responses.message()).await {
            messages += 1;
        }
        drop(responses);
        assert_eq!(messages, 2, "by handle: {by_handle}");
        assert_eq!(
            received.load(Ordering::SeqCst),
            2 * 6,
            "by handle: {by_handle}"
        );
    }
}

#[tokio::test]
async fn ok_of_a_servers_interceptor_ends_a_stream_well_and_is_no_response() {
    let service = || {
        With(|methods: &mut Methods| {
            methods.unary(UNARY, &nothing(), |_, _: Request<Raw>| async {
                Err::<Raw, _>(Status::aborted("on purpose"))
            });
            methods.bidi_streaming(
                BIDI,
                &nothing(),
                |_, _: Request<Streaming<Raw>>, mut responses: Sender<Raw>| async move {
                    responses.send(raw("a")).await?;
                    Err(Status::aborted("on purpose"))
                },
            );
        })
    };
    let server =
        Server::new()
            .add_service(service())
            .intercept(|mut cx: Context, next: Next| async move {
                let _ = next.run(&mut cx).await;
                Ok(())
            });
    let client = Client::new(Channel::in_process(server));
    let status = client.unary::<Raw, Raw>(UNARY, raw("x")).await.unwrap_err();
    assert_eq!(status.code(), Code::INTERNAL);
    assert_eq!(
        status.message(),
        "an interceptor returned Ok for a call that has no response"
    );
    let (_sender, mut responses) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
    assert_eq!(responses.message().await.unwrap(), Some(raw("a")));
    assert_eq!(responses.message().await.unwrap(), None);
}

#[tokio::test]
async fn a_begun_response_does_not_wait_for_an_interceptor_after_its_handler() {
    let service = || {
        With(|methods: &mut Methods| {
            methods.server_streaming(
                SERVER,
                &nothing(),
                |_, request: Request<Raw>, mut responses: Sender<Raw>| async move {
                    request.response().metadata("x-head", "handler")?;
                    match &request.0[..] {
                        b"message" => responses.send(request.into_inner()).await,
                        _ => {
                            request.response().send_head();
                            Ok(())
                        }
                    }
                },
            );
        })
    };
    let (seen, mut sees) = unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let server = || {
        let (seen, gate) = (seen.clone(), gate.clone());
        let waiting = move |mut cx: Context, next: Next| {
            let (seen, gate) = (seen.clone(), gate.clone());
            async move {
                next.run(&mut cx).await?;
                gate.acquire().await.expect("it is open").forget();
                let head = cx.response_metadata().get("x-head").map(str::to_owned);
                let changed = cx.response_metadata_mut().map(|_| ());
                cx.response_trailers_mut().insert("x-trailer", "after")?;
                let _ = seen.send((head, changed.map_err(|status| status.code())));
                Ok(())
            }
        };
        Server::new().add_service(service()).intercept(waiting)
    };
    for (way, client) in [
        ("over a socket", client_of(&serve(server()).await).await),
        ("in process", Client::new(Channel::in_process(server()))),
    ] {
        for (request, messages) in [("message", 1), ("head", 0)] {
            let case = format!("{way}: {request}");
            let call = client.server_streaming::<Raw, Raw>(SERVER, raw(request));
            let mut responses = within(&case, call.into_future()).await.unwrap();
            let head = within(&case, responses.head()).await.unwrap();
            assert_eq!(head.get_all("x-head").count(), 1, "{case}");
            for _ in 0..messages {
                let message = within(&case, responses.message()).await.unwrap();
                assert_eq!(message, Some(raw(request)), "{case}");
            }
            assert!(sees.try_recv().is_err(), "{case}");
            gate.add_permits(1);
            let end = within(&case, responses.message()).await.unwrap();
            assert_eq!(end, None, "{case}");
            let trailer = responses.trailers().and_then(|it| it.get("x-trailer"));
            assert_eq!(trailer, Some("after"), "{case}");
            let (head, changed) = sees.recv().await.unwrap();
            assert_eq!(head.as_deref(), Some("handler"), "{case}");
            assert_eq!(changed, Err(Code::FAILED_PRECONDITION), "{case}");
        }
    }
}

#[tokio::test]
async fn a_deadline_that_an_interceptor_has_shortened_bounds_the_sender() {
    let channel = Channel::new(Below(|request: HttpRequest<Body>| -> Calling {
        Box::pin(async move {
            let _request = request;
            pending().await
        })
    }));
    let channel = channel.intercept(|mut cx: Context, next: Next| async move {
        cx.shorten_deadline(Duration::from_millis(50));
        next.run(&mut cx).await
    });
    let call = Client::new(channel).bidi_streaming::<Raw, Raw>(BIDI);
    let (mut sender, _responses) = call.await.unwrap();
    let mut sending = pin!(async {
        loop {
            if let Err(status) = sender.send(raw(vec![0; 32 << 10])).await {
                return status;
            }
        }
    });
    let status = within("the deadline", sending.as_mut()).await;
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status}");
}

#[tokio::test]
async fn observers_see_calls_that_fail_before_anything_is_sent() {
    let ends: Arc<Mutex<Vec<Code>>> = Arc::default();
    let seen = ends.clone();
    let channel = Channel::in_process(Server::new().add_service(Echo));
    let channel = channel.observe(on_end(move |call| seen.lock().unwrap().push(call.code())));
    let client = Client::new(channel.clone());
    let handle = CancelHandle::new();
    handle.cancel();
    let unary = || client.unary::<Raw, Raw>(UNARY, raw("xx"));
    unary().cancel_with(&handle).await.unwrap_err();
    unary().metadata("bad key", "x").await.unwrap_err();
    let stream = client.server_streaming::<Raw, Raw>(SERVER, raw("x"));
    stream.cancel_with(&handle).await.unwrap_err();
    let stream = client.bidi_streaming::<Raw, Raw>(BIDI);
    stream.cancel_with(&handle).await.map(drop).unwrap_err();
    let small = Client::new(channel.max_send_message_size(1));
    small.unary::<Raw, Raw>(UNARY, raw("xx")).await.unwrap_err();
    let expected = [
        Code::CANCELLED,
        Code::INTERNAL,
        Code::CANCELLED,
        Code::CANCELLED,
        Code::RESOURCE_EXHAUSTED,
    ];
    assert_eq!(*ends.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_channel_that_compresses_with_identity_sends_messages_as_they_are() {
    let address = serve(Server::new().add_service(Echo)).await;
    let channel = Channel::to(address.as_str()).compress("identity");
    let client = Client::new(channel.connect().await.unwrap());
    let response = client.unary::<Raw, Raw>(UNARY, raw("x")).await.unwrap();
    assert!(!response.is_compressed());
}
