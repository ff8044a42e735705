//! Who compresses what: a channel, a server, a call, a handler; by size, and never to make a message
//! larger.

use std::future::IntoFuture;

use bytes::{Buf, BufMut, BytesMut};
use trunkline::codec::{CompressionError, Compressor, Compressors, Deflate, Gzip, Zstd};
use trunkline::server::Methods;
use trunkline::{Channel, Client, Code, Compress, Raw, Request, Sender, Server, Streaming};
use trunkline_testkit::{Fields, Frame, Outcome, RawListener, RawPeer, message, message_flagged};
use trunkline_tests::fixture::{
    self, BIDI, CLIENT, Echo, SERVER, UNARY, With, client_with, nothing, raw, serve, within,
};

/// Says of each request whether it was compressed, in a response of as many bytes as it has.
fn telling() -> impl trunkline::Service {
    With(|methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
            let was = u8::from(request.is_compressed());
            Ok(raw(vec![was; request.0.len()]))
        });
        methods.client_streaming(
            CLIENT,
            &nothing(),
            |_, mut requests: Request<Streaming<Raw>>| async move {
                let mut were = Vec::new();
                while requests.message().await?.is_some() {
                    were.push(u8::from(Streaming::is_compressed(&requests)));
                }
                Ok(raw(were))
            },
        );
        methods.server_streaming(
            SERVER,
            &nothing(),
            |_, request: Request<Raw>, mut responses: Sender<Raw>| async move {
                responses.send(request.clone()).await?;
                responses.compress(Compress::Off);
                responses.send(request.clone()).await?;
                responses.compress(Compress::On);
                responses.send(request.clone()).await?;
                responses.compress(Compress::Auto);
                responses.send(request.clone()).await
            },
        );
    })
}

fn bytes(len: usize) -> Raw {
    raw(vec![7; len])
}

/// Bytes that no compressor makes smaller.
fn noise(len: usize) -> Raw {
    let mut random = fixture::Random(0x2545_f491_4f6c_dd1d);
    raw((0..len)
        .map(|_| random.below(256) as u8)
        .collect::<Vec<_>>())
}

async fn unary(client: &Client, request: Raw) -> (bool, bool) {
    let response = within(
        "the call",
        client.unary::<Raw, Raw>(UNARY, request).into_future(),
    );
    let response = response.await.unwrap();
    (response.0.first() == Some(&1), response.is_compressed())
}

#[tokio::test]
async fn a_channel_and_a_server_compress_what_has_more_bytes_than_they_were_told() {
    for (above, sizes) in [(None, [1_023, 1_024, 1_025]), (Some(100), [99, 100, 101])] {
        let mut server = Server::new().add_service(telling()).compress("gzip");
        if let Some(above) = above {
            server = server.compress_above(above);
        }
        let address = serve(server).await;
        let mut channel = Channel::to(&address).compress("gzip");
        if let Some(above) = above {
            channel = channel.compress_above(above);
        }
        let client = client_with(channel).await;
        for (size, is_above) in sizes.into_iter().zip([false, false, true]) {
            let (request, response) = unary(&client, bytes(size)).await;
            assert_eq!((request, response), (is_above, is_above), "{size}");
        }
    }
}

#[tokio::test]
async fn without_being_told_nobody_compresses() {
    let client = client_with(Channel::to(
        &serve(Server::new().add_service(telling())).await,
    ))
    .await;
    assert_eq!(unary(&client, bytes(100_000)).await, (false, false));
}

#[tokio::test]
async fn a_message_that_would_get_larger_goes_as_it_is_at_every_size() {
    let server = Server::new()
        .add_service(Echo)
        .compress("gzip")
        .compress_above(0);
    let address = serve(server).await;
    let channel = Channel::to(&address).compress("gzip").compress_above(0);
    let client = client_with(channel).await;
    // Small, with a buffer of its own, and in pieces.
    for size in [0, 1, 2_000, 10_000, 100_000] {
        for by_call in [false, true] {
            let mut call = client.unary::<Raw, Raw>(UNARY, noise(size));
            if by_call {
                call = call.compress("gzip");
            }
            let response = within("the call", call.into_future()).await.unwrap();
            assert!(
                response.0 == noise(size).0 && !response.is_compressed(),
                "{size}"
            );

            let (mut requests, mut responses) =
                client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
            requests.send(noise(size)).await.unwrap();
            let response = within("the response", responses.message()).await.unwrap();
            assert!(response.unwrap().0 == noise(size).0, "{size}");
            assert!(!responses.is_compressed(), "{size}");
        }
    }
}

