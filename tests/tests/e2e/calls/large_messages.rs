//! Messages that go out in pieces and are put together as they come: of all shapes, in all calls,
//! whole, compressed, and at their limits.

use std::future::IntoFuture;
use std::sync::Arc;

use bytes::Bytes;
use trunkline::server::Methods;
use trunkline::{
    Channel, Client, Code, Compress, Message, Raw, Request, Response, Result, Sender, Server,
    Service, Streaming,
};
use trunkline_tests::fixture::{
    BIDI, CLIENT, Echo, Random, SERVER, UNARY, With, client_with, nothing, raw, serve, within,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Fields that are shared, fields that are copied, and many small ones.
#[derive(Clone, PartialEq, prost::Message)]
struct Mixed {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", tag = "2")]
    shared: Bytes,
    #[prost(bytes = "vec", tag = "3")]
    copied: Vec<u8>,
    #[prost(string, repeated, tag = "4")]
    words: Vec<String>,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    parts: Vec<Bytes>,
    #[prost(uint64, repeated, tag = "6")]
    numbers: Vec<u64>,
}

fn noise(size: usize) -> Vec<u8> {
    let mut random = Random(0x9e37_79b9);
    (0..size).map(|_| random.below(256) as u8).collect()
}

fn shapes() -> Vec<(&'static str, Mixed)> {
    let shared = |size| Mixed {
        shared: noise(size).into(),
        ..Mixed::default()
    };
    vec![
        ("a large field", shared(MIB + 100_000)),
        ("just in pieces", shared(16 * KIB)),
        ("not in pieces", shared(16 * KIB - 20)),
        ("just a block", shared(64 * KIB)),
        (
            "a field that is copied, and a long name",
            Mixed {
                name: "n".repeat(100_000),
                copied: noise(MIB),
                ..Mixed::default()
            },
        ),
        (
            "many small fields",
            Mixed {
                words: (0..100_000).map(|i| i.to_string()).collect(),
                numbers: (0..100_000).collect(),
                ..Mixed::default()
            },
        ),
        (
            "fields of all sizes",
            Mixed {
                name: "between".to_owned(),
                shared: noise(5_000).into(),
                parts: (0..400_usize).map(|i| noise(i * 37).into()).collect(),
                ..Mixed::default()
            },
        ),
    ]
}

/// Gives back what it gets, as what it is.
fn echo<T: Message + Sync>() -> impl Service {
    With(|methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), |_, request: Request<T>| async move {
            Ok(request.into_inner())
        });
        methods.bidi_streaming(
            BIDI,
            &nothing(),
            |_, mut requests: Request<Streaming<T>>, mut responses: Sender<T>| async move {
                while let Some(message) = requests.message().await? {
                    responses.send(message).await?;
                }
                Ok(())
            },
        );
    })
}

