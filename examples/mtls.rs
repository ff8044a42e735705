//! Mutual TLS: the server accepts only clients with a certificate from its authority, and the handler
//! identifies the caller by the name in the certificate.
//!
//! Run it with `cargo run --example mtls`.

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use trunkline::tls::{ClientTls, ServerTls};
use trunkline::{Channel, Request, Result, Server, Status};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

struct MyGreeter;

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        let tls = request.peer().and_then(|peer| peer.tls());
        let names = tls.map(|tls| tls.names()).unwrap_or_default();
        if !names.iter().any(|name| name == "billing.example") {
            return Err(Status::permission_denied("only billing may be greeted"));
        }
        let message = format!("Hello, {}! You are {}.", request.name, names.join(", "));
        Ok(HelloReply { message })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("localhost");
    let tls = ServerTls::from_pem(certificate, key)?.client_ca_pem(authority.pem());
    let server = Server::new()
        .tls(tls)
        .add_service(GreeterServer::new(MyGreeter))
        .bind("127.0.0.1:0")
        .await?;
    let port = server.local_addr().tcp().map_or(0, |addr| addr.port());
    tokio::spawn(server.serve());
    let target = format!("https://localhost:{port}");

    for name in ["billing.example", "shipping.example"] {
        let (certificate, key) = authority.issue(name);
        let tls = ClientTls::new()
            .ca_pem(authority.pem())
            .identity_pem(certificate, key);
        greet(&target, tls).await;
    }
    greet(&target, ClientTls::new().ca_pem(authority.pem())).await;
    Ok(())
}

async fn greet(target: &str, tls: ClientTls) {
    match try_greet(target, tls).await {
        Ok(message) => println!("{message}"),
        Err(status) => println!("{}: {}", status.code(), cause(&status)),
    }
}

async fn try_greet(target: &str, tls: ClientTls) -> Result<String> {
    let channel = Channel::to(target).tls(tls).connect().await?;
    let name = "world".to_string();
    let response = GreeterClient::new(channel).say_hello(HelloRequest { name });
    Ok(response.await?.into_inner().message)
}

/// Returns the end of a message, without the port, which differs in each run.
fn cause(status: &Status) -> &str {
    let message = status.message();
    message.find("it asks").map_or(message, |at| &message[at..])
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_string()]).expect("a valid name");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}