#[tokio::test]
async fn a_call_decides_over_its_channel_and_a_message_over_its_call() {
    let address = serve(Server::new().add_service(telling())).await;
    let client = client_with(Channel::to(&address).compress("gzip")).await;
    for (encoding, size, expected) in [
        (None, 100, 0),
        (None, 2_000, 1),
        (Some("deflate"), 100, 1),
        (Some("identity"), 2_000, 0),
    ] {
        let mut call = client.unary::<Raw, Raw>(UNARY, bytes(size));
        if let Some(encoding) = encoding {
            call = call.compress(encoding);
        }
        let response = within("the call", call.into_future()).await.unwrap();
        assert_eq!(response.0[0], expected, "{encoding:?} {size}");
    }

    let mut stream = client.client_streaming::<Raw, Raw>(CLIENT).await.unwrap();
    for (compress, size) in [
        (None, 100),
        (None, 2_000),
        (Some(Compress::Off), 2_000),
        (Some(Compress::On), 100),
        (Some(Compress::Auto), 100),
        (Some(Compress::Auto), 2_000),
    ] {
        if let Some(compress) = compress {
            stream.compress(compress);
        }
        stream.send(bytes(size)).await.unwrap();
    }
    let response = within("the response", stream.finish()).await.unwrap();
    assert_eq!(response.0[..], [0, 1, 0, 1, 0, 1]);
}

#[tokio::test]
async fn a_server_that_compresses_with_identity_sends_messages_as_they_are() {
    let server = Server::new().compress("gzip").compress("identity");
    let client = client_with(Channel::to(&serve(server.add_service(Echo)).await)).await;
    let call = client.unary::<Raw, Raw>(UNARY, bytes(2_000));
    let response = within("the call", call.into_future()).await.unwrap();
    assert!(!response.is_compressed());
}

#[tokio::test]
async fn a_handler_decides_over_its_server() {
    let address = serve(Server::new().add_service(telling()).compress("deflate")).await;
    let client = client_with(Channel::to(&address)).await;
    for (size, expected) in [
        (100, [false, false, true, false]),
        (2_000, [true, false, true, true]),
    ] {
        let call = client.server_streaming::<Raw, Raw>(SERVER, bytes(size));
        let mut responses = within("the call", call.into_future()).await.unwrap();
        for is_compressed in expected {
            within("a response", responses.message())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(responses.is_compressed(), is_compressed, "{size}");
        }
    }
}

/// What a raw server gets of a call, and a raw client of a server: the head and the flag.
#[tokio::test]
async fn a_head_names_the_encoding_if_messages_may_have_it() {
    let listener = RawListener::bind().await;
    let channel = Channel::to(listener.address())
        .compress("gzip")
        .connect_lazy()
        .unwrap();
    let client = Client::new(channel);
    let unary = |size| client.unary::<Raw, Raw>(UNARY, bytes(size)).into_future();
    let _calls = [100, 2_000].map(|size| tokio::spawn(unary(size)));
    let mut peer = listener.accept().await;
    for _ in 0..2 {
        let stream = peer.next_full_request().await;
        let received = peer.stream(stream);
        let flag = received.data[0];
        let head = received.head.expect("a head");
        let encoding = head.text("grpc-encoding");
        assert_eq!(encoding.as_deref(), [None, Some("gzip")][usize::from(flag)]);
        assert_eq!(received.data.len() == 105, flag == 0);
        let accepts = head.text("grpc-accept-encoding");
        assert_eq!(accepts.as_deref(), Some("identity,gzip,deflate"));
    }
}