/// Clients whose servers, and who themselves, take messages of up to `limit` bytes.
async fn both_ways<S: Service>(make: impl Fn() -> S, limit: usize) -> [(&'static str, Client); 2] {
    let server = || {
        Server::new()
            .add_service(make())
            .max_recv_message_size(limit)
    };
    let address = serve(server()).await;
    let socket = client_with(Channel::to(&address).max_recv_message_size(limit)).await;
    let server = Server::new().with_limits(|it| it.messages.max_recv_message_size = limit);
    let here = Channel::in_process(server.add_service(make()));
    [("over a socket", socket), ("in process", Client::new(here))]
}

#[tokio::test]
async fn messages_of_all_shapes_come_back_as_they_were() {
    for (way, client) in both_ways(echo::<Mixed>, 4 * MIB).await {
        for (shape, message) in shapes() {
            let call = || client.unary::<Mixed, Mixed>(UNARY, message.clone());
            let what = format!("{shape}, {way}");
            let plain: Result<Response<Mixed>> = within(&what, call().into_future()).await;
            assert!(*plain.unwrap() == message, "{what}");
            let compressed = within(&what, call().compress("gzip").into_future()).await;
            assert!(*compressed.unwrap() == message, "{what}, compressed");

            let (mut tx, mut rx) = client.bidi_streaming(BIDI).await.unwrap();
            let sending = async {
                for _ in 0..3 {
                    tx.send(message.clone()).await.unwrap();
                }
                tx.finish();
            };
            let receiving = async {
                let mut count = 0;
                while let Some(response) = rx.message().await.unwrap() {
                    assert!(message == response, "{what}, response {count}");
                    count += 1;
                }
                assert_eq!(count, 3, "{what}");
            };
            within(&what, async { tokio::join!(sending, receiving) }).await;
        }
    }
}

#[tokio::test]
async fn sixteen_mebibytes_pass_both_ways_in_calls_of_all_kinds() {
    let size = 16 * MIB;
    let payload = Bytes::from(noise(size));
    let make = || {
        With(|methods: &mut Methods| {
            Echo.add_to(methods);
            methods.server_streaming(
                SERVER,
                &nothing(),
                |_, request: Request<Raw>, mut responses: Sender<Raw>| async move {
                    responses.send(request.into_inner()).await
                },
            );
        })
    };
    for (way, client) in both_ways(make, size).await {
        // A channel in process has the default limit for what it receives.
        let payload = match way {
            "in process" => payload.slice(..4 * MIB),
            _ => payload.clone(),
        };
        let message = || Raw(payload.clone());
        let response = client.unary::<Raw, Raw>(UNARY, message()).into_future();
        assert!(
            within(way, response).await.unwrap().0 == payload,
            "unary, {way}"
        );

        let call = client.server_streaming::<Raw, Raw>(SERVER, message());
        let mut responses = within(way, call.into_future()).await.unwrap();
        let response = within(way, responses.message()).await.unwrap().unwrap();
        assert!(response.0 == payload, "server streaming, {way}");
        assert_eq!(within(way, responses.message()).await.unwrap(), None);

        let mut call = client.client_streaming::<Raw, Raw>(CLIENT).await.unwrap();
        let (first, rest) = (payload.slice(..100), payload.slice(100..));
        within(way, call.send(Raw(first))).await.unwrap();
        within(way, call.send(Raw(rest))).await.unwrap();
        let response = within(way, call.finish()).await.unwrap();
        assert!(response.0 == payload, "client streaming, {way}");

        let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
        within(way, tx.send(message())).await.unwrap();
        let response = within(way, rx.message()).await.unwrap().unwrap();
        assert!(response.0 == payload, "bidi, {way}");
        tx.finish();
        assert_eq!(within(way, rx.message()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_large_message_at_the_limit_passes_and_one_above_it_does_not() {
    let limit = 300 * KIB;
    for (way, client) in both_ways(|| Echo, limit).await {
        for (size, code) in [
            (limit - 1, None),
            (limit, None),
            (limit + 1, Some(Code::RESOURCE_EXHAUSTED)),
        ] {
            let call = client.unary::<Raw, Raw>(UNARY, raw(vec![7; size]));
            let result = within(way, call.into_future()).await;
            let what = format!("{size} bytes, {way}");
            match code {
                None => assert_eq!(result.expect(&what).0.len(), size, "{what}"),
                Some(code) => assert_eq!(result.expect_err(&what).code(), code, "{what}"),
            }
        }
    }
}

#[tokio::test]
async fn a_large_response_follows_a_head_that_went_out_before_it() {
    let payload = Bytes::from([noise(MIB / 2), vec![0; MIB / 2]].concat());
    for compress in [Compress::Off, Compress::On] {
        let response = payload.clone();
        let make = move || {
            let response = Arc::new(response.clone());
            With(move |methods: &mut Methods| {
                methods.unary(
                    UNARY,
                    &response,
                    move |response: Arc<Bytes>, request: Request<Raw>| async move {
                        request.response().compress(compress);
                        request.response().send_head();
                        tokio::task::yield_now().await;
                        request.response().trailer("x-trailer", "there")?;
                        Ok(Mixed {
                            shared: (*response).clone(),
                            ..Mixed::default()
                        })
                    },
                );
            })
        };
        for (way, client) in both_ways(make, 4 * MIB).await {
            let call = client.unary::<Raw, Mixed>(UNARY, raw(""));
            let response = within(way, call.into_future()).await.unwrap();
            assert!(response.shared == payload, "{way}");
            assert_eq!(response.trailers().get("x-trailer"), Some("there"), "{way}");
            assert_eq!(response.is_compressed(), compress == Compress::On, "{way}");
        }
    }
}

#[tokio::test]
async fn bytes_pass_from_a_client_to_a_handler_in_the_same_process_without_a_copy() {
    let (seen, mut was_seen) = tokio::sync::mpsc::unbounded_channel();
    let service = With(move |methods: &mut Methods| {
        methods.unary(
            UNARY,
            &Arc::new(seen),
            |seen: Arc<_>, request: Request<Raw>| async move {
                let seen: &tokio::sync::mpsc::UnboundedSender<usize> = &seen;
                seen.send(request.0.as_ptr() as usize).unwrap();
                Ok(request.into_inner())
            },
        );
    });
    let client = Client::new(Channel::in_process(Server::new().add_service(service)));
    let payload = Bytes::from(noise(MIB));
    let response = client.unary::<Raw, Raw>(UNARY, Raw(payload.clone()));
    let response = within("in process", response.into_future()).await.unwrap();
    assert_eq!(was_seen.recv().await, Some(payload.as_ptr() as usize));
    assert_eq!(response.0.as_ptr(), payload.as_ptr());
}
