//! A handler's future is dropped within 100 ms of its client's drop, RST_STREAM, disconnect or
//! deadline, for all four types of calls.
//!
//! Each case is tried several times. The median must be within 100 ms, and each single one within
//! the bound of the waits: a machine that is busy with other tests may hold up one round, and does
//! not hold up half of them. The figures are printed.

use std::future::{IntoFuture, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use trunkline::server::Methods;
use trunkline::{
    Channel, Client, ClientStream, Code, Raw, Request, Response, Result, Sender, Server, Service,
    Status, Streaming,
};
use trunkline_tests::fixture::{
    BIDI, CLIENT, Echo, Kind, SERVER, UNARY, With, both_ways, client_of, frame, raw, raw_request,
    serve, within,
};

use crate::wall_clock::assert_prompt;

const ROUNDS: usize = 7;

/// Where a handler stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has neither read nor sent anything.
    Silent,
    /// It has sent one message.
    Replied,
    /// It waits for a request that does not come.
    Reading,
    /// It sends more than its client takes.
    Sending,
}

/// The kinds, with the places where a handler of that kind can stay.
const MATRIX: [(Kind, Stage); 10] = [
    (Kind::Unary, Stage::Silent),
    (Kind::ServerStreaming, Stage::Silent),
    (Kind::ServerStreaming, Stage::Replied),
    (Kind::ServerStreaming, Stage::Sending),
    (Kind::ClientStreaming, Stage::Silent),
    (Kind::ClientStreaming, Stage::Reading),
    (Kind::Bidi, Stage::Silent),
    (Kind::Bidi, Stage::Replied),
    (Kind::Bidi, Stage::Reading),
    (Kind::Bidi, Stage::Sending),
];

/// Says when it is dropped: it lives in a handler's future.
struct Guard {
    dropped: UnboundedSender<Instant>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The test may be over.
        let _ = self.dropped.send(Instant::now());
    }
}

/// Handlers that stay at a stage until they are dropped.
struct Held {
    stage: Stage,
    entered: UnboundedSender<()>,
    dropped: UnboundedSender<Instant>,
    sent: Arc<AtomicUsize>,
}

/// What a test sees of the handlers of a [`Held`].
struct Probe {
    entered: UnboundedReceiver<()>,
    dropped: UnboundedReceiver<Instant>,
    sent: Arc<AtomicUsize>,
}

fn held(stage: Stage) -> (Held, Probe) {
    let (entered, has_entered) = unbounded_channel();
    let (dropped, was_dropped) = unbounded_channel();
    let sent = Arc::new(AtomicUsize::new(0));
    let held = Held {
        stage,
        entered,
        dropped,
        sent: sent.clone(),
    };
    let probe = Probe {
        entered: has_entered,
        dropped: was_dropped,
        sent,
    };
    (held, probe)
}

impl Held {
    fn enter(&self) -> Guard {
        self.entered.send(()).expect("the test runs");
        Guard {
            dropped: self.dropped.clone(),
        }
    }

    async fn send(&self, mut responses: Sender<Raw>) -> Result<()> {
        match self.stage {
            Stage::Silent | Stage::Reading => {}
            Stage::Replied => responses.send(raw("here")).await?,
            Stage::Sending => loop {
                responses.send(raw(vec![7; 1024])).await?;
                self.sent.fetch_add(1, Ordering::SeqCst);
            },
        }
        pending().await
    }

    async fn read(&self, mut requests: Request<Streaming<Raw>>) -> Result<()> {
        if self.stage == Stage::Reading {
            while requests.message().await?.is_some() {}
        }
        pending().await
    }
}

impl Service for Held {
    const NAME: &'static str = "test.Fixture";

    fn add_to(self, methods: &mut Methods) {
        Arc::new(self).add_all(methods);
    }
}

