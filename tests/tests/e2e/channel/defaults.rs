//! What a channel, or a clone of it, sets for its calls.

use std::net::SocketAddr;
use std::time::Duration;

use trunkline::server::Methods;
use trunkline::{Address, Channel, Client, Code, Compress, Metadata, Raw, Request, Server};
use trunkline_tests::fixture::{Echo, UNARY, With, client_with, nothing, raw, serve, within};

/// Responds with what came with the request: its metadata `x-a`, its deadline in whole minutes, its
/// compression.
fn telling() -> With<impl FnOnce(&mut Methods)> {
    With(|methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
            let metadata: Vec<_> = request.metadata().get_all("x-a").collect();
            let minutes = request.time_remaining().map(|it| it.as_secs().div_ceil(60));
            let compressed = request.is_compressed();
            Ok(raw(format!("{metadata:?} {minutes:?} {compressed}")))
        });
    })
}

async fn tell(client: &Client) -> String {
    let call = client.unary::<_, Raw>(UNARY, raw(vec![0; 4096]));
    told(call.await)
}

fn told(response: trunkline::Result<trunkline::Response<Raw>>) -> String {
    String::from_utf8(response.unwrap().0.to_vec()).unwrap()
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_channel_sets_timeout_metadata_and_compression_of_its_calls() {
    let address = serve(Server::new().add_service(telling())).await;
    let mut more = Metadata::new();
    more.append("x-a", "2").unwrap();
    let client = client_with(
        Channel::to(&address)
            .timeout(MINUTE)
            .metadata("x-a", "1")
            .extend_metadata(more)
            .compress("gzip"),
    )
    .await;
    assert_eq!(tell(&client).await, r#"["1", "2"] Some(1) true"#);
    let call = client
        .unary::<_, Raw>(UNARY, raw(vec![0; 4096]))
        .timeout(3 * MINUTE)
        .metadata("x-a", "3")
        .compress("identity");
    assert_eq!(told(call.await), r#"["1", "2", "3"] Some(3) false"#);
}

#[tokio::test]
async fn what_a_clone_sets_holds_for_its_calls_only() {
    let address = serve(Server::new().add_service(telling())).await;
    let client = client_with(Channel::to(&address)).await;
    let mut more = Metadata::new();
    more.append("x-a", "2").unwrap();
    let changed = client.clone().with_channel(|channel| {
        channel
            .timeout(2 * MINUTE)
            .metadata("x-a", "1")
            .extend_metadata(more)
            .compress("gzip")
    });
    assert_eq!(tell(&changed).await, r#"["1", "2"] Some(2) true"#);
    assert_eq!(tell(&client).await, r#"[] None false"#);
    let again = changed.with_channel(|channel| channel.timeout(MINUTE).compress("identity"));
    assert_eq!(tell(&again).await, r#"["1", "2"] Some(1) false"#);
}

#[tokio::test]
async fn a_channel_in_this_process_has_defaults_too() {
    let channel = Channel::in_process(Server::new().add_service(telling()));
    let client = Client::new(channel.timeout(MINUTE).metadata("x-a", "1"));
    assert_eq!(tell(&client).await, r#"["1"] Some(1) false"#);
}

#[tokio::test]
async fn a_mistake_in_the_defaults_fails_each_call_of_a_clone_and_the_building_of_a_channel() {
    let channel = Channel::in_process(Server::new().add_service(telling()));
    for changed in [
        channel.clone().metadata("a b", "1"),
        channel.clone().metadata_bin("x", [1]),
        channel.clone().compress("brotli"),
    ] {
        let call = Client::new(changed).unary::<_, Raw>(UNARY, raw("x"));
        assert_eq!(call.await.unwrap_err().code(), Code::INTERNAL);
    }
    for builder in [
        Channel::to("a:1").metadata("a b", "1"),
        Channel::to("a:1").metadata_bin("x", [1]),
        Channel::to("a:1").compress("brotli"),
    ] {
        let status = builder.connect_lazy().unwrap_err();
        assert_eq!(status.code(), Code::INVALID_ARGUMENT);
    }
}

#[tokio::test]
async fn a_stream_of_requests_is_compressed_as_its_channel_says() {
    let address = serve(Server::new().add_service(Echo)).await;
    let client = client_with(Channel::to(&address)).await;
    let client = client.with_channel(|channel| channel.compress("gzip"));
    let call = client.bidi_streaming::<Raw, Raw>(trunkline_tests::fixture::BIDI);
    let (mut sender, mut stream) = call.await.unwrap();
    sender.compress(Compress::On);
    sender.send(raw(vec![7; 4096])).await.unwrap();
    sender.finish();
    assert_eq!(stream.message().await.unwrap(), Some(raw(vec![7; 4096])));
}

#[tokio::test]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "each form is a conversion of its own"
)]
async fn a_channel_connects_to_addresses_text_and_lists_of_either() {
    let bound = Server::new()
        .add_service(Echo)
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let address: Address = bound.local_addr();
    let socket: SocketAddr = address.tcp().unwrap();
    let text = address.to_string();
    let channels = [
        Channel::to(&address),
        Channel::to(address.clone()),
        Channel::to(socket),
        Channel::to(&socket),
        Channel::to(&text),
        Channel::to(&*text),
        Channel::to([socket]),
        Channel::to(&[&*text]),
        Channel::to(vec![address.clone()]),
        Channel::to(&vec![text.clone()]),
        Channel::to(
            [address.clone()]
                .iter()
                .collect::<trunkline::channel::Targets>(),
        ),
        Channel::to(text.clone()),
    ];
    tokio::spawn(bound.serve());
    within("connecting", Channel::connect(address))
        .await
        .unwrap();
    for channel in channels {
        let client = client_with(channel).await;
        let response = client.unary::<_, Raw>(UNARY, raw("x")).await.unwrap();
        assert_eq!(response.0, "x");
    }
}

#[tokio::test]
async fn an_address_of_no_socket_is_refused_with_its_name() {
    let status = Channel::connect(Address::InMemory).await.unwrap_err();
    assert_eq!(status.code(), Code::INVALID_ARGUMENT);
    assert!(status.message().contains("in-memory"), "{status}");
}
