//! Tests that call handlers directly, as shown in `docs/testing.md`.

use guide::{Feature, Point, Rectangle, RouteGuide, RouteNote, RouteSummary};
use hello::{Greeter, HelloReply, HelloRequest};
use trunkline::{Request, Result, Sender, Streaming};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

mod guide {
    trunkline::include_proto!("../proto/route_guide.proto");
}

struct MyGreeter;

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        let caller = request.metadata().get("caller").unwrap_or("nobody");
        request.response().trailer("greeted-by", caller)?;
        let message = format!("Hello, {}!", request.name);
        Ok(HelloReply { message })
    }
}

#[derive(Default)]
struct Guide;

impl RouteGuide for Guide {
    async fn get_feature(&self, request: Request<Point>) -> Result<Feature> {
        let (name, location) = (String::new(), Some(request.into_inner()));
        Ok(Feature { name, location })
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

#[tokio::test]
async fn a_greeting_names_its_caller() {
    let name = "world".to_string();
    let mut request = Request::new(HelloRequest { name });
    request.metadata_mut().insert("caller", "test").unwrap();
    let response = request.response().clone();

    let reply = MyGreeter.say_hello(request).await.unwrap();
    assert_eq!(reply.message, "Hello, world!");
    assert_eq!(response.trailers().get("greeted-by"), Some("test"));
}

#[tokio::test]
async fn a_route_has_as_many_points_as_were_sent() {
    let points = Streaming::from_messages([Point::default(), Point::default()]);
    let summary = Guide.record_route(Request::new(points)).await.unwrap();
    assert_eq!(summary.point_count, 2);
}

#[tokio::test]
async fn both_corners_of_a_rectangle_are_listed() {
    let (mut sender, mut responses) = Streaming::channel();
    let request = Request::new(Rectangle::default());
    Guide.list_features(request, &mut sender).await.unwrap();
    sender.finish();

    let mut count = 0;
    while let Some(_feature) = responses.message().await.unwrap() {
        count += 1;
    }
    assert_eq!(count, 2);
}
