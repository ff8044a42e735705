//! Interceptors: async functions around whole calls, with the same signature on both sides. Those of the
//! client add a token, and print the status of each call and the sizes of its messages. Those of the
//! server check the token and the requests, and pass the user to the handler.
//!
//! Run it with `cargo run --example interceptor`.

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use trunkline::{Channel, Context, Next, Request, Result, Server, Status};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

/// The user of a call, as the server's interceptor passes it to the handler.
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

async fn print_sizes(mut cx: Context, next: Next) -> Result<()> {
    cx.on_request_message(|message| {
        println!("request {}: {} bytes", message.index(), message.size());
        Ok(())
    });
    cx.on_response_message(|message| {
        println!("response {}: {} bytes", message.index(), message.size());
        Ok(())
    });
    next.run(&mut cx).await
}

/// Checks each request before the handler receives it.
async fn refuse_nameless(mut cx: Context, next: Next) -> Result<()> {
    cx.on_request_message(|message| match message.downcast_ref::<HelloRequest>() {
        Some(request) if request.name.is_empty() => {
            Err(Status::invalid_argument("the name is empty"))
        }
        _ => Ok(()),
    });
    next.run(&mut cx).await
}

struct MyGreeter;

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        let user = request
            .extensions()
            .get()
            .map_or("nobody", |User(name)| name);
        let message = format!("Hello, {}! You came as {user}.", request.name);
        Ok(HelloReply { message })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let server = Server::new()
        .intercept(authenticate)
        .intercept(refuse_nameless)
        .add_service(GreeterServer::new(MyGreeter))
        .bind("127.0.0.1:0")
        .await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());

    let channel = Channel::connect(&address).await?.intercept(print_end);
    let name = "world".to_string();
    let request = HelloRequest { name };
    let stranger = GreeterClient::new(channel.clone());
    if stranger.say_hello(request.clone()).await.is_err() {
        println!("The stranger gets no greeting.");
    }

    let add_token = |mut cx: Context, next: Next| async move {
        cx.metadata_mut()
            .insert("authorization", "Bearer open sesame")?;
        next.run(&mut cx).await
    };
    let channel = channel.intercept(add_token).intercept(print_sizes);
    let client = GreeterClient::new(channel);
    let response = client.say_hello(request).await?;
    println!("{}", response.message);
    if let Err(status) = client.say_hello(HelloRequest::default()).await {
        println!("{}", status.message());
    }
    Ok(())
}
