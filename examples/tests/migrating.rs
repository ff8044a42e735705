//! The code of `docs/from-tonic.md` and `docs/from-grpc-go.md`, a service and its client, and the code on connections
//! in `docs/observability.md`.

use std::time::Duration;

use guide::{Feature, Point, Rectangle, RouteGuide, RouteNote, RouteSummary};
use guide::{RouteGuideClient, RouteGuideServer};
use tokio::sync::oneshot;
use trunkline::details::BadRequest;
use trunkline::limits::ServerLimits;
use trunkline::observe::{self, ConnectionEnd, Observer};
use trunkline::{
    Address, Channel, Client, Code, Context, Method, Next, Request, Result, Sender, Server, Status,
    Streaming,
};
use trunkline_health::Health;
use trunkline_reflection::Reflection;

mod guide {
    trunkline::include_proto!("../proto/route_guide.proto");
}

struct Guide {
    features: Vec<Feature>,
}

impl RouteGuide for Guide {
    async fn get_feature(&self, request: Request<Point>) -> Result<Feature> {
        let mut features = self.features.iter();
        let found = features.find(|it| it.location == Some(*request));
        let found = found.cloned();
        found.ok_or_else(|| Status::not_found("nothing is there"))
    }

    async fn list_features(
        &self,
        request: Request<Rectangle>,
        responses: &mut Sender<Feature>,
    ) -> Result<()> {
        for feature in self.features.iter().filter(|it| is_inside(it, &request)) {
            responses.send(feature.clone()).await?;
        }
        Ok(())
    }

