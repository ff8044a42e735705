//! Authentication with bearer tokens: an interceptor of the client adds the current token, and an
//! interceptor of the service turns it into an identity. Health checks need no token.
//!
//! Run it with `cargo run --example authentication`.

use std::collections::HashMap;

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use tokio::sync::watch;
use trunkline::{Channel, Context, Interceptor, Next, Request, Result, Server, Status};
use trunkline_health::v1::HealthCheckRequest;
use trunkline_health::{Health, HealthClient};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

/// The caller, as the service's interceptor passes it to the handler.
#[derive(Clone)]
struct Identity(&'static str);

struct Authenticate(HashMap<&'static str, Identity>);

impl Interceptor for Authenticate {
    async fn intercept(&self, mut cx: Context, next: Next) -> Result<()> {
        let authorization = cx.metadata().get("authorization");
        let Some(token) = authorization.and_then(|it| it.strip_prefix("Bearer ")) else {
            return Err(Status::unauthenticated("a bearer token is needed"));
        };
        let Some(identity) = self.0.get(token) else {
            return Err(Status::unauthenticated("the token is unknown or expired"));
        };
        cx.extensions_mut().insert(identity.clone());
        next.run(&mut cx).await
    }
}

/// Adds the current token. The task that renews tokens has the other end of the channel.
struct AddToken(watch::Receiver<&'static str>);

impl Interceptor for AddToken {
    async fn intercept(&self, mut cx: Context, next: Next) -> Result<()> {
        let token = format!("Bearer {}", *self.0.borrow());
        cx.metadata_mut().insert("authorization", &token)?;
        next.run(&mut cx).await
    }
}

struct MyGreeter;

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        match request.extensions().get::<Identity>() {
            None => Err(Status::internal("the service has no authentication")),
            Some(Identity("guest")) => Err(Status::permission_denied("guests greet nobody")),
            Some(Identity(name)) => Ok(HelloReply {
                message: format!("Hello, {}! You are {name}.", request.name),
            }),
        }
    }
}

async fn greet(channel: &Channel) {
    let name = "world".to_string();
    let greeter = GreeterClient::new(channel.clone());
    match greeter.say_hello(HelloRequest { name }).await {
        Ok(response) => println!("{}", response.message),
        Err(status) => println!("{status}"),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let identities = [("sesame", Identity("Ali")), ("knock", Identity("guest"))];
    let greeter = GreeterServer::new(MyGreeter).intercept(Authenticate(identities.into()));
    let server = Server::new()
        .add_service(greeter)
        .add_service(Health::new())
        .bind("127.0.0.1:0")
        .await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());

    let plain = Channel::connect(&address).await?;
    greet(&plain).await;
    let (renew, token) = watch::channel("stale");
    let channel = plain.clone().intercept(AddToken(token));
    for token in ["stale", "knock", "sesame"] {
        renew.send_replace(token);
        greet(&channel).await;
    }

    let health = HealthClient::new(plain);
    let probe = health.check(HealthCheckRequest::default()).await?;
    println!("Without a token: {}", probe.status().as_str_name());
    Ok(())
}
