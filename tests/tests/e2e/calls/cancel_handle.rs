//! Calls that are cancelled and kept: the stream is reset at once, and what had arrived is read.

use std::future::{IntoFuture, pending};
use std::io;
use std::sync::Arc;

use tokio::io::DuplexStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use trunkline::server::Methods;
use trunkline::{
    Address, CancelHandle, Channel, Client, ClientStream, Code, Context, Next, Raw, Request,
    Response, Result, Sender, Server, Service, Status, Streaming,
};
use trunkline_tests::fixture::{
    BIDI, CLIENT, Echo, SERVER, UNARY, both_ways, client_of, raw, serve, within,
};

/// Sends a head, and messages where it can, and stays until it is dropped.
struct Held {
    entered: UnboundedSender<()>,
    dropped: UnboundedSender<()>,
}

struct Probe {
    entered: UnboundedReceiver<()>,
    dropped: UnboundedReceiver<()>,
}

struct Guard(UnboundedSender<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        // The test may be over.
        let _ = self.0.send(());
    }
}

impl Probe {
    async fn entered(&mut self) {
        within("the handler's start", self.entered.recv()).await;
    }

    async fn dropped(&mut self) {
        within("the drop of the handler", self.dropped.recv()).await;
    }
}

fn held() -> (impl Fn() -> Held, Probe) {
    let (entered, has_entered) = unbounded_channel();
    let (dropped, was_dropped) = unbounded_channel();
    let make = move || Held {
        entered: entered.clone(),
        dropped: dropped.clone(),
    };
    let probe = Probe {
        entered: has_entered,
        dropped: was_dropped,
    };
    (make, probe)
}

impl Held {
    fn enter<T>(&self, request: &Request<T>) -> Result<Guard> {
        request.response().metadata("x-seen", "yes")?;
        request.response().send_head();
        let _ = self.entered.send(());
        Ok(Guard(self.dropped.clone()))
    }
}

impl Service for Held {
    const NAME: &'static str = "test.Fixture";

    fn add_to(self, methods: &mut Methods) {
        let service = Arc::new(self);
        methods.unary(
            UNARY,
            &service,
            |held: Arc<Self>, request: Request<Raw>| async move {
                let _guard = held.enter(&request)?;
                pending::<Result<Raw>>().await
            },
        );
        methods.server_streaming(
            SERVER,
            &service,
            |held: Arc<Self>, request: Request<Raw>, mut responses: Sender<Raw>| async move {
                let _guard = held.enter(&request)?;
                responses.send(raw("a")).await?;
                responses.send(raw("b")).await?;
                pending::<Result<()>>().await
            },
        );
        methods.client_streaming(
            CLIENT,
            &service,
            |held: Arc<Self>, request: Request<Streaming<Raw>>| async move {
                let _guard = held.enter(&request)?;
                pending::<Result<Raw>>().await
            },
        );
        methods.bidi_streaming(
            BIDI,
            &service,
            |held: Arc<Self>, request: Request<Streaming<Raw>>, mut responses: Sender<Raw>| async move {
                let _guard = held.enter(&request)?;
                responses.send(raw("a")).await?;
                responses.send(raw("b")).await?;
                pending::<Result<()>>().await
            },
        );
    }
}

#[track_caller]
fn assert_cancelled(status: &Status) {
    assert_eq!(status.code(), Code::CANCELLED, "{status}");
    assert!(status.message().contains("by the caller"), "{status}");
}

async fn over_a_tower_service<S: Service>(service: S) -> Client {
    let address = serve(Server::new().add_service(service)).await;
    let below = Channel::connect(&address)
        .await
        .expect("the server listens");
    Client::new(Channel::new(below))
}

