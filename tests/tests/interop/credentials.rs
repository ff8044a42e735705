//! The cases of call credentials that need no cloud: service accounts whose tokens come from a local issuer, or from the
//! client itself. Those of compute engines and of Google's defaults are left out, and no foreign server names its callers.

#![cfg(unix)]

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::json;
use trunkline::tls::ServerTls;
use trunkline_tests::interop_ends::our_server_with;
use trunkline_tests::peers::{Peer, run_client_with};

use crate::tls::{Files, GoCertificates, NAME};

const CASES: [&str; 4] = [
    "service_account_creds",
    "jwt_token_creds",
    "oauth2_auth_token",
    "per_rpc_creds",
];

/// Starts a token endpoint (RFC 7523) that returns the assertion of a service account as its token.
fn issuer() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            issue(&stream.expect("a client")).expect("a request for a token");
        }
    });
    port
}

fn issue(mut stream: &TcpStream) -> io::Result<()> {
    let mut request = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        request.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().expect("a number");
        }
        if line.is_empty() {
            break;
        }
    }
    let mut form = String::new();
    request.take(length).read_to_string(&mut form)?;
    let assertion = form.split('&').find_map(|it| it.strip_prefix("assertion="));
    let token = json!({"access_token": assertion, "token_type": "Bearer", "expires_in": 3600});
    let token = token.to_string();
    let length = token.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{token}"
    )
}

#[test]
fn our_server_knows_the_service_accounts_of_the_official_go_client() {
    let Some(certificates) = GoCertificates::find() else {
        return;
    };
    let identity = ["server1.pem", "server1.key"].map(|name| certificates.file(name));
    // Any RSA key does: nobody checks the signature.
    let key = fs::read_to_string(&identity[1]).expect("a key");
    let account = json!({
        "type": "service_account",
        "client_email": "tester@trunkline.example",
        "private_key_id": "1",
        "private_key": key,
        "token_uri": format!("http://127.0.0.1:{}/token", issuer()),
    });
    let files = Files::new("service-account");
    let port = our_server_with(move |server| {
        server.tls(ServerTls::from_files(&identity[0], &identity[1]).expect("grpc-go's identity"))
    });
    let flags = [
        "--use_tls".to_owned(),
        "--use_test_ca".to_owned(),
        format!("--ca_file={}", certificates.file("ca.pem")),
        format!("--server_host_override={NAME}"),
        format!(
            "--service_account_key_file={}",
            files.put("account.json", &account.to_string())
        ),
        "--oauth_scope=https://trunkline.example/tests".to_owned(),
    ];
    run_client_with(Peer::GoInteropClient, port, &CASES, &flags);
}
