//! The four call types: a guide to the lighthouses of Oregon, and its client, in one program, connected by
//! a socket.
//!
//! Run it with `cargo run --example route_guide`.

use std::sync::{Mutex, PoisonError};

use guide::{Feature, Point, Rectangle, RouteGuide, RouteNote, RouteSummary};
use guide::{RouteGuideClient, RouteGuideServer};
use trunkline::{Request, Result, Sender, Server, Status, Streaming};

mod guide {
    trunkline::include_proto!("../proto/route_guide.proto");
}

#[derive(Default)]
struct Guide(Mutex<Vec<RouteNote>>);

impl RouteGuide for Guide {
    async fn get_feature(&self, request: Request<Point>) -> Result<Feature> {
        let known = lighthouses().find(|it| it.location == Some(*request));
        Ok(known.unwrap_or_default())
    }

    async fn list_features(
        &self,
        request: Request<Rectangle>,
        responses: &mut Sender<Feature>,
    ) -> Result<()> {
        let (Some(lo), Some(hi)) = (request.lo, request.hi) else {
            return Err(Status::invalid_argument("a rectangle has two corners"));
        };
        for feature in lighthouses().filter(|it| is_inside(it, lo, hi)) {
            responses.send(feature).await?;
        }
        Ok(())
    }

    async fn record_route(&self, mut points: Request<Streaming<Point>>) -> Result<RouteSummary> {
        let mut summary = RouteSummary::default();
        while let Some(point) = points.message().await? {
            summary.point_count += 1;
            let known = lighthouses().filter(|it| it.location == Some(point));
            summary.feature_count += known.count() as i32;
        }
        Ok(summary)
    }

    async fn route_chat(
        &self,
        mut notes: Request<Streaming<RouteNote>>,
        responses: &mut Sender<RouteNote>,
    ) -> Result<()> {
        while let Some(note) = notes.message().await? {
            for earlier in self.leave(note) {
                responses.send(earlier).await?;
            }
        }
        Ok(())
    }
}

impl Guide {
    /// Stores a note, and returns the earlier notes at the same location.
    fn leave(&self, note: RouteNote) -> Vec<RouteNote> {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut earlier = notes.clone();
        earlier.retain(|other| other.location == note.location);
        notes.push(note);
        earlier
    }
}

fn lighthouses() -> impl Iterator<Item = Feature> {
    let lighthouses = [
        ("Cape Meares", point(45.4865, -123.9784)),
        ("Yaquina Head", point(44.6767, -124.0796)),
        ("Heceta Head", point(44.1374, -124.1278)),
    ];
    lighthouses.into_iter().map(|(name, point)| Feature {
        name: name.to_string(),
        location: Some(point),
    })
}

/// Creates a point, whose coordinates have the unit 1e-7 degrees.
fn point(latitude: f64, longitude: f64) -> Point {
    Point {
        latitude: (latitude * 1e7) as i32,
        longitude: (longitude * 1e7) as i32,
    }
}

fn is_inside(feature: &Feature, lo: Point, hi: Point) -> bool {
    let place = feature.location.unwrap_or_default();
    (lo.latitude..=hi.latitude).contains(&place.latitude)
        && (lo.longitude..=hi.longitude).contains(&place.longitude)
}

#[tokio::main]
async fn main() -> Result<()> {
    let guide = RouteGuideServer::new(Guide::default());
    let server = Server::new().add_service(guide).bind("127.0.0.1:0").await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());
    let guide = RouteGuideClient::connect(&address).await?;

    println!("GetFeature, one request and one response:");
    let feature = guide.get_feature(point(44.6767, -124.0796)).await?;
    println!("  {}", feature.name);

    println!("ListFeatures, one request and many responses:");
    let (lo, hi) = (Some(point(44.0, -125.0)), Some(point(45.0, -124.0)));
    let mut features = guide.list_features(Rectangle { lo, hi }).await?;
    while let Some(feature) = features.message().await? {
        println!("  {}", feature.name);
    }

    println!("RecordRoute, many requests and one response:");
    let mut route = guide.record_route().await?;
    for latitude in [44.9, 44.6767, 44.5] {
        route.send(point(latitude, -124.0796)).await?;
    }
    let summary = route.finish().await?;
    println!("  lighthouses passed: {}", summary.feature_count);

    println!("RouteChat, many requests and many responses:");
    let (mut notes, mut earlier) = guide.route_chat().await?;
    for message in ["Fog.", "Two whales.", "Calm."] {
        let (location, message) = (Some(point(44.1374, -124.1278)), message.to_string());
        notes.send(RouteNote { location, message }).await?;
    }
    notes.finish();
    while let Some(note) = earlier.message().await? {
        println!("  {}", note.message);
    }
    Ok(())
}