/// Reads a stream of `a` and `b` that is cancelled by `cancel` after `a`.
async fn check_stream(
    mut stream: Streaming<Raw>,
    probe: &mut Probe,
    cancel: impl FnOnce(&mut Streaming<Raw>),
) {
    probe.entered().await;
    assert_eq!(stream.message().await.unwrap(), Some(raw("a")));
    cancel(&mut stream);
    // The stream is not polled meanwhile.
    probe.dropped().await;
    assert_eq!(stream.message().await.unwrap(), Some(raw("b")));
    let status = stream.message().await.unwrap_err();
    assert_cancelled(&status);
    assert_eq!(status.response_metadata().get("x-seen"), Some("yes"));
    assert_cancelled(&stream.message().await.unwrap_err());
}

#[tokio::test]
async fn a_stream_that_is_cancelled_yields_what_had_arrived_and_then_its_end() {
    let (make, mut probe) = held();
    let [socket, here] = both_ways(&make).await;
    let tower = ("over a tower service", over_a_tower_service(make()).await);
    for (_, client) in [socket, here, tower] {
        let call = client.server_streaming::<_, Raw>(SERVER, raw("x"));
        check_stream(call.await.unwrap(), &mut probe, Streaming::cancel).await;

        let handle = CancelHandle::new();
        let call = client.server_streaming::<_, Raw>(SERVER, raw("x"));
        let stream = call.cancel_with(&handle).await.unwrap();
        check_stream(stream, &mut probe, |_| handle.cancel()).await;
    }
}

#[tokio::test]
async fn the_requests_of_a_cancelled_call_end_too() {
    let (make, mut probe) = held();
    for (_, client) in both_ways(&make).await {
        let handle = CancelHandle::new();
        let call = client.bidi_streaming::<Raw, Raw>(BIDI);
        let (mut sender, stream) = call.cancel_with(&handle).await.unwrap();
        sender.send(raw("x")).await.unwrap();
        check_stream(stream, &mut probe, |_| handle.clone().cancel()).await;
        within("the end of the requests", sender.closed()).await;
        let status = sender.send(raw("y")).await.unwrap_err();
        assert_eq!(status.code(), Code::CANCELLED);
    }
}

#[tokio::test]
async fn a_stream_of_requests_that_is_cancelled_has_the_metadata_of_the_head() {
    async fn check(
        mut stream: ClientStream<Raw, Raw>,
        probe: &mut Probe,
        cancel: impl FnOnce(&mut ClientStream<Raw, Raw>),
    ) {
        assert_eq!(stream.head().await.unwrap().get("x-seen"), Some("yes"));
        cancel(&mut stream);
        probe.dropped().await;
        assert_cancelled(&stream.send(raw("x")).await.unwrap_err());
        let status = stream.finish().await.unwrap_err();
        assert_cancelled(&status);
        assert_eq!(status.response_metadata().get("x-seen"), Some("yes"));
    }
    let (make, mut probe) = held();
    for (_, client) in both_ways(&make).await {
        let call = client.client_streaming::<Raw, Raw>(CLIENT);
        check(call.await.unwrap(), &mut probe, ClientStream::cancel).await;

        let handle = CancelHandle::new();
        let call = client.client_streaming::<Raw, Raw>(CLIENT);
        let stream = call.cancel_with(&handle).await.unwrap();
        check(stream, &mut probe, |_| handle.cancel()).await;
    }
}

/// Calls `UNARY` in a task.
fn call_in_a_task(
    client: &Client,
    handle: &CancelHandle,
) -> tokio::task::JoinHandle<Result<Response<Raw>>> {
    let call = client.unary::<_, Raw>(UNARY, raw("x")).wait_for_ready();
    tokio::spawn(call.cancel_with(handle).into_future())
}

#[tokio::test]
async fn one_handle_cancels_all_of_its_calls() {
    let (make, mut probe) = held();
    for (_, client) in both_ways(&make).await {
        let handle = CancelHandle::new();
        let calls = [(); 3].map(|()| call_in_a_task(&client, &handle));
        for _ in &calls {
            probe.entered().await;
        }
        assert!(!handle.is_cancelled());
        handle.cancel();
        for call in calls {
            probe.dropped().await;
            assert_cancelled(&call.await.unwrap().unwrap_err());
        }
        assert!(handle.is_cancelled());
        let late = call_in_a_task(&client, &handle).await.unwrap();
        assert_cancelled(&late.unwrap_err());
        assert!(probe.entered.try_recv().is_err(), "nothing was sent");
    }
}