impl Held {
    fn add_all(self: &Arc<Self>, methods: &mut Methods) {
        methods.unary(UNARY, self, |held: Arc<Self>, _: Request<Raw>| async move {
            let _guard = held.enter();
            pending::<Result<Raw>>().await
        });
        methods.server_streaming(
            SERVER,
            self,
            |held: Arc<Self>, _: Request<Raw>, responses: Sender<Raw>| async move {
                let _guard = held.enter();
                held.send(responses).await
            },
        );
        methods.client_streaming(
            CLIENT,
            self,
            |held: Arc<Self>, requests: Request<Streaming<Raw>>| async move {
                let _guard = held.enter();
                held.read(requests).await.map(|()| raw(""))
            },
        );
        methods.bidi_streaming(
            BIDI,
            self,
            |held: Arc<Self>, requests: Request<Streaming<Raw>>, responses: Sender<Raw>| async move {
                let _guard = held.enter();
                match held.stage {
                    Stage::Reading => held.read(requests).await,
                    Stage::Silent | Stage::Replied | Stage::Sending => held.send(responses).await,
                }
            },
        );
    }
}

impl Probe {
    async fn entered(&mut self) {
        within("the handler begins", self.entered.recv()).await;
    }

    /// How long after `since` the handler was dropped.
    async fn dropped_after(&mut self, since: Instant) -> Duration {
        let at = within("the handler is dropped", self.dropped.recv()).await;
        let at = at.expect("the service lives");
        at.saturating_duration_since(since)
    }

    /// Waits until a handler that sends can send no more: for 20 ms it has got nowhere.
    async fn is_stuck(&self) {
        let stuck = async {
            loop {
                let before = self.sent.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                if before > 0 && before == self.sent.load(Ordering::SeqCst) {
                    return;
                }
            }
        };
        within("the handler gets stuck", stuck).await;
    }
}

/// A call that is open, as its client holds it.
enum Open {
    Unary(Pin<Box<dyn Future<Output = Result<Response<Raw>>> + Send>>),
    Server(Streaming<Raw>),
    Client(ClientStream<Raw, Raw>),
    Bidi(Sender<Raw>, Streaming<Raw>),
}

impl Open {
    /// Makes a call whose handler stays at the stage of its service.
    async fn new(
        client: &Client,
        (kind, stage): (Kind, Stage),
        timeout: Duration,
        probe: &mut Probe,
    ) -> Self {
        let mut open = match kind {
            Kind::Unary => {
                let mut call = client.unary(UNARY, raw("x")).timeout(timeout).into_future();
                tokio::select! {
                    biased;
                    end = &mut call => panic!("the call ended: {end:?}"),
                    () = probe.entered() => {}
                }
                return Self::Unary(call);
            }
            Kind::ServerStreaming => {
                let call = client.server_streaming(SERVER, raw("x")).timeout(timeout);
                Self::Server(call.await.expect("the stream opens"))
            }
            Kind::ClientStreaming => {
                let call = client.client_streaming(CLIENT).timeout(timeout);
                Self::Client(call.await.expect("the stream opens"))
            }
            Kind::Bidi => {
                let call = client.bidi_streaming(BIDI).timeout(timeout);
                let (tx, rx) = call.await.expect("the stream opens");
                Self::Bidi(tx, rx)
            }
        };
        probe.entered().await;
        if stage == Stage::Replied
            && let Self::Server(rx) | Self::Bidi(_, rx) = &mut open
        {
            let response = within("the response", rx.message()).await;
            assert_eq!(response.expect("a message"), Some(raw("here")));
        }
        if stage == Stage::Sending {
            probe.is_stuck().await;
        }
        open
    }

    /// How the call ends for its client.
    async fn end(self) -> Status {
        let end = async {
            match self {
                Self::Unary(call) => call.await.map(|_| ()),
                Self::Client(stream) => stream.finish().await.map(|_| ()),
                Self::Server(mut rx) | Self::Bidi(_, mut rx) => loop {
                    match rx.message().await {
                        Ok(Some(_)) => {}
                        Ok(None) => return Ok(()),
                        Err(status) => return Err(status),
                    }
                },
            }
        };
        within("the end of the call", end)
            .await
            .expect_err("no handler ends well")
    }
}

