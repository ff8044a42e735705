//! Observers of calls: their events and figures.

use std::future::IntoFuture;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use trunkline::observe::{
    CallEvent, CallObserver, CallStart, CallStats, ConnectionEnd, ConnectionStats, Observer,
};
use trunkline::{Channel, Client, Code, Raw, Request, Result, Server};
use trunkline_testkit::{Fields, Frame, MemoryListener, MemoryNet, RawPeer, message};
use trunkline_tests::fixture::{
    BIDI, CLIENT, Echo, Kind, SERVER, UNARY, With, nothing, raw, serve, within,
};

/// Sends lines about the beginnings and ends of calls.
#[derive(Clone)]
struct Heard(mpsc::UnboundedSender<String>);

impl Observer for Heard {
    fn call(&self, call: &CallStart<'_>) -> Option<impl CallObserver> {
        let (side, method) = (call.side(), call.method());
        let _ = self.0.send(format!("{side:?} began {method}"));
        let heard = self.clone();
        Some(move |_: Instant, event: &CallEvent<'_>| {
            if let CallEvent::Ended(call) = event {
                heard.ended(call);
            }
        })
    }
}

impl Heard {
    fn ended(&self, call: &CallStats<'_>) {
        assert!(
            call.time_to_head()
                .is_none_or(|head| head <= call.duration())
        );
        assert!(
            call.time_to_stream()
                .is_none_or(|open| open <= call.duration())
        );
        let _ = self.0.send(format!(
            "{:?} ended {} {}: sent {} of {} B, received {} of {} B, stream {}, head {}",
            call.side(),
            call.method(),
            call.code(),
            call.messages_sent(),
            call.bytes_sent(),
            call.messages_received(),
            call.bytes_received(),
            call.time_to_stream().is_some(),
            call.time_to_head().is_some(),
        ));
    }
}

/// A client and a server with the same observer.
async fn heard(server: Server) -> (Client, mpsc::UnboundedReceiver<String>) {
    let (heard, lines) = mpsc::unbounded_channel();
    let address = serve(server.observe(Heard(heard.clone()))).await;
    let channel = Channel::connect(&address).await.unwrap();
    (Client::new(channel.observe(Heard(heard))), lines)
}

/// The next `n` lines in alphabetical order: the two sides end in any.
async fn lines(lines: &mut mpsc::UnboundedReceiver<String>, n: usize) -> Vec<String> {
    let mut got = Vec::new();
    for _ in 0..n {
        got.push(within("a line", lines.recv()).await.unwrap());
    }
    got.sort();
    got
}

async fn call(client: &Client, kind: Kind) {
    match kind {
        Kind::Unary => {
            let response = client.unary::<_, Raw>(UNARY, raw("abc")).await.unwrap();
            assert_eq!(response.into_inner(), raw("abc"));
        }
        Kind::ServerStreaming => {
            let mut responses = client
                .server_streaming::<_, Raw>(SERVER, raw("abc"))
                .await
                .unwrap();
            while responses.message().await.unwrap().is_some() {}
        }
        Kind::ClientStreaming => {
            let mut requests = client.client_streaming::<Raw, Raw>(CLIENT).await.unwrap();
            requests.send(raw("ab")).await.unwrap();
            requests.send(raw("c")).await.unwrap();
            requests.finish().await.unwrap();
        }
        Kind::Bidi => {
            let (mut requests, mut responses) =
                client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
            requests.send(raw("ab")).await.unwrap();
            assert!(responses.message().await.unwrap().is_some());
            requests.finish();
            assert!(responses.message().await.unwrap().is_none());
        }
    }
}

