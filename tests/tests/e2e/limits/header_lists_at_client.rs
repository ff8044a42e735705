//! Heads and trailers larger than their receiver takes, at a client of ours: what it puts on the wire, and makes of what
//! comes. A raw peer plays the server, which announces another limit, none, or does not keep to ours.

use bytes::{Bytes, BytesMut};
use tokio::task::JoinHandle;
use trunkline::limits::ChannelLimits;
use trunkline::{Channel, Client, Code, Method, Raw, Result, Status};
use trunkline_testkit::{
    Fields, Frame, RawPeer, channel_over, flag, kind, message, setting, within,
};

const MIB: usize = 1024 * 1024;

fn limits(change: impl FnOnce(&mut ChannelLimits)) -> ChannelLimits {
    let mut limits = ChannelLimits::default();
    change(&mut limits);
    limits
}

#[track_caller]
fn assert_says(result: Result<()>, code: Code, texts: &[&str]) {
    let status = result.expect_err("the call fails");
    assert_eq!(status.code(), code, "{status}");
    for text in texts {
        assert!(status.message().contains(text), "{text:?} in: {status}");
    }
}

/// A server that answers the path /test.Raw/KIND with what `answer` makes of it, and all others as it should.
type Answer = fn(u32, &str) -> Vec<Frame>;

async fn raw_server(
    settings: &'static [(u16, u32)],
    limits: ChannelLimits,
    answer: Answer,
) -> (Channel, JoinHandle<Vec<usize>>) {
    let (near, far) = tokio::io::duplex(MIB);
    let playing = tokio::spawn(async move {
        let mut peer = RawPeer::server(far, settings).await;
        let mut sizes = Vec::new();
        while let Some(stream) = peer.try_next_request().await {
            let head = peer.stream(stream).head.expect("a request has a head");
            sizes.push(head.list_size());
            let path = head.text(":path").unwrap_or_default();
            // These requests have no end.
            if !["/test.Raw/Neighbour", "/test.Raw/Upload"].contains(&&*path) {
                peer.until_end(stream).await;
            }
            let frames = match path.strip_prefix("/test.Raw/") {
                Some("Neighbour") => vec![
                    Frame::headers(stream, &Fields::response()),
                    Frame::data(stream, message(b"early")),
                ],
                Some("Upload") => {
                    let end = Fields::trailers("5").and("grpc-message", "early");
                    let end = end.and("k", "v".repeat(200_000));
                    let mut frames = vec![Frame::headers(stream, &Fields::response())];
                    let end = Frame::long_headers(stream, &end);
                    frames.extend(end);
                    frames[1].flags |= flag::END_STREAM;
                    frames
                }
                Some("Release") => neighbours_end(stream),
                Some(kind) => answer(stream, kind),
                None => Vec::new(),
            };
            peer.write(&frames).await;
        }
        sizes
    });
    let channel = channel_over(near, limits).await;
    (channel.expect("the peer speaks HTTP/2"), playing)
}

/// The end of the neighbour, whose stream is the first, and of the call that asks for it.
fn neighbours_end(stream: u32) -> Vec<Frame> {
    vec![
        Frame::data(1, message(b"late")),
        Frame::headers(1, &Fields::trailers("0")).ending(),
        Frame::headers(stream, &Fields::response()),
        Frame::data(stream, message(b"x")),
        Frame::headers(stream, &Fields::trailers("0")).ending(),
    ]
}

const NEIGHBOUR: Method = Method::new("/test.Raw/Neighbour");
const RELEASE: Method = Method::new("/test.Raw/Release");

/// Opens a neighbour, has `calls` made, and finds it alive.
async fn beside_a_neighbour(channel: &Channel, calls: impl AsyncFnOnce(&Client)) {
    let client = Client::new(channel.clone());
    let call = client.bidi_streaming::<Raw, Raw>(NEIGHBOUR);
    let (_sender, mut responses) = call.await.expect("an open stream");
    let early = within("the neighbour", responses.message()).await;
    assert_eq!(early.expect("it is open").expect("a message").0, "early");
    calls(&client).await;
    let release = client.unary::<Raw, Raw>(RELEASE, Raw("x".into()));
    within("a good call", release.into_future())
        .await
        .expect("the connection lives");
    let late = within("the neighbour", responses.message()).await;
    assert_eq!(late.expect("it lives").expect("a message").0, "late");
}

async fn call_raw(client: &Client, path: &'static str) -> Result<()> {
    let call = client.unary::<Raw, Raw>(Method::new(path), Raw("x".into()));
    let unary = within("a call", call.into_future()).await.map(|_| ());
    let call = client.server_streaming::<Raw, Raw>(Method::new(path), Raw("x".into()));
    let streamed = within("a stream", async {
        let mut responses = call.await?;
        while responses.message().await?.is_some() {}
        Ok::<(), Status>(())
    });
    let codes = [&unary, &streamed.await].map(|it| it.as_ref().err().map(Status::code));
    assert_eq!(codes[0], codes[1], "unary and streaming: {path}");
    unary
}

