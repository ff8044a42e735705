//! Handlers that a test calls, without a server.

use std::time::Duration;

use trunkline::{Address, Code, Peer, Raw, Request, Response, Result, Sender, Status, Streaming};

/// Responds with the address of the client.
async fn peer_of(request: Request<Raw>) -> Result<Raw> {
    let response = request.response();
    response.extend_metadata(request.metadata().clone())?;
    response.metadata("path", request.path())?;
    response.trailer("served-by", "a")?;
    let remaining = request.time_remaining();
    if remaining.is_none_or(|remaining| remaining > Duration::from_secs(10)) {
        return Err(Status::invalid_argument(
            "a deadline of 10 s at most, please",
        ));
    }
    let peer = request.peer().map(|peer| peer.remote().to_string());
    Ok(raw(peer.unwrap_or_default()))
}

async fn echo(mut requests: Request<Streaming<Raw>>, responses: &mut Sender<Raw>) -> Result<()> {
    while let Some(message) = requests.message().await? {
        responses.send(message).await?;
    }
    Ok(())
}

fn raw(text: impl Into<String>) -> Raw {
    Raw(text.into().into())
}

#[tokio::test(start_paused = true)]
async fn a_test_sets_what_a_handler_reads_of_its_request_and_reads_what_it_sets() {
    let (local, remote) = (([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 2).into());
    let mut request = Request::new(Raw::default())
        .with_path("/test.Peers/PeerOf")
        .with_peer(Peer::new(Address::Tcp(local), Address::Tcp(remote)))
        .with_timeout(Duration::from_secs(10));
    request.metadata_mut().insert("trace-id", "abc").unwrap();
    let response = request.response().clone();

    assert_eq!(peer_of(request).await.unwrap(), raw("10.0.0.2:2"));
    assert_eq!(response.head().get("trace-id"), Some("abc"));
    assert_eq!(response.head().get("path"), Some("/test.Peers/PeerOf"));
    assert_eq!(response.trailers().get("served-by"), Some("a"));

    let without = Request::new(Raw::default());
    assert!(without.peer().is_none() && without.metadata().is_empty());
    let status = peer_of(without).await.unwrap_err();
    assert_eq!(status.code(), Code::INVALID_ARGUMENT);
}

#[tokio::test]
async fn a_test_passes_a_list_of_messages_to_a_handler_and_reads_what_it_sends() {
    for count in [0, 1000] {
        let messages = || (0..count).map(|number: u32| raw(number.to_string()));
        let (mut sender, mut responses) = Streaming::channel();
        let requests = Request::new(Streaming::from_messages(messages()));
        echo(requests, &mut sender).await.unwrap();
        sender.finish();
        for message in messages() {
            assert_eq!(responses.message().await.unwrap(), Some(message));
        }
        assert_eq!(responses.message().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_test_talks_to_a_handler_in_both_directions() {
    let (mut requests, received) = Streaming::channel();
    let (mut sender, mut responses) = Streaming::channel();
    let handling = async {
        echo(Request::new(received), &mut sender).await.unwrap();
        sender.finish();
    };
    let test = async {
        for message in [raw("one"), raw("two")] {
            requests.send(message.clone()).await.unwrap();
            assert_eq!(responses.message().await.unwrap(), Some(message));
        }
        requests.finish();
        assert_eq!(responses.message().await.unwrap(), None);
    };
    tokio::join!(handling, test);
}

#[tokio::test]
async fn a_handler_hears_that_its_client_is_gone() {
    let (mut requests, received) = Streaming::channel();
    requests.send(raw("one")).await.unwrap();
    drop(requests);
    let (mut sender, _responses) = Streaming::channel();
    let status = echo(Request::new(received), &mut sender).await.unwrap_err();
    assert_eq!(status.code(), Code::CANCELLED);

    let (mut sender, responses) = Streaming::channel();
    drop(responses);
    let requests = Request::new(Streaming::from_messages([raw("one")]));
    let status = echo(requests, &mut sender).await.unwrap_err();
    assert_eq!(status.code(), Code::CANCELLED);
}

#[tokio::test]
async fn a_channel_without_a_connection_holds_back_a_sender_that_is_not_read() {
    let (mut sender, mut responses) = Streaming::channel();
    let large = raw("a".repeat(64 * 1024));
    sender.send(large.clone()).await.unwrap();
    {
        let second = std::pin::pin!(sender.send(large.clone()));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(second.poll(&mut cx).is_pending());
    }
    assert_eq!(responses.message().await.unwrap(), Some(large));
    sender.send(raw("b")).await.unwrap();
}

#[test]
fn a_response_is_made_by_hand() {
    let mut response = Response::new(raw("three"));
    response.metadata_mut().insert("a", "1").unwrap();
    response.trailers_mut().insert("b", "2").unwrap();
    assert_eq!(*response, raw("three"));
    assert_eq!(response.metadata().get("a"), Some("1"));
    assert_eq!(response.trailers().get("b"), Some("2"));
}
