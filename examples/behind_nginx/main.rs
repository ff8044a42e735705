//! A server behind nginx, and calls of all four types through it. Two optional arguments are the addresses
//! of the server (127.0.0.1:50051 by default) and of nginx (127.0.0.1:8080 by default).
//!
//! First start nginx with the file `nginx.conf` in this directory, which contains instructions.
//! Run it with `cargo run --example behind_nginx`.

use std::time::Duration;

use guide::{
    Feature, Point, Rectangle, RouteGuide, RouteGuideClient, RouteGuideServer, RouteNote,
    RouteSummary,
};
use trunkline::{Request, Result, Sender, Server, Streaming};

mod guide {
    trunkline::include_proto!("../proto/route_guide.proto");
}

struct Guide;

impl RouteGuide for Guide {
    async fn get_feature(&self, request: Request<Point>) -> Result<Feature> {
        let who = request.metadata().get("my_name").unwrap_or("nobody");
        let name = format!("a feature for {who}");
        let location = Some(request.into_inner());
        Ok(Feature { name, location })
    }

    async fn list_features(
        &self,
        _: Request<Rectangle>,
        responses: &mut Sender<Feature>,
    ) -> Result<()> {
        responses.send(Feature::default()).await?;
        std::future::pending().await
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

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut address = |default: &str| arguments.next().unwrap_or_else(|| default.to_string());
    let (server, nginx) = (address("127.0.0.1:50051"), address("127.0.0.1:8080"));
    let server = Server::new()
        .add_service(RouteGuideServer::new(Guide))
        .bind(&server)
        .await?;
    tokio::spawn(server.serve());

    let client = RouteGuideClient::connect(&nginx).await?;
    let call = client.get_feature(Point::default());
    let feature = call.metadata("my_name", "Ali").await?;
    println!("unary: {}", feature.name);

    let mut route = client.record_route().await?;
    for _ in 0..100_000 {
        route.send(Point::default()).await?;
    }
    println!(
        "client streaming: {} points",
        route.finish().await?.point_count
    );

    let (mut notes, mut responses) = client.route_chat().await?;
    for message in ["one", "two"] {
        let (location, message) = (None, message.to_string());
        notes.send(RouteNote { location, message }).await?;
        if let Some(note) = responses.message().await? {
            println!("bidirectional: {}", note.message);
        }
    }
    notes.finish();

    let call = client.list_features(Rectangle::default());
    let mut features = call.timeout(Duration::from_millis(500)).await?;
    while let Ok(Some(_)) = features.message().await {
        println!("server streaming: a feature, and then nothing until the deadline");
    }
    Ok(())
}
