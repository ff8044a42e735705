//! A run of all four call types, seen by Wireshark: every message is decoded by its name.

#![cfg(unix)]

use guide::{Feature, Point, Rectangle, RouteGuide, RouteNote, RouteSummary};
use guide::{RouteGuideClient, RouteGuideServer};
use tokio::runtime::Runtime;
use trunkline::{Request, Result, Sender, Server, Streaming};
use trunkline_tests::capture::Capture;
use trunkline_tests::frames::{Message, Side};

mod guide {
    trunkline::include_proto!("../proto/route_guide.proto");
}

const fn point(latitude: i32) -> Point {
    Point {
        latitude,
        longitude: 7,
    }
}

struct Guide;

impl RouteGuide for Guide {
    async fn get_feature(&self, request: Request<Point>) -> Result<Feature> {
        Ok(Feature {
            name: format!("at {}", request.latitude),
            location: Some(*request),
        })
    }

    async fn list_features(
        &self,
        request: Request<Rectangle>,
        responses: &mut Sender<Feature>,
    ) -> Result<()> {
        for location in [request.lo, request.hi] {
            let name = "corner".to_owned();
            responses.send(Feature { name, location }).await?;
        }
        Ok(())
    }

    async fn record_route(&self, mut points: Request<Streaming<Point>>) -> Result<RouteSummary> {
        let mut summary = RouteSummary::default();
        while points.message().await?.is_some() {
            summary.point_count += 1;
        }
        Ok(summary)
    }

    async fn route_chat(
        &self,
        mut notes: Request<Streaming<RouteNote>>,
        responses: &mut Sender<RouteNote>,
    ) -> Result<()> {
        while let Some(note) = notes.message().await? {
            responses.send(note).await?;
        }
        Ok(())
    }
}

async fn all_four(address: &str) -> Result<()> {
    let guide = RouteGuideClient::connect(address).await?;
    guide.get_feature(point(1)).await?;
    let (lo, hi) = (Some(point(2)), Some(point(3)));
    let mut features = guide.list_features(Rectangle { lo, hi }).await?;
    while features.message().await?.is_some() {}
    let mut route = guide.record_route().await?;
    for latitude in 4..7 {
        route.send(point(latitude)).await?;
    }
    route.finish().await?;
    let (mut notes, mut echoes) = guide.route_chat().await?;
    for message in ["Fog.", "Calm."] {
        let (location, message) = (Some(point(8)), message.to_owned());
        notes.send(RouteNote { location, message }).await?;
        echoes.message().await?;
    }
    notes.finish();
    assert!(echoes.message().await?.is_none());
    Ok(())
}

fn says(message: &Message, field: &str, value: &str) -> bool {
    message.field(field) == Some(value)
}

#[test]
fn every_message_of_a_route_guide_run_is_decoded_by_name() {
    let runtime = Runtime::new().expect("a runtime");
    let server = Server::new().add_service(RouteGuideServer::new(Guide));
    let server = runtime
        .block_on(server.bind("127.0.0.1:0"))
        .expect("a port");
    let address = server.local_addr().tcp().expect("a TCP address");
    runtime.spawn(server.serve());
    let Some(capture) = Capture::start(address.port()) else {
        return;
    };
    runtime
        .block_on(all_four(&address.to_string()))
        .expect("all four calls pass");
    let recording = capture.finish();
    recording.assert_healthy();

    let frames = recording.frames();
    let sent_by = |side: Side| {
        let frames = frames.iter().filter(move |frame| frame.from == side);
        frames.flat_map(|frame| &frame.messages).collect::<Vec<_>>()
    };
    let names = |messages: &[&Message]| {
        let names = messages.iter().map(|message| message.name.clone());
        names.collect::<Vec<_>>()
    };
    let (requests, responses) = (sent_by(Side::Client), sent_by(Side::Server));
    let note = "routeguide.RouteNote";
    let point = "routeguide.Point";
    assert_eq!(
        names(&requests),
        [
            point,
            "routeguide.Rectangle",
            point,
            point,
            point,
            note,
            note
        ]
    );
    let feature = "routeguide.Feature";
    assert_eq!(
        names(&responses),
        [
            feature,
            feature,
            feature,
            "routeguide.RouteSummary",
            note,
            note
        ]
    );
    assert!(says(requests[0], "routeguide.Point.latitude", "1"));
    assert!(says(responses[0], "routeguide.Feature.name", "at 1"));
    assert!(says(
        responses[3],
        "routeguide.RouteSummary.point_count",
        "3"
    ));
    assert!(says(responses[5], "routeguide.RouteNote.message", "Calm."));
}