#[tokio::test]
async fn a_server_takes_its_own_encoding_first_and_any_other_that_the_client_knows() {
    let server = Server::new()
        .add_service(Echo)
        .compress("zstd")
        .compressor(Zstd::default());
    let mut client = RawPeer::connect(&serve(server).await).await;
    for (accepts, expected) in [
        ("identity,gzip,deflate,zstd", Some("zstd")),
        ("gzip,deflate", Some("gzip")),
        ("deflate", Some("deflate")),
        ("snappy", None),
    ] {
        let head = Fields::call(UNARY.path()).and("grpc-accept-encoding", accepts);
        let stream = client.call(&head, message(&bytes(2_000).0)).await;
        assert_eq!(client.outcome(stream).await, Outcome::Answered(200, 0));
        let received = client.stream(stream);
        let head = received.head.expect("a head");
        assert_eq!(head.text("grpc-encoding").as_deref(), expected, "{accepts}");
        assert_eq!(received.data[0], u8::from(expected.is_some()), "{accepts}");
    }
    // Who compresses is told what else would do, and so is who is refused.
    let head = Fields::call(UNARY.path()).and("grpc-encoding", "gzip");
    let stream = client.call(&head, message(b"x")).await;
    assert_eq!(client.outcome(stream).await, Outcome::Answered(200, 0));
    let head = client.stream(stream).head.expect("a head");
    let accepts = head.text("grpc-accept-encoding");
    assert_eq!(accepts.as_deref(), Some("identity,zstd,gzip,deflate"));
    let head = Fields::call(UNARY.path()).and("grpc-encoding", "snappy");
    let stream = client.call(&head, message_flagged(1, b"x")).await;
    assert_eq!(client.outcome(stream).await, Outcome::Answered(200, 12));
    let head = client.stream(stream).head.expect("a head");
    let accepts = head.text("grpc-accept-encoding");
    assert_eq!(accepts.as_deref(), Some("identity,zstd,gzip,deflate"));
    let text = client.stream(stream).grpc_message();
    assert!(
        text.contains("snappy") && text.contains("identity,zstd"),
        "{text}"
    );
}

#[tokio::test]
async fn a_name_that_is_not_known_fails_before_anything_is_sent() {
    let failed = |result: trunkline::Result<()>, code| {
        let status = result.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        for part in ["snappy", "identity,gzip,deflate"] {
            assert!(status.message().contains(part), "{status}");
        }
    };
    let server = || Server::new().compress("snappy");
    let bound = server().bind("127.0.0.1:0").await;
    failed(bound.map(|_| ()), Code::INVALID_ARGUMENT);
    let listener = trunkline::server::Listener::bind("127.0.0.1:0")
        .await
        .unwrap();
    let served = within("serving", server().on(listener).serve());
    failed(served.await, Code::INVALID_ARGUMENT);
    let channel = Channel::to("127.0.0.1:1").compress("snappy").connect_lazy();
    failed(channel.map(|_| ()), Code::INVALID_ARGUMENT);
    let client = Client::new(Channel::to("127.0.0.1:1").connect_lazy().unwrap());
    let call = client.unary::<Raw, Raw>(UNARY, raw("x")).compress("snappy");
    failed(call.await.map(|_| ()), Code::INTERNAL);
}

#[tokio::test]
async fn a_server_without_encodings_takes_and_sends_messages_as_they_are() {
    let client = client_with(Channel::to(
        &serve(Server::new().add_service(Echo).no_compression()).await,
    ))
    .await;
    let call = client.unary::<Raw, Raw>(UNARY, bytes(2_000));
    let status = call.compress("gzip").await.unwrap_err();
    assert_eq!(status.code(), Code::UNIMPLEMENTED, "{status}");
    let response = client.unary::<Raw, Raw>(UNARY, bytes(2_000)).await.unwrap();
    assert!(!response.is_compressed());
}

/// An encoding of a user's own: leaves out the bytes that are one; only what is nothing else comes back.
#[derive(Debug)]
struct Sparse;

impl Compressor for Sparse {
    fn name(&self) -> &str {
        "x-sparse"
    }

    fn compress(&self, input: &mut dyn Buf, output: &mut BytesMut) -> Result<(), CompressionError> {
        let len = u32::try_from(input.remaining()).map_err(|_| CompressionError::Failed)?;
        output.extend_from_slice(&len.to_be_bytes());
        while input.has_remaining() {
            match input.get_u8() {
                1 => {}
                byte => output.extend_from_slice(&[byte]),
            }
        }
        Ok(())
    }

