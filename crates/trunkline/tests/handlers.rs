//! Handlers that a test calls, without a server.

use std::time::Duration;

use guide::{Feature, Point, Rectangle, RouteGuide, RouteNote, RouteSummary};
use trunkline::{Address, Code, Peer, Request, Response, Result, Sender, Status, Streaming};

mod guide {
    trunkline::include_proto!("../../proto/route_guide.proto");
}

struct Guide;

impl RouteGuide for Guide {
    async fn get_feature(&self, request: Request<Point>) -> Result<Feature> {
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
        let caller = request.peer().map(|peer| peer.remote().to_string());
        Ok(Feature {
            name: caller.unwrap_or_default(),
            location: Some(*request),
        })
    }

    async fn list_features(
        &self,
        request: Request<Rectangle>,
        responses: &mut Sender<Feature>,
    ) -> Result<()> {
        for location in [request.lo, request.hi] {
            let name = String::new();
            responses.send(Feature { name, location }).await?;
        }
        Ok(())
    }

    async fn record_route(&self, mut requests: Request<Streaming<Point>>) -> Result<RouteSummary> {
        let mut summary = RouteSummary::default();
        while requests.message().await?.is_some() {
            summary.point_count += 1;
        }
        Ok(summary)
    }

    async fn route_chat(
        &self,
        mut requests: Request<Streaming<RouteNote>>,
        responses: &mut Sender<RouteNote>,
    ) -> Result<()> {
        while let Some(note) = requests.message().await? {
            responses.send(note).await?;
        }
        Ok(())
    }
}

fn point(latitude: i32) -> Point {
    Point {
        latitude,
        longitude: 0,
    }
}

fn note(message: &str) -> RouteNote {
    RouteNote {
        message: message.to_owned(),
        location: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_test_sets_what_a_handler_reads_of_its_request_and_reads_what_it_sets() {
    let (local, remote) = (([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 2).into());
    let mut request = Request::new(point(1))
        .with_path("/routeguide.RouteGuide/GetFeature")
        .with_peer(Peer::new(Address::Tcp(local), Address::Tcp(remote)))
        .with_timeout(Duration::from_secs(10));
    request.metadata_mut().insert("trace-id", "abc").unwrap();
    let response = request.response().clone();

    let feature = Guide.get_feature(request).await.unwrap();
    assert_eq!(feature.name, "10.0.0.2:2");
    assert_eq!(feature.location, Some(point(1)));
    assert_eq!(response.head().get("trace-id"), Some("abc"));
    assert_eq!(
        response.head().get("path"),
        Some("/routeguide.RouteGuide/GetFeature")
    );
    assert_eq!(response.trailers().get("served-by"), Some("a"));

    let without = Request::new(point(1));
    assert!(without.peer().is_none() && without.metadata().is_empty());
    let status = Guide.get_feature(without).await.unwrap_err();
    assert_eq!(status.code(), Code::INVALID_ARGUMENT);
}

#[tokio::test]
async fn a_test_reads_the_messages_that_a_handler_sends() {
    let (mut sender, mut responses) = Streaming::channel();
    let rectangle = Rectangle {
        lo: Some(point(1)),
        hi: Some(point(2)),
    };
    Guide
        .list_features(Request::new(rectangle), &mut sender)
        .await
        .unwrap();
    sender.finish();
    for latitude in [1, 2] {
        let feature = responses.message().await.unwrap().unwrap();
        assert_eq!(feature.location, Some(point(latitude)));
    }
    assert_eq!(responses.message().await.unwrap(), None);
}

#[tokio::test]
async fn a_test_gives_a_handler_a_list_of_messages() {
    let points = Streaming::from_messages((0..1000).map(point));
    let summary = Guide.record_route(Request::new(points)).await.unwrap();
    assert_eq!(summary.point_count, 1000);
    let none = Streaming::from_messages([]);
    let summary = Guide.record_route(Request::new(none)).await.unwrap();
    assert_eq!(summary.point_count, 0);
}

#[tokio::test]
async fn a_test_talks_to_a_handler_in_both_directions() {
    let (mut notes, requests) = Streaming::channel();
    let (mut sender, mut responses) = Streaming::channel();
    let chat = async {
        let chat = Guide.route_chat(Request::new(requests), &mut sender);
        chat.await.unwrap();
        sender.finish();
    };
    let test = async {
        for message in ["one", "two"] {
            notes.send(note(message)).await.unwrap();
            let response = responses.message().await.unwrap().unwrap();
            assert_eq!(response.message, message);
        }
        notes.finish();
        assert_eq!(responses.message().await.unwrap(), None);
    };
    tokio::join!(chat, test);
}

#[tokio::test]
async fn a_handler_hears_that_its_client_is_gone() {
    let (mut points, requests) = Streaming::channel();
    points.send(point(1)).await.unwrap();
    drop(points);
    let status = Guide
        .record_route(Request::new(requests))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::CANCELLED);

    let (mut sender, responses) = Streaming::channel();
    drop(responses);
    let request = Request::new(Rectangle::default());
    let status = Guide.list_features(request, &mut sender).await.unwrap_err();
    assert_eq!(status.code(), Code::CANCELLED);
}

#[tokio::test]
async fn a_channel_without_a_connection_holds_back_a_sender_that_is_not_read() {
    let (mut sender, mut responses) = Streaming::channel();
    let large = note(&"a".repeat(64 * 1024));
    sender.send(large.clone()).await.unwrap();
    {
        let second = std::pin::pin!(sender.send(large.clone()));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(second.poll(&mut cx).is_pending());
    }
    assert_eq!(responses.message().await.unwrap(), Some(large));
    sender.send(note("b")).await.unwrap();
}

#[test]
fn a_response_is_made_by_hand() {
    let mut response = Response::new(point(3));
    response.metadata_mut().insert("a", "1").unwrap();
    response.trailers_mut().insert("b", "2").unwrap();
    assert_eq!(response.latitude, 3);
    assert_eq!(response.metadata().get("a"), Some("1"));
    assert_eq!(response.trailers().get("b"), Some("2"));
}
