//! A real nginx in front: what passes through it is what was sent, and what it says itself is a
//! status.

#![cfg(unix)]

use std::future::IntoFuture;
use std::time::Duration;

use trunkline::server::Methods;
use trunkline::{Client, Code, Compress, Method, Raw, Request, Server, Status};
use trunkline_testkit::{Fields, Outcome, Probe, RawPeer, message};
use trunkline_tests::fixture::{With, client_of, nothing, raw, serve, within};
use trunkline_tests::nginx::Nginx;

/// Says in the head and the trailers what it was told.
const TELL: Method = Method::new("/test.Fixture/Tell");

/// What each `grpc_pass` needs beyond nginx's defaults, as `examples/behind_nginx/nginx.conf` has it.
fn site(port: u16, upstream: &str, more: &str) -> String {
    format!(
        "    server {{
        listen 127.0.0.1:{port} http2;
        client_max_body_size 0;
        ignore_invalid_headers off;
        large_client_header_buffers 4 32k;
        location / {{
            grpc_pass {upstream};
            grpc_buffer_size 32k;
            {more}
        }}
    }}"
    )
}

/// nginx in front of a server at `address`.
fn in_front_of(address: &str, more: &str) -> Option<Nginx> {
    Nginx::start(|port| site(port, &format!("grpc://{address}"), more))
}

fn telling() -> With<impl FnOnce(&mut Methods)> {
    With(|methods: &mut Methods| {
        methods.unary(TELL, &nothing(), |_, request: Request<Raw>| async move {
            let (response, told) = (request.response(), request.metadata());
            for value in told.get_all("told_x.y") {
                response.metadata("head", value)?;
                response.trailer("x-trailer", value)?;
            }
            if let Some(bytes) = told.get_bin("told-bin") {
                response.metadata_bin("head-bin", &bytes)?;
                response.trailer_bin("trailer-bin", &bytes)?;
            }
            match &request.0[..] {
                b"fail" => Err(Status::aborted("as it was asked: 50 % \u{e9}")),
                b"fail late" => {
                    response.send_head();
                    tokio::task::yield_now().await;
                    Err(Status::aborted("as it was asked: 50 % \u{e9}"))
                }
                _ => {
                    response.compress(Compress::On);
                    Ok(request.into_inner())
                }
            }
        });
    })
}

#[tokio::test]
async fn calls_of_all_four_types_pass() {
    let probe = Probe::new();
    let address = serve(Server::new().add_service(probe.clone())).await;
    let Some(nginx) = in_front_of(&address, "") else {
        return;
    };
    let client = client_of(&nginx.address()).await;
    for size in [0, 1, 100_000, 4 << 20] {
        let call = client.unary::<Raw, Raw>(Probe::ECHO, raw(vec![7; size]));
        let response = within("the response", call.into_future()).await.unwrap();
        assert!(response.0 == vec![7; size], "{size}");
    }

    let call = client.server_streaming::<Raw, Raw>(Probe::SPELL, raw("spell"));
    let mut responses = call.await.unwrap();
    let mut spelt = Vec::new();
    while let Some(response) = within("a letter", responses.message()).await.unwrap() {
        spelt.extend_from_slice(&response.0);
    }
    assert_eq!(spelt, b"spell");

    // More than nginx lets one request have by default.
    let mut requests = client
        .client_streaming::<Raw, Raw>(Probe::COUNT)
        .await
        .unwrap();
    for _ in 0..40 {
        let sending = within("sending", requests.send(raw(vec![0; 100_000])));
        sending.await.unwrap();
    }
    let response = within("the count", requests.finish()).await.unwrap();
    assert_eq!(response.0, "40");

    // In turns: nothing waits in nginx for more to come.
    let chat = client.bidi_streaming::<Raw, Raw>(Probe::CHAT);
    let (mut requests, mut responses) = within("the chat", chat.into_future()).await.unwrap();
    for turn in 0..100 {
        let said = raw(format!("{turn}"));
        requests.send(said.clone()).await.unwrap();
        let response = within("a response", responses.message()).await.unwrap();
        assert_eq!(response, Some(said));
    }
    requests.finish();
    assert_eq!(within("the end", responses.message()).await.unwrap(), None);
    probe.until("no handlers", |it| it.running == 0).await;
}

