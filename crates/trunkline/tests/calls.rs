//! The four call types, by hand, over a socket and in this process.

use std::sync::Arc;
use std::time::Duration;

use trunkline::server::Methods;
use trunkline::{
    Channel, Client, ClientStream, Code, Method, Raw, Request, Response, Result, Sender, Server,
    Service, Status, Streaming,
};

const UNARY: Method = Method::new("/test.Echo/Unary");
const SERVER: Method = Method::new("/test.Echo/Server");
const CLIENT: Method = Method::new("/test.Echo/Client");
const BIDI: Method = Method::new("/test.Echo/Bidi");

struct Echo;

impl Service for Echo {
    const NAME: &'static str = "test.Echo";

    fn add_to(self, methods: &mut Methods) {
        let service = Arc::new(self);
        methods.unary(UNARY, &service, |_, request: Request<Raw>| async move {
            if request.0.is_empty() {
                return Err(Status::invalid_argument("empty"));
            }
            Ok(request.into_inner())
        });
        methods.server_streaming(
            SERVER,
            &service,
            |_, request: Request<Raw>, mut responses: Sender<Raw>| async move {
                for byte in request.0.iter() {
                    responses.send(Raw(vec![*byte].into())).await?;
                }
                Ok(())
            },
        );
        methods.client_streaming(
            CLIENT,
            &service,
            |_, mut requests: Request<Streaming<Raw>>| async move {
                let mut all = Vec::new();
                while let Some(message) = requests.message().await? {
                    all.extend_from_slice(&message.0);
                }
                Ok(Raw(all.into()))
            },
        );
        methods.bidi_streaming(
            BIDI,
            &service,
            |_, mut requests: Request<Streaming<Raw>>, mut responses: Sender<Raw>| async move {
                while let Some(message) = requests.message().await? {
                    responses.send(message).await?;
                }
                Ok(())
            },
        );
    }
}

fn raw(bytes: &'static [u8]) -> Raw {
    Raw(bytes.into())
}

async fn all_four(channel: Channel) {
    let client = Client::new(channel);
    let response: Response<Raw> = client.unary(UNARY, raw(b"hello")).await.unwrap();
    assert_eq!(*response, raw(b"hello"));
    let status = client.unary::<Raw, Raw>(UNARY, raw(b"")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::INVALID_ARGUMENT, "empty")
    );

    let mut responses: Streaming<Raw> = client.server_streaming(SERVER, raw(b"abc")).await.unwrap();
    let mut all = Vec::new();
    while let Some(message) = responses.message().await.unwrap() {
        all.push(message.0[0]);
    }
    assert_eq!(all, b"abc");

    let mut requests: ClientStream<Raw, Raw> = client.client_streaming(CLIENT).await.unwrap();
    for bytes in [b"ab", b"cd", b"ef"] {
        requests.send(raw(bytes)).await.unwrap();
    }
    assert_eq!(*requests.finish().await.unwrap(), raw(b"abcdef"));

    let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
    for bytes in [&b"x"[..], b"", b"yz"] {
        tx.send(Raw(bytes.into())).await.unwrap();
        assert_eq!(rx.message().await.unwrap().unwrap().0, bytes);
    }
    tx.finish();
    assert_eq!(rx.message().await.unwrap(), None);

    let status = client
        .unary::<Raw, Raw>(Method::new("/test.Echo/Nothing"), raw(b""))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::UNIMPLEMENTED);
}

async fn serve() -> Result<String> {
    let server = Server::new().add_service(Echo).bind("127.0.0.1:0").await?;
    let address = server.local_addr().to_string();
    tokio::spawn(server.serve());
    Ok(address)
}

#[tokio::test]
async fn four_call_types_pass_over_a_socket() {
    let address = serve().await.unwrap();
    let all = all_four(Channel::connect(&address).await.unwrap());
    tokio::time::timeout(Duration::from_secs(10), all)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn four_call_types_pass_on_many_threads() {
    let address = serve().await.unwrap();
    let all = all_four(Channel::connect(&address).await.unwrap());
    tokio::time::timeout(Duration::from_secs(10), all)
        .await
        .unwrap();
}

#[tokio::test]
async fn four_call_types_pass_in_this_process() {
    let all = all_four(Channel::in_process(Server::new().add_service(Echo)));
    tokio::time::timeout(Duration::from_secs(10), all)
        .await
        .unwrap();
}

#[tokio::test]
async fn four_call_types_pass_through_a_channel_as_a_tower_service() {
    let address = serve().await.unwrap();
    let channel = Channel::connect(&address).await.unwrap();
    let all = all_four(Channel::new(channel));
    tokio::time::timeout(Duration::from_secs(10), all)
        .await
        .unwrap();
}

#[test]
fn what_users_hold_can_be_sent_and_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<Request<Streaming<Raw>>>();
    check::<Streaming<Raw>>();
    check::<Sender<Raw>>();
    check::<ClientStream<Raw, Raw>>();
    check::<Response<Raw>>();
    check::<trunkline::Call<Streaming<Raw>>>();
    check::<trunkline::tower::Body>();
    check::<Channel>();
    check::<Server>();
    check::<Status>();
}