#[tokio::test]
async fn a_call_that_waits_for_a_connection_is_cancelled() {
    let (asked, mut was_asked) = unbounded_channel();
    let channel = Channel::to("127.0.0.1:1").connector(move |_: Address| {
        asked.send(()).expect("the test runs");
        pending::<io::Result<DuplexStream>>()
    });
    let client = Client::new(channel.connect_lazy().unwrap());
    let handle = CancelHandle::new();
    let call = call_in_a_task(&client, &handle);
    within("an attempt to connect", was_asked.recv()).await;
    handle.cancel();
    let ended = within("the end of the call", call).await.unwrap();
    assert_cancelled(&ended.unwrap_err());
}

#[tokio::test]
async fn a_handle_may_be_used_outside_of_the_runtime() {
    let (make, mut probe) = held();
    let client = client_of(&serve(Server::new().add_service(make())).await).await;
    let handle = CancelHandle::new();
    let call = call_in_a_task(&client, &handle);
    probe.entered().await;
    std::thread::spawn(move || handle.cancel()).join().unwrap();
    assert_cancelled(&call.await.unwrap().unwrap_err());
    probe.dropped().await;
}

#[tokio::test]
async fn interceptors_are_told_that_a_call_was_cancelled() {
    let (make, mut probe) = held();
    for (_, client) in both_ways(&make).await {
        let (told, mut was_told) = unbounded_channel();
        let client = client.with_channel(|channel| {
            channel.intercept(move |mut cx: Context, next: Next| {
                let told = told.clone();
                async move {
                    let end = next.run(&mut cx).await;
                    told.send(end.clone()).expect("the test runs");
                    end
                }
            })
        });
        let handle = CancelHandle::new();
        let call = call_in_a_task(&client, &handle);
        probe.entered().await;
        handle.cancel();
        probe.dropped().await;
        assert_cancelled(&call.await.unwrap().unwrap_err());
        let end = within("the end of the call", was_told.recv()).await;
        assert_cancelled(&end.unwrap().unwrap_err());

        let call = client.server_streaming::<_, Raw>(SERVER, raw("x"));
        check_stream(call.await.unwrap(), &mut probe, Streaming::cancel).await;
        let end = within("the end of the call", was_told.recv()).await;
        assert_cancelled(&end.unwrap().unwrap_err());
    }
}

#[tokio::test]
async fn an_interceptor_that_waits_does_not_hold_up_the_end_of_a_cancelled_call() {
    let (entered, mut has_entered) = unbounded_channel();
    let channel = Channel::in_process(Server::new().add_service(Echo));
    let client = Client::new(channel.intercept(move |_: Context, _: Next| {
        entered.send(()).expect("the test runs");
        pending::<Result<()>>()
    }));
    let handle = CancelHandle::new();
    let call = call_in_a_task(&client, &handle);
    within("the interceptor", has_entered.recv()).await;
    handle.cancel();
    let ended = within("the end of the call", call).await.unwrap();
    assert_cancelled(&ended.unwrap_err());
}

#[tokio::test]
async fn a_response_that_had_arrived_completely_ends_as_the_server_ended_it() {
    let client = Client::new(Channel::in_process(Server::new().add_service(Echo)));
    let mut stream = client
        .server_streaming::<_, Raw>(SERVER, raw("ab"))
        .await
        .unwrap();
    stream.head().await.unwrap();
    stream.cancel();
    assert_eq!(stream.message().await.unwrap(), Some(raw("a")));
    assert_eq!(stream.message().await.unwrap(), Some(raw("b")));
    assert_eq!(stream.message().await.unwrap(), None);
}