#[tokio::test]
async fn a_request_larger_than_its_server_announced_is_not_sent_and_takes_no_stream() {
    const SETTINGS: &[(u16, u32)] = &[
        (setting::MAX_HEADER_LIST_SIZE, 8_192),
        (setting::MAX_CONCURRENT_STREAMS, 2),
    ];
    let answer: Answer = |stream, _| neighbours_end(stream)[2..].to_vec();
    let (channel, playing) = raw_server(SETTINGS, ChannelLimits::default(), answer).await;
    beside_a_neighbour(&channel, async |client| {
        for _ in 0..100 {
            for size in [8_000, 40_000, 200_000] {
                let call = client.unary::<Raw, Raw>(Method::new("/test.Raw/Any"), Raw("x".into()));
                let call = call.metadata("k", &"v".repeat(size));
                let result = within("the call", call.into_future()).await.map(|_| ());
                let says = ["8192", "SETTINGS_MAX_HEADER_LIST_SIZE"];
                assert_says(result, Code::RESOURCE_EXHAUSTED, &says);
            }
        }
        let call = client.unary::<Raw, Raw>(Method::new("/test.Raw/Any"), Raw("x".into()));
        let call = call.metadata("k", &"v".repeat(7_000));
        within("what fits", call.into_future()).await.expect("OK");
    })
    .await;
    drop(channel);
    let sizes = within("the end of the server", playing)
        .await
        .expect("no panic");
    assert_eq!(sizes.len(), 3, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size < 8_192), "{sizes:?}");
}

#[tokio::test]
async fn to_a_server_that_announces_nothing_up_to_64_kib_is_sent_or_what_the_limit_says() {
    let answer: Answer = |stream, _| neighbours_end(stream)[2..].to_vec();
    for (limits, fits, not) in [
        (ChannelLimits::default(), 65_000, 65_536),
        (
            limits(|limits| limits.http2.max_send_header_list_size = 1_000_000),
            999_000,
            1_000_000,
        ),
    ] {
        let (channel, playing) = raw_server(&[], limits, answer).await;
        beside_a_neighbour(&channel, async |client| {
            let call = |size: usize| {
                let call = client.unary::<Raw, Raw>(Method::new("/test.Raw/Any"), Raw("x".into()));
                call.metadata("k", &"v".repeat(size)).into_future()
            };
            within("what fits", call(fits)).await.expect("OK");
            let result = within("what does not", call(not)).await.map(|_| ());
            let says = ["max_send_header_list_size", &not.to_string()];
            assert_says(result, Code::RESOURCE_EXHAUSTED, &says);
        })
        .await;
        drop(channel);
        let sizes = within("the end", playing).await.expect("no panic");
        assert_eq!(sizes.len(), 3, "{sizes:?}");
    }
}

