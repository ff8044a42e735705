//! TLS: a server with a certificate, a client that trusts its authority, and clients that cannot connect. In
//! production, a client needs only `https://`, because the system trusts the authority.
//!
//! Run it with `cargo run --example tls`.

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use rcgen::{CertificateParams, DnType, KeyPair};
use trunkline::tls::{ClientTls, ServerTls};
use trunkline::{Channel, Request, Result, Server};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

struct MyGreeter;

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        let tls = request.peer().and_then(|peer| peer.tls());
        let version = tls.map_or("plaintext", |tls| tls.version());
        let message = format!("Hello, {}! We speak {version}.", request.name);
        Ok(HelloReply { message })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let (certificate, key) = self_signed("an authority");
    let server = Server::new()
        .tls(ServerTls::from_pem(&certificate, key)?)
        .add_service(GreeterServer::new(MyGreeter))
        .bind("127.0.0.1:0")
        .await?;
    let port = server.local_addr().tcp().map_or(0, |addr| addr.port());
    tokio::spawn(server.serve());

    let target = format!("https://localhost:{port}");
    let tls = ClientTls::new().ca_pem(&certificate);
    let channel = Channel::to(&target).tls(tls.clone()).connect().await?;
    let name = "world".to_string();
    let response = GreeterClient::new(channel)
        .say_hello(HelloRequest { name })
        .await?;
    println!("{}", response.message);

    let (other, _) = self_signed("another authority");
    let careful = ClientTls::new().ca_pem(other);
    let elsewhere = tls.server_name("greeter.example");
    for connected in [
        Channel::to(&target).tls(careful).connect().await,
        Channel::to(&target).tls(elsewhere).connect().await,
        Channel::connect(&format!("http://localhost:{port}")).await,
    ] {
        if let Err(status) = connected {
            // The port differs in each run.
            let message = status.message().replace(&port.to_string(), "PORT");
            println!("{}: {message}", status.code());
        }
    }
    Ok(())
}

/// Creates a self-signed certificate for this run, and its key.
fn self_signed(name: &str) -> (String, String) {
    let mut params = CertificateParams::new(["localhost".to_string()]).expect("a valid name");
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}
