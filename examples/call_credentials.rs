//! Call credentials: the client fetches a token when it needs one, all calls share it, and it is never sent in
//! plaintext.
//!
//! Run it with `cargo run --example call_credentials`.

use std::sync::atomic::{AtomicU32, Ordering};

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use rcgen::{CertificateParams, KeyPair};
use trunkline::credentials::{BearerToken, CachedToken, CallCredentials, CallInfo, TokenRequest};
use trunkline::tls::{ClientTls, ServerTls};
use trunkline::{Channel, Metadata, Request, Result, Server, http};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

struct MyGreeter;

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        let tokens: Vec<_> = request.metadata().get_all("authorization").collect();
        let message = format!(
            "Hello, {}! You sent {}.",
            request.name,
            tokens.join(" and ")
        );
        Ok(HelloReply { message })
    }
}

/// The server that issues tokens. A program sends the request with an HTTP client, such as reqwest.
async fn post(request: http::Request<String>) -> Result<http::Response<String>> {
    println!("POST {}: {}", request.uri(), request.body());
    let response = r#"{"access_token":"sesame","token_type":"Bearer","expires_in":3600}"#;
    Ok(http::Response::new(response.to_owned()))
}

/// Numbers the calls, to show credentials of your own.
#[derive(Default)]
struct Numbered(AtomicU32);

impl CallCredentials for Numbered {
    async fn metadata(&self, call: &CallInfo) -> Result<Metadata> {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        let mut metadata = Metadata::new();
        let value = format!("number {number} of {}", call.path());
        metadata.insert("authorization", &value)?;
        Ok(metadata)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(["localhost".to_string()]).expect("a valid name");
    let certificate = certificate.self_signed(&key).expect("a certificate").pem();
    let server = Server::new()
        .tls(ServerTls::from_pem(&certificate, key.serialize_pem())?)
        .add_service(GreeterServer::new(MyGreeter))
        .bind("127.0.0.1:0")
        .await?;
    let port = server.local_addr().tcp().map_or(0, |addr| addr.port());
    tokio::spawn(server.serve());

    let credentials = CachedToken::new(|| {
        TokenRequest::client_credentials("https://issuer.example/token", "client", "secret")
            .scope("greeting")
            .send(post)
    });
    let channel = Channel::to(format!("https://localhost:{port}"))
        .tls(ClientTls::new().ca_pem(&certificate))
        .credentials(credentials)
        .connect()
        .await?;
    let greeter = GreeterClient::new(channel);
    for name in ["Ann", "Bob"] {
        let name = name.to_string();
        let response = greeter.say_hello(HelloRequest { name }).await?;
        println!("{}", response.message);
    }

    let name = "Eve".to_string();
    let response = greeter
        .say_hello(HelloRequest { name })
        .credentials(Numbered::default())
        .await?;
    println!("{}", response.message);

    let plaintext = Channel::to("http://localhost:50051").credentials(BearerToken::new("sesame")?);
    if let Err(status) = plaintext.connect_lazy() {
        println!("{}", status.message());
    }
    Ok(())
}