/// What `first-40000-1` and the like stand for: trailers of 40,000 bytes in one field, behind the status.
fn large_trailers(stream: u32, kind: &str) -> Vec<Frame> {
    let large = |start: Fields, size: &str, fields: &str| {
        let (size, fields): (usize, usize) = (number(size), number(fields));
        (0..fields).fold(start, |all, _| all.and("k", "v".repeat(size / fields)))
    };
    let words: Vec<_> = kind.split('-').collect();
    let end = |fields: &Fields| {
        let mut frames = Frame::long_headers(stream, fields);
        frames[0].flags |= flag::END_STREAM;
        frames
    };
    let head = Frame::headers(stream, &Fields::response());
    let data = Frame::data(stream, message(b"x"));
    match words[..] {
        ["first", code, size, fields] => {
            let trailers = Fields::trailers(code).and("grpc-message", "as asked");
            [vec![head, data], end(&large(trailers, size, fields))].concat()
        }
        ["last", code, size, fields] => {
            let trailers = large(Fields::new(), size, fields).and("grpc-status", code);
            [vec![head, data], end(&trailers)].concat()
        }
        ["only", code, size, fields] => end(&large(
            Fields::response().and("grpc-status", code),
            size,
            fields,
        )),
        ["head", size, fields] => {
            let mut frames = Frame::long_headers(stream, &large(Fields::response(), size, fields));
            frames.push(data);
            frames.extend(end(&Fields::trailers("0")));
            frames
        }
        ["interim", size, fields] => {
            let interim = large(Fields::new().and(":status", "103"), size, fields);
            let mut frames = Frame::long_headers(stream, &interim);
            frames.extend([head, data]);
            frames.extend(end(&Fields::trailers("0")));
            frames
        }
        ["repeated", code, times] => {
            let block = repeated(code, number(times));
            let trailers = Frame::new(kind::HEADERS, flag::END_HEADERS, stream, block).ending();
            vec![head, data, trailers]
        }
        _ => panic!("no such kind: {kind}"),
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

/// Trailers in which a field of 4,000 bytes is repeated by its number in the table: RFC 7541, sections 6.2.1 and 6.1.
fn repeated(code: &str, times: usize) -> Bytes {
    let mut block = BytesMut::from(&Fields::new().and("k", "v".repeat(4_000)).encode()[..]);
    block[0] = 0x40;
    block.extend(std::iter::repeat_n(0x80 | 62, times));
    block.extend_from_slice(&Fields::trailers(code).encode());
    block.freeze()
}

#[tokio::test]
async fn trailers_larger_than_ours_are_resource_exhausted_wherever_their_status_stands() {
    let (channel, _playing) = raw_server(&[], ChannelLimits::default(), large_trailers).await;
    beside_a_neighbour(&channel, async |client| {
        for (path, says) in [
            ("/test.Raw/first-0-40000-1", &["40", "trailers"][..]),
            ("/test.Raw/first-5-40000-40", &["NOT_FOUND: as asked"]),
            ("/test.Raw/last-0-40000-1", &["400"]),
            ("/test.Raw/last-5-40000-40", &["NOT_FOUND"]),
            ("/test.Raw/first-0-200000-1", &["200"]),
            ("/test.Raw/last-0-200000-40", &["20"]),
            // HTTP/2 decodes no more than 256 KiB, and says nothing of the rest.
            ("/test.Raw/first-0-300000-1", &["300"]),
            ("/test.Raw/last-0-300000-1", &["300"]),
            ("/test.Raw/first-5-300000-40", &["NOT_FOUND"]),
            ("/test.Raw/last-0-300000-40", &[]),
            ("/test.Raw/only-0-40000-1", &["40"]),
            ("/test.Raw/only-5-200000-1", &["NOT_FOUND"]),
            ("/test.Raw/only-5-300000-1", &["300"]),
            ("/test.Raw/repeated-0-10", &["44"]),
            ("/test.Raw/repeated-5-80", &[]),
        ] {
            let says = [says, &["32768", "max_header_list_size_hard"]].concat();
            let result = call_raw(client, path).await;
            assert!(result.is_err(), "{path}");
            assert_says(result, Code::RESOURCE_EXHAUSTED, &says);
        }
        for path in ["/test.Raw/first-0-32000-1", "/test.Raw/repeated-0-6"] {
            call_raw(client, path).await.expect(path);
        }
    })
    .await;
}

#[tokio::test]
async fn a_response_head_larger_than_ours_is_resource_exhausted() {
    let (channel, _playing) = raw_server(&[], ChannelLimits::default(), large_trailers).await;
    beside_a_neighbour(&channel, async |client| {
        for (path, size) in [
            ("/test.Raw/head-40000-1", "40"),
            ("/test.Raw/head-40000-40", "41"),
            ("/test.Raw/head-200000-1", "200"),
            ("/test.Raw/head-300000-1", "300"),
        ] {
            let says = [size, "response headers", "32768"];
            assert_says(
                call_raw(client, path).await,
                Code::RESOURCE_EXHAUSTED,
                &says,
            );
        }
        call_raw(client, "/test.Raw/head-32000-1")
            .await
            .expect("OK");
        // An interim head is not read, and may be as large as HTTP/2 decodes.
        for path in ["/test.Raw/interim-40000-1", "/test.Raw/interim-200000-40"] {
            call_raw(client, path).await.expect(path);
        }
    })
    .await;
}

#[tokio::test]
async fn an_upload_ends_with_trailers_that_are_too_large() {
    let (channel, _playing) = raw_server(&[], ChannelLimits::default(), |_, _| Vec::new()).await;
    beside_a_neighbour(&channel, async |client| {
        let call = client.client_streaming::<Raw, Raw>(Method::new("/test.Raw/Upload"));
        let mut stream = call.await.expect("an open stream");
        let refused = within("the end of the upload", async {
            while stream.send(Raw("x".into())).await.is_ok() {
                tokio::task::yield_now().await;
            }
            stream.finish().await.map(|_| ())
        });
        let says = ["trailers", "NOT_FOUND: early", "32768"];
        assert_says(refused.await, Code::RESOURCE_EXHAUSTED, &says);
    })
    .await;
}

#[tokio::test]
async fn the_limit_for_what_comes_is_exact() {
    let answer: Answer = |stream, kind| {
        let size = number(kind.rsplit('-').next().unwrap_or_default());
        let (head, trailers) = (Fields::response(), Fields::trailers("0"));
        let fill = |fields: Fields| {
            let value = size - fields.list_size() - "k".len() - 32;
            fields.and("k", "v".repeat(value))
        };
        let (head, trailers) = match kind.starts_with("head") {
            true => (fill(head), trailers),
            false => (head, fill(trailers)),
        };
        vec![
            Frame::headers(stream, &head),
            Frame::data(stream, message(b"x")),
            Frame::headers(stream, &trailers).ending(),
        ]
    };
    let limits = limits(|limits| limits.http2.max_header_list_size_hard = 5_000);
    let (channel, _playing) = raw_server(&[], limits, answer).await;
    beside_a_neighbour(&channel, async |client| {
        for fits in ["/test.Raw/head-5000", "/test.Raw/trailers-5000"] {
            call_raw(client, fits).await.expect(fits);
        }
        for not in ["/test.Raw/head-5001", "/test.Raw/trailers-5001"] {
            let result = call_raw(client, not).await;
            assert_says(result, Code::RESOURCE_EXHAUSTED, &["5001", "5000"]);
        }
    })
    .await;
}