#[tokio::test]
async fn both_sides_tell_the_messages_and_bytes_of_each_kind_of_call() {
    let (client, mut told) = heard(Server::new().add_service(Echo)).await;
    for (kind, sent, received) in [
        (Kind::Unary, "1 of 8 B", "1 of 8 B"),
        (Kind::ServerStreaming, "1 of 8 B", "3 of 18 B"),
        (Kind::ClientStreaming, "2 of 13 B", "1 of 8 B"),
        (Kind::Bidi, "1 of 7 B", "1 of 7 B"),
    ] {
        call(&client, kind).await;
        let method = kind.method();
        let path = method.path().trim_start_matches('/');
        assert_eq!(
            lines(&mut told, 4).await,
            [
                format!("Client began {path}"),
                format!(
                    "Client ended {path} OK: sent {sent}, received {received}, stream true, head true"
                ),
                format!("Server began {path}"),
                format!(
                    "Server ended {path} OK: sent {received}, received {sent}, stream false, head true"
                ),
            ]
        );
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_ends_once_on_each_side_and_is_cancelled() {
    let (client, mut told) = heard(never()).await;
    let call = client.unary::<_, Raw>(UNARY, raw("x"));
    let calling = tokio::spawn(async move { call.await });
    assert!(lines(&mut told, 2).await[1].starts_with("Server began"));
    calling.abort();
    let ends = lines(&mut told, 2).await;
    assert!(
        ends[0].starts_with("Client ended test.Fixture/Unary CANCELLED"),
        "{ends:?}"
    );
    assert!(
        ends[1].starts_with("Server ended test.Fixture/Unary CANCELLED"),
        "{ends:?}"
    );
}

#[tokio::test]
async fn a_call_whose_deadline_passes_ends_so_at_the_client_and_may_be_cancelled_at_the_server() {
    let (client, mut told) = heard(never()).await;
    let call = client
        .unary::<_, Raw>(UNARY, raw("x"))
        .timeout(Duration::from_millis(50));
    assert_eq!(call.await.unwrap_err().code(), Code::DEADLINE_EXCEEDED);
    let told = lines(&mut told, 4).await;
    let ended = |side: &str, code: &str| {
        let end = format!("{side} ended test.Fixture/Unary {code}");
        told.iter().any(|line| line.starts_with(&end))
    };
    assert!(ended("Client", "DEADLINE_EXCEEDED"), "{told:?}");
    // The client's reset and the server's own deadline come at the same time.
    assert!(
        ended("Server", "DEADLINE_EXCEEDED") || ended("Server", "CANCELLED"),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_call_whose_deadline_passes_at_the_server_ends_so_there() {
    let (heard, mut told) = mpsc::unbounded_channel();
    let mut client = RawPeer::connect(&serve(never().observe(Heard(heard))).await).await;
    let head = Fields::call(UNARY.path()).and("grpc-timeout", "50m");
    client.call(&head, message(b"x")).await;
    let told = lines(&mut told, 2).await;
    assert!(
        told[1].starts_with("Server ended test.Fixture/Unary DEADLINE_EXCEEDED"),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_method_that_the_server_does_not_have_is_called_other() {
    let (client, mut told) = heard(Server::new().add_service(Echo)).await;
    let made_up = trunkline::Method::new("/made.Up/Name");
    let status = client.unary::<_, Raw>(made_up, raw("x")).await.unwrap_err();
    assert_eq!(status.code(), Code::UNIMPLEMENTED);
    let told = lines(&mut told, 4).await;
    assert!(told.contains(&"Server began other".to_owned()), "{told:?}");
    assert!(
        told.iter()
            .any(|line| line.starts_with("Server ended other UNIMPLEMENTED")),
        "{told:?}"
    );
    assert!(
        told.iter()
            .any(|line| line.starts_with("Client ended made.Up/Name UNIMPLEMENTED")),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_call_that_finds_no_server_has_an_end_and_no_stream() {
    let (heard, mut told) = mpsc::unbounded_channel();
    let channel = Channel::to("127.0.0.1:1")
        .connect_lazy()
        .unwrap()
        .observe(Heard(heard));
    let status = Client::new(channel)
        .unary::<_, Raw>(UNARY, raw("x"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::UNAVAILABLE);
    assert_eq!(
        lines(&mut told, 2).await,
        [
            "Client began test.Fixture/Unary",
            "Client ended test.Fixture/Unary UNAVAILABLE: sent 1 of 6 B, received 0 of 0 B, stream false, head false"
        ]
    );
}

fn never() -> Server {
    Server::new().add_service(With(|methods: &mut trunkline::server::Methods| {
        methods.unary(UNARY, &nothing(), |_, _: Request<Raw>| async {
            std::future::pending::<Result<Raw>>().await
        });
    }))
}

#[tokio::test]
async fn a_handler_that_panics_ends_its_call_with_internal() {
    let service = With(|methods: &mut trunkline::server::Methods| {
        methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
            match request.0.is_empty() {
                true => Ok(request.into_inner()),
                false => panic!("a handler of a test"),
            }
        });
    });
    let (client, mut told) = heard(Server::new().add_service(service)).await;
    let call = client.unary::<_, Raw>(UNARY, raw("x"));
    assert_eq!(call.await.unwrap_err().code(), Code::INTERNAL);
    let told = lines(&mut told, 4).await;
    let end = "Server ended test.Fixture/Unary INTERNAL";
    assert!(told.iter().any(|line| line.starts_with(end)), "{told:?}");
}

#[tokio::test]
async fn both_sides_know_what_passed_on_a_connection() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let address = serve(Server::new().add_service(Echo).observe(Ends(ended))).await;
    let channel = Channel::connect(&address).await.unwrap();
    let client = Client::new(channel.clone());
    for kind in Kind::ALL {
        call(&client, kind).await;
    }
    let [ours] = channel.connection_stats()[..] else {
        panic!("there is one connection");
    };
    assert!(ours.bytes_out > 100 && ours.frames_out > 8, "{ours:?}");
    drop((channel, client));
    let theirs = within("the end of the connection", ends.recv())
        .await
        .unwrap();
    assert!(theirs.bytes_in >= ours.bytes_out, "{theirs:?} {ours:?}");
    assert!(theirs.frames_in >= ours.frames_out, "{theirs:?} {ours:?}");
    assert!(theirs.bytes_out >= ours.bytes_in, "{theirs:?} {ours:?}");
}

/// Keeps what passed on connections that have ended.
struct Ends(mpsc::UnboundedSender<ConnectionStats>);

impl Observer for Ends {
    fn connection_ended(&self, connection: &ConnectionEnd<'_>) {
        let _ = self.0.send(*connection.stats());
    }
}

/// Lines about the calls of a channel to a peer that is spoken for by hand.
async fn told() -> (Client, MemoryListener, mpsc::UnboundedReceiver<String>) {
    let net = MemoryNet::default();
    let listener = net.listen("10.0.0.1:1");
    let channel = Channel::to("10.0.0.1:1").connector(net.connector());
    let (heard, lines) = mpsc::unbounded_channel();
    let channel = channel.connect_lazy().unwrap().observe(Heard(heard));
    (Client::new(channel), listener, lines)
}

#[tokio::test]
async fn a_response_that_cannot_be_read_ends_as_its_caller_sees_it() {
    for (payload, code) in [(&b"\xff\xff"[..], Some(Code::INTERNAL)), (b"", None)] {
        let (client, mut listener, mut told) = told().await;
        let call = client.unary::<Raw, String>(UNARY, raw("x"));
        let call = tokio::spawn(call.into_future());
        let mut peer = listener.accept().await;
        let stream = peer.next_full_request().await;
        peer.write(&[
            Frame::headers(stream, &Fields::response()),
            Frame::data(stream, message(payload)),
            Frame::headers(stream, &Fields::trailers("0")).ending(),
        ])
        .await;
        let response = within("the call", call).await.unwrap();
        assert_eq!(response.err().map(|status| status.code()), code);
        let ended = &lines(&mut told, 2).await[1];
        let name = code.unwrap_or(Code::OK).to_string();
        assert!(ended.contains(&format!(" {name}: ")), "{ended}");
    }
}

#[tokio::test]
async fn a_call_whose_responses_are_dropped_ends_before_its_sender_is() {
    let (client, mut listener, mut told) = told().await;
    let call = tokio::spawn(client.bidi_streaming::<Raw, Raw>(BIDI).into_future());
    let mut peer = listener.accept().await;
    peer.next_request().await;
    let (sender, responses) = within("open", call).await.unwrap().unwrap();
    drop(responses);
    let ended = &lines(&mut told, 2).await[1];
    assert!(ended.contains("BidiStreaming CANCELLED: "), "{ended}");
    drop(sender);
    assert!(told.try_recv().is_err(), "once");
}
