//! Both ends of calls over TLS.

use trunkline::tls::{ClientTls, ServerTls};
use trunkline::{Channel, Client, Code, Raw, Server};
use trunkline_testkit::{Authority, Identity};

use crate::fixture::{self, UNARY, raw, within};

/// The names of a server on this machine.
pub const LOCAL: &[&str] = &["localhost", "127.0.0.1"];

/// A server with this certificate.
pub fn server_tls(identity: &Identity) -> ServerTls {
    ServerTls::from_pem(&identity.certificate, &identity.key).expect("a good identity")
}

/// A client that trusts this authority.
pub fn trusting(authority: &Authority) -> ClientTls {
    ClientTls::new().ca_pem(authority.pem())
}

/// As [`fixture::serve`]; returns a target with the scheme `https`.
pub async fn serve(server: Server) -> String {
    format!("https://{}", fixture::serve(server).await)
}

/// A client that has connected.
pub async fn connect(target: &str, tls: ClientTls) -> trunkline::Result<Client> {
    let connecting = Channel::to(target).tls(tls).connect();
    within("connecting", connecting).await.map(Client::new)
}

/// Connects, which has to fail; returns the message.
pub async fn failure(target: &str, tls: ClientTls) -> String {
    let failed = match connect(target, tls).await {
        Err(status) => status,
        // With TLS 1.3 a server refuses a client's certificate after the client's handshake.
        Ok(client) => try_echo(&client, "x").await.expect_err("it is refused"),
    };
    assert_eq!(failed.code(), Code::UNAVAILABLE, "{failed}");
    failed.message().to_owned()
}

/// Calls [`Echo`](crate::fixture::Echo); returns the response or why there is none.
pub async fn try_echo(client: &Client, text: &'static str) -> trunkline::Result<String> {
    let call = client.unary::<Raw, Raw>(UNARY, raw(text));
    let response = within("a call", call.into_future()).await?;
    Ok(String::from_utf8_lossy(&response.0).into_owned())
}

/// Calls [`Echo`](crate::fixture::Echo); returns the response.
pub async fn echo(client: &Client, text: &'static str) -> String {
    try_echo(client, text).await.expect("the call passes")
}
