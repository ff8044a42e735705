//! Interceptors that see the messages of calls.

use std::future::pending;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use trunkline::server::Methods;
use trunkline::{
    Channel, Client, Code, Compress, Context, MessageRef, Next, Raw, Request, Result, Sender,
    Server, Status, Streaming,
};
use trunkline_tests::fixture::{
    BIDI, Echo, Kind, UNARY, With, client_of, nothing, raw, serve, within,
};

use super::interceptors::{Guard, SIDES, Side, whole_call, with_one};

/// A message as a hook saw it: its number, its bytes, and the same as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    index: u64,
    bytes: Vec<u8>,
    typed: Option<Raw>,
}

impl Seen {
    fn of(message: &MessageRef<'_>) -> Self {
        assert_eq!(message.size(), message.payload().len());
        assert!(message.downcast_ref::<String>().is_none(), "another type");
        Self {
            index: message.index(),
            bytes: message.payload().clone().into_bytes().to_vec(),
            typed: message.downcast_ref::<Raw>().cloned(),
        }
    }
}

type Log = Arc<Mutex<Vec<Seen>>>;

fn all_of(log: &Log) -> Vec<u8> {
    let mut all = Vec::new();
    for (index, seen) in log.lock().unwrap().drain(..).enumerate() {
        assert_eq!(seen.index, index as u64);
        assert_eq!(seen.typed, Some(raw(seen.bytes.clone())));
        all.extend(seen.bytes);
    }
    all
}

#[tokio::test]
async fn hooks_see_each_message_of_both_directions() {
    for side in SIDES {
        let (requests, responses) = (Log::default(), Log::default());
        let (request_log, response_log) = (requests.clone(), responses.clone());
        let seeing = move |mut cx: Context, next: Next| {
            let (requests, responses) = (request_log.clone(), response_log.clone());
            async move {
                cx.on_request_message(move |message| {
                    requests.lock().unwrap().push(Seen::of(message));
                    Ok(())
                });
                cx.on_response_message(move |message| {
                    responses.lock().unwrap().push(Seen::of(message));
                    Ok(())
                });
                next.run(&mut cx).await
            }
        };
        let client = with_one(side, Echo, seeing).await;
        for kind in Kind::ALL {
            let case = format!("{side:?} {kind:?}");
            let received = whole_call(&client, kind).await.expect(&case);
            assert_eq!(all_of(&requests), b"abc", "{case}");
            assert_eq!(all_of(&responses), received, "{case}");
        }
    }
}

#[tokio::test]
async fn hooks_see_messages_before_compression_and_after_decompression() {
    for is_server in [false, true] {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let log = sizes.clone();
        let seeing = move |mut cx: Context, next: Next| {
            let (requests, responses) = (log.clone(), log.clone());
            async move {
                cx.on_request_message(move |message| {
                    requests.lock().unwrap().push(message.size());
                    Ok(())
                });
                cx.on_response_message(move |message| {
                    responses.lock().unwrap().push(message.size());
                    Ok(())
                });
                next.run(&mut cx).await
            }
        };
        let handlers = With(|methods: &mut Methods| {
            methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
                assert!(request.is_compressed());
                request.response().compress(Compress::On);
                Ok(request.into_inner())
            });
            methods.bidi_streaming(
                BIDI,
                &nothing(),
                |_, mut requests: Request<Streaming<Raw>>, mut responses: Sender<Raw>| async move {
                    requests.response().compress(Compress::On);
                    while let Some(message) = requests.message().await? {
                        assert!(requests.is_compressed());
                        responses.send(message).await?;
                    }
                    Ok(())
                },
            );
        });
        let server = Server::new().add_service(handlers);
        let (server, client) = match is_server {
            true => (server.intercept(seeing), None),
            false => (server, Some(seeing)),
        };
        let mut channel = client_of(&serve(server).await).await.channel().clone();
        if let Some(seeing) = client {
            channel = channel.intercept(seeing);
        }
        let client = Client::new(channel);
        let message = raw(vec![7; 10_000]);
        let call = client
            .unary::<Raw, Raw>(UNARY, message.clone())
            .compress("gzip");
        let response = within("the call", async { call.await }).await.unwrap();
        assert!(response.is_compressed());
        assert_eq!(*response, message);
        let call = client.bidi_streaming::<Raw, Raw>(BIDI).compress("gzip");
        let (mut tx, mut rx) = within("the call", async { call.await }).await.unwrap();
        tx.send(message.clone()).await.unwrap();
        assert_eq!(rx.message().await.unwrap(), Some(message));
        assert!(rx.is_compressed());
        assert_eq!(*sizes.lock().unwrap(), [10_000; 4], "{is_server}");
    }
}

/// Says no to a message with a `b` in it.
fn reject(message: &MessageRef<'_>) -> Result<()> {
    match message.downcast_ref::<Raw>() {
        Some(message) if message.0.contains(&b'b') => {
            Err(Status::invalid_argument("no b, if you please"))
        }
        _ => Ok(()),
    }
}

