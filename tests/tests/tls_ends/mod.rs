//! Both ends of calls over TLS.

#![allow(dead_code, reason = "each test binary uses its own part of it")]

use trunkline::{Channel, Client, ClientTls, Code, Raw, Server, ServerTls};
use trunkline_testkit::{Authority, Identity};

use crate::fixture::{self, UNARY, raw, within};

pub(crate) const LOCAL: &[&str] = &["localhost", "127.0.0.1"];

pub(crate) fn server_tls(identity: &Identity) -> ServerTls {
    ServerTls::from_pem(&identity.certificate, &identity.key).expect("a good identity")
}

pub(crate) fn trusting(authority: &Authority) -> ClientTls {
    ClientTls::new().ca_pem(authority.pem())
}

pub(crate) async fn serve(server: Server) -> String {
    format!("https://{}", fixture::serve(server).await)
}

pub(crate) async fn connect(target: &str, tls: ClientTls) -> trunkline::Result<Client> {
    let connecting = Channel::to(target).tls(tls).connect();
    within("connecting", connecting).await.map(Client::new)
}

/// Connects, which has to fail; gives what the message says.
pub(crate) async fn failure(target: &str, tls: ClientTls) -> String {
    let failed = match connect(target, tls).await {
        Err(status) => status,
        // With TLS 1.3 a server refuses a client's certificate after the client's handshake.
        Ok(client) => try_echo(&client, "x").await.expect_err("it is refused"),
    };
    assert_eq!(failed.code(), Code::UNAVAILABLE, "{failed}");
    failed.message().to_owned()
}

pub(crate) async fn try_echo(client: &Client, text: &'static str) -> trunkline::Result<String> {
    let call = client.unary::<Raw, Raw>(UNARY, raw(text));
    let response = within("a call", call.into_future()).await?;
    Ok(String::from_utf8_lossy(&response.0).into_owned())
}

pub(crate) async fn echo(client: &Client, text: &'static str) -> String {
    try_echo(client, text).await.expect("the call passes")
}