    fn decompress(
        &self,
        input: &mut dyn Buf,
        output: &mut BytesMut,
        max_size: usize,
    ) -> Result<(), CompressionError> {
        let len = input.try_get_u32().map_err(|_| CompressionError::Corrupt)?;
        if len as usize > max_size {
            return Err(CompressionError::TooLarge);
        }
        output.put(input);
        output.resize(len as usize, 1);
        Ok(())
    }
}

#[tokio::test]
async fn encodings_of_ones_own_and_levels_are_added_on_both_sides() {
    let server = Server::new()
        .add_service(telling())
        .compressor(Sparse)
        .compressor(Gzip::with_level(1));
    let address = serve(server.compress("x-sparse")).await;
    let channel = Channel::to(&address)
        .compressor(Sparse)
        .compressor(Zstd::default());
    let client = client_with(channel.compress("x-sparse")).await;
    let request = vec![1; 5_000];
    assert_eq!(unary(&client, raw(request.clone())).await, (true, true));
    // The other side does not know this one.
    let call = client
        .unary::<Raw, Raw>(UNARY, raw(request))
        .compress("zstd");
    let status = call.await.unwrap_err();
    assert_eq!(status.code(), Code::UNIMPLEMENTED, "{status}");
    for part in ["zstd", "identity,x-sparse,gzip,deflate"] {
        assert!(status.message().contains(part), "{status}");
    }
}

#[tokio::test]
async fn a_bomb_in_any_encoding_ends_its_call_at_the_limit() {
    const LIMIT: usize = 100_000;
    let encodings = Compressors::none()
        .with(Gzip::default())
        .with(Deflate::default())
        .with(Zstd::default());
    let server = Server::new().add_service(Echo).compressor(Zstd::default());
    let mut client = RawPeer::connect(&serve(server.max_recv_message_size(LIMIT)).await).await;
    for encoding in encodings.iter() {
        for (size, code) in [(LIMIT - 1, 0), (LIMIT, 0), (LIMIT + 1, 8), (100 * LIMIT, 8)] {
            let (name, plain) = (encoding.name(), vec![0; size]);
            let mut wire = BytesMut::new();
            encoding.compress(&mut &plain[..], &mut wire).unwrap();
            let head = Fields::call(UNARY.path()).and("grpc-encoding", name);
            let stream = client.call(&head, message_flagged(1, &wire)).await;
            let outcome = client.outcome(stream).await;
            assert_eq!(outcome, Outcome::Answered(200, code), "{name} {size}");
        }
    }
    // A call of nothing but empty members is as bad.
    let empty = trunkline_testkit::gzip(b"").repeat(1_001);
    let head = Fields::call(UNARY.path()).and("grpc-encoding", "gzip");
    let stream = client.next_stream();
    let mut frames = Frame::long_data(stream, &message_flagged(1, &empty));
    frames.insert(0, Frame::headers(stream, &head));
    let last = frames.pop().expect("DATA").ending();
    frames.push(last);
    client.write(&frames).await;
    assert_eq!(client.outcome(stream).await, Outcome::Answered(200, 8));
    assert!(client.stream(stream).grpc_message().contains("too much"));
}

#[tokio::test]
async fn a_large_message_is_restored_in_steps_between_which_others_go_on() {
    for encoding in ["gzip", "deflate", "zstd"] {
        let server = Server::new()
            .compressor(Zstd::default())
            .compress(encoding)
            .add_service(With(|methods: &mut Methods| {
                methods.unary(UNARY, &nothing(), |_, _: Request<Raw>| async {
                    Ok(Raw(vec![0; 4 << 20].into()))
                });
            }));
        let address = serve(server).await;
        let channel = Channel::to(&address)
            .compressor(Zstd::default())
            .max_recv_message_size(4 << 20);
        let client = client_with(channel).await;
        let call = client.unary::<Raw, Raw>(UNARY, raw("x"));
        let mut call = std::pin::pin!(call.into_future());
        let mut polls = 0;
        let response = std::future::poll_fn(|cx| {
            polls += 1;
            call.as_mut().poll(cx)
        });
        let response = within("the call", response).await.expect("OK");
        assert_eq!(response.0.len(), 4 << 20);
        assert!(polls > 32, "{encoding}: {polls} polls");
    }
}