const NEVER: Duration = Duration::from_secs(3600);

async fn drop_the_call(client: &Client, case: (Kind, Stage), probe: &mut Probe) -> Duration {
    let open = Open::new(client, case, NEVER, probe).await;
    let since = Instant::now();
    drop(open);
    probe.dropped_after(since).await
}

async fn over_a_socket(held: Held) -> Client {
    client_of(&serve(Server::new().add_service(held)).await).await
}

/// Drops calls of each kind in each stage, to a server that `connect` makes of the handlers.
async fn handlers_are_dropped_with_their_calls(what: &str, connect: impl AsyncFn(Held) -> Client) {
    for case in MATRIX {
        let (held, mut probe) = held(case.1);
        let client = connect(held).await;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            times.push(drop_the_call(&client, case, &mut probe).await);
        }
        assert_prompt(&format!("{what} {case:?}"), times);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_is_dropped_when_its_client_drops_the_call() {
    handlers_are_dropped_with_their_calls("drop", over_a_socket).await;
}

#[tokio::test]
async fn a_handler_is_dropped_when_its_client_drops_the_call_on_one_thread() {
    handlers_are_dropped_with_their_calls("drop, one thread", over_a_socket).await;
}

#[tokio::test]
async fn a_handler_in_this_process_is_dropped_when_its_client_drops_the_call() {
    let in_process = async |held| Client::new(Channel::in_process(Server::new().add_service(held)));
    handlers_are_dropped_with_their_calls("drop, in process", in_process).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_is_dropped_at_the_deadline() {
    let timeout = Duration::from_millis(120);
    for case in MATRIX {
        let (held, mut probe) = held(case.1);
        let client = client_of(&serve(Server::new().add_service(held)).await).await;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let open = Open::new(&client, case, timeout, &mut probe).await;
            times.push(probe.dropped_after(begun + timeout).await);
            let status = open.end().await;
            assert_eq!(
                status.code(),
                Code::DEADLINE_EXCEEDED,
                "{case:?}: {status:?}"
            );
        }
        assert_prompt(&format!("deadline {case:?}"), times);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_in_this_process_is_dropped_at_the_deadline_and_not_before() {
    let timeout = Duration::from_secs(5);
    for case in MATRIX {
        let (held, mut probe) = held(case.1);
        let client = Client::new(Channel::in_process(Server::new().add_service(held)));
        let begun = Instant::now();
        let open = Open::new(&client, case, timeout, &mut probe).await;
        // With the clock paused, time passes only when there is nothing else to do: this is exact
        // up to the millisecond of tokio's timer.
        let lived = probe.dropped_after(begun).await;
        assert!(lived >= timeout, "{case:?}: {lived:?}");
        assert!(
            lived <= timeout + Duration::from_millis(5),
            "{case:?}: {lived:?}"
        );
        let status = open.end().await;
        assert_eq!(
            status.code(),
            Code::DEADLINE_EXCEEDED,
            "{case:?}: {status:?}"
        );
    }
}

/// A client on bare HTTP/2, which reads nothing and gives no window.
struct Bare {
    send: h2::client::SendRequest<Bytes>,
    connection: JoinHandle<()>,
}

impl Bare {
    async fn connect(address: &str) -> Self {
        let connecting = async {
            let socket = TcpStream::connect(address)
                .await
                .expect("the server listens");
            h2::client::Builder::new()
                .initial_window_size(1024)
                .handshake::<_, Bytes>(socket)
                .await
                .expect("the server speaks HTTP/2")
        };
        let (send, connection) = within("connecting", connecting).await;
        let connection = tokio::spawn(async move {
            // Ends with the test, or with an error that the test has made.
            let _ = connection.await;
        });
        Self { send, connection }
    }

    /// Makes a call and leaves it open, up to the stage of its handler.
    async fn open(
        &mut self,
        (kind, stage): (Kind, Stage),
        probe: &mut Probe,
    ) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
        let request = raw_request(&kind.method(), None);
        let (response, mut stream) = self
            .send
            .send_request(request, false)
            .expect("the connection lives");
        let is_end = matches!(kind, Kind::Unary | Kind::ServerStreaming);
        stream
            .send_data(frame(b"x"), is_end)
            .expect("the stream is open");
        probe.entered().await;
        if stage == Stage::Sending {
            probe.is_stuck().await;
        }
        (response, stream)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_is_dropped_when_its_stream_is_reset() {
    for case in MATRIX {
        let (held, mut probe) = held(case.1);
        let mut bare = Bare::connect(&serve(Server::new().add_service(held)).await).await;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let (_response, mut stream) = bare.open(case, &mut probe).await;
            let since = Instant::now();
            stream.send_reset(Reason::CANCEL);
            times.push(probe.dropped_after(since).await);
        }
        assert_prompt(&format!("RST_STREAM {case:?}"), times);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_is_dropped_when_its_client_disconnects() {
    for case in MATRIX {
        let (held, mut probe) = held(case.1);
        let address = serve(Server::new().add_service(held)).await;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let mut bare = Bare::connect(&address).await;
            let _call = bare.open(case, &mut probe).await;
            let since = Instant::now();
            // Takes the socket with it, and says nothing.
            bare.connection.abort();
            times.push(probe.dropped_after(since).await);
        }
        assert_prompt(&format!("disconnect {case:?}"), times);
    }
}

/// What a handler of a bidi call hears of its requests.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Message,
    End,
    Failure,
}

/// A bidi method that tells what it hears, and goes on until it is dropped.
fn listener(heard: UnboundedSender<Heard>) -> impl Service {
    With(move |methods: &mut Methods| {
        methods.bidi_streaming(
            BIDI,
            &Arc::new(heard),
            |heard: Arc<UnboundedSender<Heard>>,
             mut requests: Request<Streaming<Raw>>,
             mut responses: Sender<Raw>| async move {
                loop {
                    let (next, is_over) = match requests.message().await {
                        Ok(Some(message)) => {
                            responses.send(message).await?;
                            (Heard::Message, false)
                        }
                        Ok(None) => (Heard::End, true),
                        Err(_) => (Heard::Failure, true),
                    };
                    // The test may be over.
                    let _ = heard.send(next);
                    if is_over {
                        return Ok(());
                    }
                }
            },
        );
    })
}

async fn listened_to() -> Vec<(&'static str, Client, UnboundedReceiver<Heard>)> {
    let mut all_hear = Vec::new();
    let clients = both_ways(|| {
        let (heard, hears) = unbounded_channel();
        all_hear.push(hears);
        listener(heard)
    });
    let clients = clients.await.into_iter();
    clients
        .zip(all_hear)
        .map(|((way, client), hears)| (way, client, hears))
        .collect()
}

#[tokio::test]
async fn a_sender_dropped_without_finish_cancels_the_call_and_is_no_half_close() {
    for (way, client, mut hears) in listened_to().await {
        let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
        tx.send(raw("x")).await.unwrap();
        assert_eq!(within(way, rx.message()).await.unwrap(), Some(raw("x")));
        assert_eq!(hears.recv().await, Some(Heard::Message));
        drop(tx);
        let status = within(way, rx.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::CANCELLED, "{way}: {status:?}");
        // The handler is dropped, or hears of a failure first; it never hears of an end.
        while let Ok(heard) = hears.try_recv() {
            assert_eq!(heard, Heard::Failure, "{way}");
        }
    }
}

#[tokio::test]
async fn a_sender_dropped_after_finish_ends_the_requests() {
    for (way, client, mut hears) in listened_to().await {
        let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
        tx.send(raw("x")).await.unwrap();
        tx.finish();
        assert_eq!(within(way, rx.message()).await.unwrap(), Some(raw("x")));
        assert_eq!(within(way, rx.message()).await.unwrap(), None);
        assert_eq!(hears.recv().await, Some(Heard::Message));
        assert_eq!(hears.recv().await, Some(Heard::End));
    }
}

#[tokio::test]
async fn a_sender_dropped_without_finish_drops_a_handler_that_does_not_read() {
    for stage in [Stage::Silent, Stage::Replied, Stage::Sending] {
        let (held, mut probe) = held(stage);
        let held = Arc::new(held);
        for (way, client) in both_ways(|| shared(&held)).await {
            let open = Open::new(&client, (Kind::Bidi, stage), NEVER, &mut probe).await;
            let Open::Bidi(tx, rx) = open else {
                panic!("not a bidi call")
            };
            let since = Instant::now();
            drop(tx);
            let lived = probe.dropped_after(since).await;
            println!("sender dropped, {way}, {stage:?}: {lived:?}");
            let status = Open::Server(rx).end().await;
            assert_eq!(status.code(), Code::CANCELLED, "{way}: {status:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_of_responses_that_is_dropped_cancels_a_call_whose_sender_is_still_there() {
    for stage in [
        Stage::Silent,
        Stage::Replied,
        Stage::Reading,
        Stage::Sending,
    ] {
        let (held, mut probe) = held(stage);
        let held = Arc::new(held);
        for (way, client) in both_ways(|| shared(&held)).await {
            let open = Open::new(&client, (Kind::Bidi, stage), NEVER, &mut probe).await;
            let Open::Bidi(mut tx, rx) = open else {
                panic!("not a bidi call")
            };
            let since = Instant::now();
            drop(rx);
            let lived = probe.dropped_after(since).await;
            println!("responses dropped, {way}, {stage:?}: {lived:?}");
            within("the sender hears of it", tx.closed()).await;
            let status = tx.send(raw("x")).await.unwrap_err();
            assert_eq!(status.code(), Code::CANCELLED, "{way}: {status:?}");
        }
    }
}

/// The same handlers behind more than one server.
fn shared(held: &Arc<Held>) -> impl Service + use<> {
    let held = Arc::clone(held);
    With(move |methods: &mut Methods| held.add_all(methods))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_call_cancels_the_calls_that_its_handler_makes() {
    let (far, mut probe) = held(Stage::Silent);
    let far = client_of(&serve(Server::new().add_service(far)).await).await;
    let near = With(move |methods: &mut Methods| {
        methods.unary(
            UNARY,
            &Arc::new(far),
            |far: Arc<Client>, request: Request<Raw>| async move {
                let response = far.unary::<Raw, Raw>(UNARY, request.into_inner()).await?;
                Ok(response.into_inner())
            },
        );
    });
    let client = client_of(&serve(Server::new().add_service(near)).await).await;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        times.push(drop_the_call(&client, (Kind::Unary, Stage::Silent), &mut probe).await);
    }
    assert_prompt("two hops", times);
}

#[tokio::test]
async fn a_call_that_is_never_awaited_sends_nothing() {
    let (held, mut probe) = held(Stage::Silent);
    let client = client_of(&serve(Server::new().add_service(held)).await).await;
    drop(client.unary::<Raw, Raw>(UNARY, raw("x")));
    drop(client.bidi_streaming::<Raw, Raw>(BIDI));
    // The next call is the first that the server sees.
    drop_the_call(&client, (Kind::Unary, Stage::Silent), &mut probe).await;
    assert!(probe.entered.try_recv().is_err());
}

#[tokio::test]
async fn neighbours_of_a_cancelled_call_go_on() {
    let client = client_of(&serve(Server::new().add_service(Echo)).await).await;
    let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
    for round in 0..50_u8 {
        let (mut other, responses) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
        other.send(raw(vec![round; 5000])).await.unwrap();
        match round % 2 {
            0 => drop(other),
            _ => drop(responses),
        }
        tx.send(raw(vec![round])).await.unwrap();
        let response = within("the neighbour", rx.message()).await.unwrap();
        assert_eq!(response, Some(raw(vec![round])));
    }
}