#[tokio::test]
async fn metadata_trailers_statuses_and_compressed_messages_pass() {
    let address = serve(Server::new().add_service(telling())).await;
    let Some(nginx) = in_front_of(&address, "") else {
        return;
    };
    let client = client_of(&nginx.address()).await;
    let tell = |request: &'static str| {
        client
            .unary::<Raw, Raw>(TELL, raw(request))
            .metadata("told_x.y", "one")
            .metadata("told_x.y", "two, three")
            .metadata_bin("told-bin", [0, 255, 0])
            .into_future()
    };
    let long = "a message that gets smaller ".repeat(100);
    let call = client
        .unary::<Raw, Raw>(TELL, raw(long.clone()))
        .compress("gzip");
    let response = within("the response", call.into_future()).await.unwrap();
    assert!(response.is_compressed() && response.0 == long);

    let response = within("the response", tell("ok")).await.unwrap();
    let (head, trailers) = (response.metadata(), response.trailers());
    assert_eq!(
        head.get_all("head").collect::<Vec<_>>(),
        ["one", "two, three"]
    );
    assert_eq!(
        trailers.get_all("x-trailer").collect::<Vec<_>>(),
        ["one", "two, three"]
    );
    for (metadata, key) in [(head, "head-bin"), (trailers, "trailer-bin")] {
        assert_eq!(metadata.get_bin(key).as_deref(), Some(&[0, 255, 0][..]));
    }

    for request in ["fail", "fail late"] {
        let status = within("the status", tell(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::ABORTED, "{status}");
        assert_eq!(status.message(), "as it was asked: 50 % \u{e9}");
        let trailers: Vec<_> = status.metadata().get_all("x-trailer").collect();
        assert_eq!(trailers, ["one", "two, three"], "{request}");
    }
}

#[tokio::test]
async fn six_kilobytes_of_metadata_pass_both_ways() {
    let address = serve(Server::new().add_service(telling())).await;
    let Some(nginx) = in_front_of(&address, "") else {
        return;
    };
    let client = client_of(&nginx.address()).await;
    let value = "v".repeat(6 * 1024);
    let call = client.unary::<Raw, Raw>(TELL, raw("ok"));
    let call = call.metadata("told_x.y", &value).into_future();
    let response = within("the response", call).await.unwrap();
    assert_eq!(response.metadata().get("head"), Some(&*value));
    assert_eq!(response.trailers().get("x-trailer"), Some(&*value));
}

#[tokio::test]
async fn a_deadline_ends_a_call_at_the_client_and_at_the_server() {
    let probe = Probe::new();
    let address = serve(Server::new().add_service(probe.clone())).await;
    let Some(nginx) = in_front_of(&address, "") else {
        return;
    };
    let client = client_of(&nginx.address()).await;
    let hold = client.unary::<Raw, Raw>(Probe::HOLD, raw("x"));
    let hold = hold.timeout(Duration::from_millis(300));
    let status = within("the deadline", hold.into_future())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status}");
    probe.until("no handlers", |it| it.running == 0).await;

    // A client that has no timer hears it from the server.
    let mut client = RawPeer::connect(&nginx.address()).await;
    let head = Fields::call(Probe::HOLD.path()).and("grpc-timeout", "300m");
    let stream = client.call(&head, message(b"x")).await;
    assert_eq!(client.outcome(stream).await, Outcome::Answered(200, 4));
    probe
        .until("no handlers", |it| it.called == 2 && it.running == 0)
        .await;
}

#[tokio::test]
async fn a_call_that_is_given_up_drops_its_handler() {
    let probe = Probe::new();
    let address = serve(Server::new().add_service(probe.clone())).await;
    let Some(nginx) = in_front_of(&address, "") else {
        return;
    };
    let client: Client = client_of(&nginx.address()).await;
    let hold = client
        .unary::<Raw, Raw>(Probe::HOLD, raw("x"))
        .into_future();
    let hold = tokio::spawn(hold);
    probe.until("the handler", |it| it.running == 1).await;
    hold.abort();
    probe.until("no handler", |it| it.running == 0).await;

    let mut responses = client
        .server_streaming::<Raw, Raw>(Probe::STALL, raw("x"))
        .await
        .unwrap();
    within("the first", responses.message()).await.unwrap();
    probe.until("the handler", |it| it.running == 1).await;
    drop(responses);
    probe.until("no handler", |it| it.running == 0).await;

    let chat = client
        .bidi_streaming::<Raw, Raw>(Probe::CHAT)
        .await
        .unwrap();
    probe.until("the handler", |it| it.running == 1).await;
    drop(chat);
    probe.until("no handler", |it| it.running == 0).await;
    // The connection to nginx has outlived them all.
    let call = client.unary::<Raw, Raw>(Probe::ECHO, raw("x"));
    assert_eq!(
        within("the response", call.into_future()).await.unwrap().0,
        "x"
    );
}

#[tokio::test]
async fn a_server_that_is_away_or_does_not_answer_is_unavailable() {
    // Nothing listens on port 1.
    let Some(nginx) = in_front_of("127.0.0.1:1", "") else {
        return;
    };
    let client = client_of(&nginx.address()).await;
    let call = client.unary::<Raw, Raw>(Probe::ECHO, raw("x"));
    let status = within("the status", call.into_future()).await.unwrap_err();
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
    assert!(status.message().contains("502 Bad Gateway"), "{status}");

    let probe = Probe::new();
    let address = serve(Server::new().add_service(probe.clone())).await;
    let nginx = in_front_of(&address, "grpc_read_timeout 1s;").expect("it was there");
    let client = client_of(&nginx.address()).await;
    let call = client.unary::<Raw, Raw>(Probe::HOLD, raw("x"));
    let status = within("the status", call.into_future()).await.unwrap_err();
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
    assert!(status.message().contains("504 Gateway Timeout"), "{status}");
    probe.until("no handler", |it| it.running == 0).await;
}