    async fn record_route(&self, mut points: Request<Streaming<Point>>) -> Result<RouteSummary> {
        let mut summary = RouteSummary::default();
        while let Some(_point) = points.message().await? {
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

fn is_inside(feature: &Feature, rectangle: &Rectangle) -> bool {
    let (Some(at), Some(lo), Some(hi)) = (feature.location, rectangle.lo, rectangle.hi) else {
        return false;
    };
    (lo.latitude..=hi.latitude).contains(&at.latitude)
        && (lo.longitude..=hi.longitude).contains(&at.longitude)
}

async fn authenticate(mut cx: Context, next: Next) -> Result<()> {
    match cx.metadata().get("authorization") {
        Some("Bearer open sesame") => next.run(&mut cx).await,
        _ => Err(Status::unauthenticated("the token is missing or wrong")),
    }
}

async fn log_call(mut cx: Context, next: Next) -> Result<()> {
    let path = cx.path().to_string();
    cx.on_response_message(move |message| {
        println!("{path}: a response of {} bytes", message.size());
        Ok(())
    });
    let result = next.run(&mut cx).await;
    let code = result.as_ref().err().map_or(Code::OK, Status::code);
    println!("{}: {code}", cx.path());
    result
}

async fn add_token(mut cx: Context, next: Next) -> Result<()> {
    cx.metadata_mut()
        .insert("authorization", "Bearer open sesame")?;
    next.run(&mut cx).await
}

fn point(latitude: i32, longitude: i32) -> Point {
    Point {
        latitude,
        longitude,
    }
}

fn lighthouse() -> Feature {
    Feature {
        name: "Yaquina Head".to_string(),
        location: Some(point(44, -124)),
    }
}

/// Starts the server, which stops when the returned sender is dropped. Also returns its address.
async fn serve() -> Result<(oneshot::Sender<()>, Address)> {
    let (stop, stopped) = oneshot::channel::<()>();
    let features = vec![lighthouse()];
    let shutdown = async { drop(stopped.await) };

    let guide = RouteGuideServer::new(Guide { features }).intercept(authenticate);
    let server = Server::new()
        .intercept(log_call)
        .max_recv_message_size(16 << 20)
        .add_service(guide)
        .add_service(Health::new())
        .add_service(Reflection::new())
        .bind("127.0.0.1:0")
        .await?;
    let address = server.local_addr();
    tokio::spawn(server.serve_until(shutdown));
    Ok((stop, address))
}

#[tokio::test]
async fn the_service_responds_to_all_four_call_types() -> Result<()> {
    let (_stop, address) = serve().await?;

    let channel = Channel::to(&address)
        .connect_timeout(Duration::from_secs(5))
        .connect()
        .await?;
    let client = RouteGuideClient::new(channel.intercept(add_token));

    let feature = client
        .get_feature(point(44, -124))
        .timeout(Duration::from_secs(10))
        .metadata("request-id", "7")
        .await?;
    println!("{}", feature.name);

    let (lo, hi) = (Some(point(40, -125)), Some(point(45, -120)));
    let mut features = client.list_features(Rectangle { lo, hi }).await?;
    while let Some(feature) = features.message().await? {
        println!("{}", feature.name);
    }

    let mut route = client.record_route().await?;
    for _ in 0..3 {
        route.send(point(44, -124)).await?;
    }
    let summary = route.finish().await?;
    assert_eq!(summary.point_count, 3);

    let (mut notes, mut responses) = client.route_chat().await?;
    notes.send(RouteNote::default()).await?;
    assert!(responses.message().await?.is_some());
    notes.finish();
    assert!(responses.message().await?.is_none());
    assert_eq!(feature.into_inner(), lighthouse());
    Ok(())
}

#[tokio::test]
async fn options_of_a_call_are_methods_of_the_call() -> Result<()> {
    let (_stop, address) = serve().await?;
    let channel = Channel::to(&address).connect_lazy()?.intercept(add_token);
    let client = RouteGuideClient::new(channel);
    let place = point(44, -124);

    let response = client
        .get_feature(place)
        .timeout(Duration::from_secs(10))
        .wait_for_ready()
        .metadata("request-id", "7")
        .compress("gzip")
        .await?;
    let (head, trailers) = (response.metadata(), response.trailers());

    assert!(head.is_empty() && trailers.is_empty());
    match client.get_feature(point(0, 0)).await {
        Err(status) if status.code() == Code::NOT_FOUND => {
            println!("{}", status.message());
            if let Some(wrong) = status.detail::<BadRequest>() {
                println!("{wrong:?}");
            }
        }
        other => panic!("{other:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn a_dropped_call_is_cancelled() -> Result<()> {
    let (_stop, address) = serve().await?;
    let channel = Channel::connect(&address).await?.intercept(add_token);
    let client = RouteGuideClient::new(channel);
    let (first, second) = (point(44, -124), point(44, -124));

    let feature = tokio::select! {
        feature = client.get_feature(first) => feature?,
        feature = client.get_feature(second) => feature?,
    };

    assert_eq!(feature.name, "Yaquina Head");
    Ok(())
}

#[tokio::test]
async fn an_unknown_method_is_refused_before_any_interceptor_runs() -> Result<()> {
    let (_stop, address) = serve().await?;
    let stranger = Client::new(Channel::connect(&address).await?);
    for (path, code) in [
        ("/routeguide.RouteGuide/GetFeature", Code::UNAUTHENTICATED),
        ("/routeguide.RouteGuide/GetFeatures", Code::UNIMPLEMENTED),
    ] {
        let call = stranger.unary::<Point, Feature>(Method::new(path), point(0, 0));
        assert_eq!(call.await.unwrap_err().code(), code, "{path}");
    }
    Ok(())
}

struct Connections;

impl Observer for Connections {
    fn connection_ended(&self, connection: &ConnectionEnd<'_>) {
        let stats = connection.stats();
        let (bytes_in, bytes_out) = (stats.bytes_in, stats.bytes_out);
        println!(
            "{}: {bytes_in} B in, {bytes_out} B out",
            connection.peer().remote()
        );
    }
}

#[tokio::test]
async fn settings_of_other_frameworks_have_equivalents() -> Result<()> {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let features = vec![lighthouse()];
    let server = Server::new()
        .observe(Connections)
        .observe(observe::on_end(|call| {
            println!("{} {} {:?}", call.method(), call.code(), call.duration());
        }))
        .max_recv_message_size(16 << 20)
        .max_concurrent_streams(1_000)
        .with_limits(|limits: &mut ServerLimits| limits.http2.initial_window_size = 1 << 20)
        .max_connection_idle(minutes(15))
        .max_connection_age(minutes(30))
        .max_connection_age_grace(minutes(5))
        .keepalive_time(minutes(1))
        .keepalive_timeout(Duration::from_secs(20))
        .permit_keepalive_time(Duration::from_secs(30))
        .permit_keepalive_without_calls()
        .add_service(RouteGuideServer::new(Guide { features }));
    let server = server.bind("127.0.0.1:0").await?;
    let addresses = vec![server.local_addr()];
    tokio::spawn(server.serve());

    let channel = Channel::to(addresses)
        .round_robin()
        .keepalive_time(minutes(5))
        .keepalive_timeout(Duration::from_secs(20))
        .keepalive_without_calls()
        .max_recv_message_size(16 << 20)
        .compress("gzip")
        .connect_lazy()?;

    let client = RouteGuideClient::new(channel.clone());
    let feature = client.get_feature(point(44, -124)).await?;
    assert_eq!(feature.name, "Yaquina Head");

    for connection in channel.connection_stats() {
        assert!(connection.bytes_out > 0 && connection.frames_in > 0);
    }
    assert_eq!(channel.connection_stats().len(), 1);
    Ok(())
}
