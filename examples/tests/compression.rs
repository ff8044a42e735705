//! The code of `docs/compression.md` that is not in the example.

use guide::{
    Feature, Point, Rectangle, RouteGuide, RouteGuideClient, RouteGuideServer, RouteNote,
    RouteSummary,
};
use trunkline::codec::Gzip;
use trunkline::{Channel, Compress, Request, Result, Sender, Server, Status, Streaming};

mod guide {
    trunkline::include_proto!("../proto/route_guide.proto");
}

/// Responds to each note with a note that tells whether it was compressed.
struct Telling;

impl RouteGuide for Telling {
    async fn get_feature(&self, _: Request<Point>) -> Result<Feature> {
        Err(Status::unimplemented("there are no features"))
    }

    async fn list_features(&self, _: Request<Rectangle>, _: &mut Sender<Feature>) -> Result<()> {
        Err(Status::unimplemented("there are no features"))
    }

    async fn record_route(&self, _: Request<Streaming<Point>>) -> Result<RouteSummary> {
        Err(Status::unimplemented("there are no routes"))
    }

    async fn route_chat(
        &self,
        mut notes: Request<Streaming<RouteNote>>,
        responses: &mut Sender<RouteNote>,
    ) -> Result<()> {
        while notes.message().await?.is_some() {
            let is_compressed = Streaming::is_compressed(&notes);
            responses.send(note(&is_compressed.to_string())).await?;
        }
        Ok(())
    }
}

fn note(message: &str) -> RouteNote {
    RouteNote {
        location: None,
        message: message.to_string(),
    }
}

#[tokio::test]
async fn a_single_message_of_a_compressed_stream_is_sent_uncompressed() -> Result<()> {
    let server = Server::new()
        .compressor(Gzip::with_level(1))
        .compress("gzip");
    let server = server.add_service(RouteGuideServer::new(Telling));
    let server = server.bind("127.0.0.1:0").await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());

    let channel = Channel::to(&address).compress("gzip").connect().await?;
    let client = RouteGuideClient::new(channel);
    let (mut notes, mut responses) = client.route_chat().await?;
    let (public, secret) = (note(&"public ".repeat(1000)), note(&"secret ".repeat(1000)));
    notes.send(public.clone()).await?;
    notes.compress(Compress::Off);
    notes.send(secret).await?;
    notes.compress(Compress::Auto);
    notes.send(public).await?;
    notes.finish();
    for expected in ["true", "false", "true"] {
        let response = responses.message().await?;
        assert_eq!(response.map(|note| note.message).as_deref(), Some(expected));
    }
    Ok(())
}
