//! Certificate rotation: the server checks its files while it runs, and uses a new certificate once it is
//! valid. If it is not, the server reports the error and keeps the last valid certificate.
//!
//! Run it with `cargo run --example cert_reload`.

use std::path::Path;
use std::time::Duration;

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use tokio::sync::mpsc;
use trunkline::tls::{ClientTls, ServerTls};
use trunkline::{Channel, Request, Result, Server};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

struct MyGreeter;

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        let message = format!("Hello, {}!", request.name);
        Ok(HelloReply { message })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("trunkline-certs-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let (first, second) = (self_signed(), self_signed());
    put(&dir, "key.pem", &first.1);
    put(&dir, "cert.pem", &first.0);

    let (tell, mut told) = mpsc::unbounded_channel();
    let tls = ServerTls::from_files(dir.join("cert.pem"), dir.join("key.pem"))?
        // A real server checks every few minutes; this program should not take so long.
        .reload_every(Duration::from_millis(10))
        .on_reload(move |outcome| {
            let _ = tell.send(outcome);
        });
    let server = Server::new()
        .tls(tls)
        .add_service(GreeterServer::new(MyGreeter))
        .bind("127.0.0.1:0")
        .await?;
    let port = server.local_addr().tcp().map_or(0, |addr| addr.port());
    let serving = tokio::spawn(server.serve());
    let target = format!("https://localhost:{port}");
    greet(&target, "the first", &first.0).await?;

    put(&dir, "cert.pem", &second.0);
    if let Some(Err(status)) = told.recv().await {
        let message = status.message().replace(&format!("{}/", dir.display()), "");
        println!("Rejected: {message}.");
    }
    greet(&target, "still the first", &first.0).await?;

    put(&dir, "key.pem", &second.1);
    if let Some(Ok(())) = told.recv().await {
        println!("Reloaded.");
    }
    greet(&target, "the second", &second.0).await?;

    serving.abort();
    let _ = std::fs::remove_dir_all(dir);
    Ok(())
}

async fn greet(target: &str, which: &str, authority: &str) -> Result<()> {
    let tls = ClientTls::new().ca_pem(authority);
    let channel = Channel::to(target).tls(tls).connect().await?;
    let name = which.to_string();
    let response = GreeterClient::new(channel).say_hello(HelloRequest { name });
    println!("{}", response.await?.message);
    Ok(())
}

/// Replaces a file atomically, so that the server never reads half of it.
fn put(dir: &Path, name: &str, text: &str) {
    let new = dir.join("new");
    std::fs::write(&new, text).expect("a file");
    std::fs::rename(new, dir.join(name)).expect("a file");
}

/// Creates a self-signed certificate for this run, and its key.
fn self_signed() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()]);
    let made = made.expect("the name is valid");
    (made.cert.pem(), made.signing_key.serialize_pem())
}