#[tokio::test]
async fn a_hook_that_rejects_a_message_fails_the_call() {
    for is_response in [false, true] {
        for side in SIDES {
            let (seen, mut sees) = unbounded_channel();
            let rejecting = move |mut cx: Context, next: Next| {
                let seen = seen.clone();
                async move {
                    match is_response {
                        false => cx.on_request_message(reject),
                        true => cx.on_response_message(reject),
                    }
                    let end = next.run(&mut cx).await;
                    let _ = seen.send(end.clone().map_err(|status| status.code()));
                    end
                }
            };
            let client = with_one(side, Echo, rejecting).await;
            for kind in Kind::ALL {
                let case = format!("{side:?} {kind:?}, response: {is_response}");
                let status = whole_call(&client, kind).await.expect_err(&case);
                assert_eq!(status.code(), Code::INVALID_ARGUMENT, "{case}: {status}");
                assert_eq!(status.message(), "no b, if you please", "{case}");
                let is_at_client = matches!(side, Side::Client | Side::ClientInProcess);
                if is_at_client
                    && !is_response
                    && matches!(kind, Kind::ClientStreaming | Kind::Bidi)
                {
                    // The caller has dropped the call when `send` failed.
                    continue;
                }
                let end = within("the interceptor", sees.recv()).await;
                assert_eq!(end, Some(Err(Code::INVALID_ARGUMENT)), "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_call_whose_message_was_rejected_ends_also_if_its_handler_goes_on() {
    for is_response in [false, true] {
        let (dropped, mut drops) = unbounded_channel();
        let handlers = With(move |methods: &mut Methods| {
            methods.bidi_streaming(
                BIDI,
                &Arc::new(dropped),
                |dropped: Arc<UnboundedSender<&'static str>>,
                 mut requests: Request<Streaming<Raw>>,
                 mut responses: Sender<Raw>| async move {
                    let _guard = Guard(UnboundedSender::clone(&dropped), "handler");
                    let _ = requests.message().await;
                    let _ = responses.send(raw("b")).await;
                    pending::<Result<()>>().await
                },
            );
        });
        let rejecting = move |mut cx: Context, next: Next| async move {
            match is_response {
                false => cx.on_request_message(reject),
                true => cx.on_response_message(reject),
            }
            next.run(&mut cx).await
        };
        let client = with_one(Side::Server, handlers, rejecting).await;
        let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
        tx.send(raw("b")).await.unwrap();
        let end = async {
            // What the handler has sent comes before the end.
            while rx.message().await?.is_some() {}
            Ok::<(), Status>(())
        };
        let status = within("the end", end).await.unwrap_err();
        assert_eq!(status.code(), Code::INVALID_ARGUMENT, "{status}");
        assert_eq!(
            within("the handler", drops.recv()).await,
            Some("handler"),
            "response: {is_response}"
        );
    }
}

#[tokio::test]
async fn nothing_is_sent_after_a_request_that_was_rejected() {
    let client = with_one(
        Side::Client,
        Echo,
        |mut cx: Context, next: Next| async move {
            cx.on_request_message(reject);
            next.run(&mut cx).await
        },
    )
    .await;
    let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
    tx.send(raw("a")).await.unwrap();
    assert_eq!(rx.message().await.unwrap(), Some(raw("a")));
    for message in ["b", "c"] {
        let status = tx.send(raw(message)).await.unwrap_err();
        assert_eq!(status.code(), Code::INVALID_ARGUMENT, "{message}: {status}");
    }
    let status = within("the end", rx.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::INVALID_ARGUMENT, "{status}");
}

#[tokio::test]
async fn hooks_run_from_the_outside_for_requests_and_from_the_inside_for_responses() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let noting = |name: &'static str| {
        let order = order.clone();
        move |mut cx: Context, next: Next| {
            let (requests, responses) = (order.clone(), order.clone());
            async move {
                cx.on_request_message(move |_| {
                    requests.lock().unwrap().push(format!("{name} request"));
                    Ok(())
                });
                cx.on_response_message(move |_| {
                    responses.lock().unwrap().push(format!("{name} response"));
                    Ok(())
                });
                next.run(&mut cx).await
            }
        }
    };
    let server = Server::new()
        .add_service(Echo)
        .intercept(noting("server 1"))
        .intercept(noting("server 2"));
    let channel = Channel::in_process(server)
        .intercept(noting("client 1"))
        .intercept(noting("client 2"));
    for kind in [Kind::Unary, Kind::ClientStreaming] {
        whole_call(&Client::new(channel.clone()), kind)
            .await
            .unwrap();
        let mut order = std::mem::take(&mut *order.lock().unwrap());
        // The client sends all before the server may have run.
        order.dedup();
        let responses = [
            "server 2 response",
            "server 1 response",
            "client 2 response",
            "client 1 response",
        ];
        assert!(order.ends_with(&responses.map(str::to_owned)), "{order:?}");
        if kind == Kind::Unary {
            let requests = [
                "client 1 request",
                "client 2 request",
                "server 1 request",
                "server 2 request",
            ];
            assert_eq!(order[..4], requests.map(str::to_owned), "{order:?}");
        }
    }
}

#[tokio::test]
async fn a_panic_in_a_hook_of_a_server_is_internal_and_the_connection_lives() {
    let panicking = |mut cx: Context, next: Next| async move {
        cx.on_request_message(|message| {
            let is_bad = message.payload().clone().into_bytes() == "panic";
            assert!(!is_bad, "a test");
            Ok(())
        });
        next.run(&mut cx).await
    };
    for side in [Side::Server, Side::ServerInProcess] {
        let client = with_one(side, Echo, panicking).await;
        let call = client.unary::<Raw, Raw>(UNARY, raw("panic"));
        let status = within("the call", async { call.await }).await.unwrap_err();
        assert_eq!(status.code(), Code::INTERNAL, "{side:?}: {status}");
        assert_eq!(
            whole_call(&client, Kind::Bidi).await.unwrap(),
            b"abc",
            "{side:?}"
        );
    }
}
