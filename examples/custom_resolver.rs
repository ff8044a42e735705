//! A custom resolver: servers register in a list, and the channel to `registry:///greeters` follows it. New
//! servers receive calls immediately, and servers that leave the list receive no more.
//!
//! Run it with `cargo run --example custom_resolver`.

use std::collections::BTreeSet;

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use tokio::sync::watch;
use trunkline::channel::{Endpoint, Resolution, Resolver, TargetUri, Updates};
use trunkline::{Address, Channel, Request, Result, Server};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

/// The registry, which here is a list in the same process.
struct Registry(watch::Receiver<Vec<Address>>);

impl Resolver for Registry {
    fn schemes(&self) -> &[&str] {
        &["registry"]
    }

    fn start(
        &self,
        _target: &TargetUri,
        mut updates: Updates,
    ) -> impl Future<Output = ()> + Send + 'static {
        let mut list = self.0.clone();
        async move {
            loop {
                let addresses = list.borrow_and_update().clone();
                let endpoints = addresses.into_iter().map(Endpoint::new).collect();
                // A resolver that looks up its servers would look again if the verdict is `Refused`.
                let _verdict = updates.put(Resolution::new(endpoints)).await;
                if list.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

struct MyGreeter(&'static str);

impl Greeter for MyGreeter {
    async fn say_hello(&self, _request: Request<HelloRequest>) -> Result<HelloReply> {
        let message = self.0.to_string();
        Ok(HelloReply { message })
    }
}

async fn start(name: &'static str) -> Result<Address> {
    let server = Server::new().add_service(GreeterServer::new(MyGreeter(name)));
    let server = server.bind("127.0.0.1:0").await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());
    Ok(address)
}

/// Calls until exactly the servers in `expected` have greeted in four calls.
async fn wait_for(client: &GreeterClient, expected: &str) -> Result<()> {
    loop {
        let mut names = BTreeSet::new();
        for _ in 0..4 {
            let call = client.say_hello(HelloRequest::default());
            names.insert(call.wait_for_ready().await?.into_inner().message);
        }
        if names.iter().map(String::as_str).eq(expected.split(' ')) {
            println!("greeted by: {expected}");
            return Ok(());
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let (alice, bob) = (start("alice").await?, start("bob").await?);
    let (list, registry) = watch::channel(vec![alice]);
    let channel = Channel::to("registry:///greeters")
        .resolver(Registry(registry))
        .round_robin()
        .connect_lazy()?;
    let client = GreeterClient::new(channel);
    wait_for(&client, "alice").await?;

    list.send_modify(|list| list.push(bob));
    wait_for(&client, "alice bob").await?;

    list.send_modify(|list| drop(list.remove(0)));
    wait_for(&client, "bob").await?;

    list.send_modify(Vec::clear);
    while client.say_hello(HelloRequest::default()).await.is_ok() {}
    let status = client.say_hello(HelloRequest::default()).await;
    println!("client: {}", status.expect_err("no server is left"));
    Ok(())
}
