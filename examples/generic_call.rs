//! Calls without generated code: a method is a path, and `Raw` holds the bytes of a message. This is useful
//! for tools that know the paths of their methods. It is not enough for a proxy of arbitrary paths,
//! because a router serves only the methods that were added to it.
//!
//! Run it with `cargo run --example generic_call`.

use std::sync::Arc;

use trunkline::bytes::Bytes;
use trunkline::server::Methods;
use trunkline::{Channel, Client, Method, Raw, Request, Result, Server, Service};

const REVERSE: Method = Method::new("/example.Mirror/Reverse");

struct Mirror;

impl Service for Mirror {
    const NAME: &'static str = "example.Mirror";

    fn add_to(self, methods: &mut Methods) {
        let mirror = Arc::new(self);
        methods.unary(
            REVERSE,
            &mirror,
            |mirror, request: Request<Raw>| async move { Ok(mirror.reverse(request.into_inner())) },
        );
    }
}

impl Mirror {
    fn reverse(&self, message: Raw) -> Raw {
        Raw(message.0.iter().rev().copied().collect())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let server = Server::new()
        .add_service(Mirror)
        .bind("127.0.0.1:0")
        .await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());

    let client = Client::new(Channel::connect(&address).await?);
    let request = Raw(Bytes::from("drawer"));
    let response = client.unary::<Raw, Raw>(REVERSE, request).await?;
    println!("{:?}", response.0);

    let unknown = Method::new("/example.Mirror/Polish");
    match client.unary::<Raw, Raw>(unknown, Raw::default()).await {
        Ok(response) => println!("{:?}", response.0),
        Err(status) => println!("{status}"),
    }
    Ok(())
}
