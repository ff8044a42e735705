//! A custom load balancing policy: calls with the metadata `canary` go to the server with a new version, and all
//! others to the other servers in turn. If the new version is down, its calls go to the others, too.
//!
//! Run it with `cargo run --example custom_policy`.

use std::sync::Arc;

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use trunkline::balancing::{
    Balancer, Control, MakePicker, Pick, PickArgs, PickResult, Picker, Policy, ReadyBalancer,
    ReadyEndpoint, RoundRobinPicker,
};
use trunkline::{Address, Channel, Request, Result, Server};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

/// The policy, with the address of the new version.
#[derive(Clone)]
struct Canary(Address);

impl Policy for Canary {
    fn name(&self) -> &str {
        "canary"
    }

    fn build(&self) -> Box<dyn Balancer> {
        Box::new(ReadyBalancer::new(self.clone()))
    }
}

impl MakePicker for Canary {
    type Data = ();

    fn make_picker(
        &mut self,
        ready: &[ReadyEndpoint<'_, ()>],
        control: &mut dyn Control,
    ) -> Picker {
        let is_new = |it: &ReadyEndpoint<'_, ()>| it.endpoint.addresses().contains(&self.0);
        let mut picker_of = |new: bool| {
            let endpoints = ready.iter().filter(|it| is_new(it) == new);
            let subchannels: Vec<_> = endpoints.map(|it| it.subchannel.clone()).collect();
            RoundRobinPicker::new(subchannels, None, control.random())
        };
        Picker::Custom(Arc::new(CanaryPicker {
            new: picker_of(true),
            stable: picker_of(false),
        }))
    }
}

struct CanaryPicker {
    new: RoundRobinPicker,
    stable: RoundRobinPicker,
}

impl Pick for CanaryPicker {
    fn pick(&self, call: &PickArgs<'_>) -> PickResult {
        let (first, second) = match call.metadata.get("canary") {
            Some(_) => (&self.new, &self.stable),
            None => (&self.stable, &self.new),
        };
        let subchannel = first.pick().or_else(|| second.pick());
        subchannel.map_or(PickResult::Wait, Into::into)
    }
}

struct MyGreeter(&'static str);

impl Greeter for MyGreeter {
    async fn say_hello(&self, _request: Request<HelloRequest>) -> Result<HelloReply> {
        let message = format!("Hello from version {}!", self.0);
        Ok(HelloReply { message })
    }
}

async fn start(version: &'static str) -> Result<Address> {
    let server = Server::new().add_service(GreeterServer::new(MyGreeter(version)));
    let server = server.bind("127.0.0.1:0").await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());
    Ok(address)
}

#[tokio::main]
async fn main() -> Result<()> {
    let servers = [start("1").await?, start("1").await?, start("2").await?];
    let channel = Channel::to(&servers)
        .policy(Canary(servers[2].clone()))
        .use_policy("canary")
        .connect_lazy()?;
    let client = GreeterClient::new(channel);
    // All servers are connected once each kind of call reaches its version.
    while greet(&client, "canary").await? != "Hello from version 2!" {}
    while greet(&client, "stable").await? != "Hello from version 1!" {}

    for key in ["stable", "stable", "canary", "canary"] {
        println!("{key}: {}", greet(&client, key).await?);
    }
    Ok(())
}

async fn greet(client: &GreeterClient, key: &str) -> Result<String> {
    let call = client.say_hello(HelloRequest::default());
    let response = call.metadata(key, "1").await?;
    Ok(response.into_inner().message)
}
