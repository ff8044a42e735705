//! Interceptors: async functions around whole calls, of the same form on both sides. The client's
//! add a token and print how each call ends. The server's checks the token, and tells the handler
//! whose it is.
//!
//! Run it with `cargo run --example interceptor`.

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use trunkline::{Channel, Context, Next, Request, Result, Server, Status};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

/// Who calls: the server's interceptor leaves it for the handler.
#[derive(Clone)]
struct User(&'static str);

async fn authenticate(mut cx: Context, next: Next) -> Result<()> {
    let user = match cx.metadata().get("authorization") {
        Some("Bearer open sesame") => User("Ali"),
        _ => return Err(Status::unauthenticated("the token is missing or wrong")),
    };
    cx.extensions_mut().insert(user);
    next.run(&mut cx).await
}

async fn print_end(mut cx: Context, next: Next) -> Result<()> {
    let result = next.run(&mut cx).await;
    match &result {
        Ok(()) => println!("{}: OK", cx.path()),
        Err(status) => println!("{}: {status}", cx.path()),
    }
    result
}

struct MyGreeter;

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        let user = request.extensions().get::<User>();
        let user = user.map_or("nobody", |User(name)| name);
        let message = format!("Hello, {}! You came as {user}.", request.name);
        Ok(HelloReply { message })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let server = Server::new()
        .intercept(authenticate)
        .add_service(GreeterServer::new(MyGreeter))
        .bind("127.0.0.1:0")
        .await?;
    let address = server.local_addr().to_string();
    tokio::spawn(server.serve());

    let channel = Channel::connect(&address).await?.intercept(print_end);
    let request = HelloRequest {
        name: "world".to_string(),
    };
    let stranger = GreeterClient::new(channel.clone());
    if stranger.say_hello(request.clone()).await.is_err() {
        println!("The stranger gets no greeting.");
    }

    let add_token = |mut cx: Context, next: Next| async move {
        cx.metadata_mut()
            .insert("authorization", "Bearer open sesame")?;
        next.run(&mut cx).await
    };
    let client = GreeterClient::new(channel.intercept(add_token));
    let response = client.say_hello(request).await?;
    println!("{}", response.message);
    Ok(())
}
