//! A server and a client under test by the conformance suite of the Connect project: `connect_conformance server` and
//! `connect_conformance client`. The suite talks to them over standard input and output, in messages with their length,
//! four bytes, in front.

mod client;
mod server;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use suite::{Error, Header, conformance_payload};
use trunkline::prost::Name;
use trunkline::prost_types::Any;
use trunkline::{Code, Metadata, Result, Status};

mod suite {
    trunkline::include_proto!(
        "proto/connectrpc/conformance/v1/service.proto",
        "proto/connectrpc/conformance/v1/config.proto",
        "proto/connectrpc/conformance/v1/server_compat.proto",
        "proto/connectrpc/conformance/v1/client_compat.proto",
        includes = ["proto"]
    );
}

type RequestInfo = conformance_payload::RequestInfo;

#[tokio::main]
async fn main() -> ExitCode {
    let done = match std::env::args().nth(1).as_deref() {
        Some("server") => server::run().await,
        Some("client") => client::run().await,
        _ => Err(Status::invalid_argument(
            "connect_conformance server, or connect_conformance client",
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The next message of the suite; `None` at the end.
fn read<M: prost::Message + Default>() -> Option<M> {
    let mut stdin = io::stdin().lock();
    let mut length = [0; 4];
    stdin.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    stdin.read_exact(&mut bytes).ok()?;
    M::decode(&bytes[..]).ok()
}

fn write(message: &impl prost::Message) -> Result<()> {
    let bytes = message.encode_to_vec();
    let length = (bytes.len() as u32).to_be_bytes();
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(&[&length, &bytes[..]].concat())
        .and_then(|()| stdout.flush())
        .map_err(|error| Status::internal(format!("standard output: {error}")))
}

/// Metadata as the suite has it: binary values are base64.
fn headers_of(metadata: &Metadata) -> Vec<Header> {
    let mut headers: Vec<Header> = Vec::new();
    for (key, value) in metadata.iter() {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        match headers.iter_mut().find(|it| it.name == key) {
            Some(header) => header.value.push(value),
            None => headers.push(Header {
                name: key.to_owned(),
                value: vec![value],
            }),
        }
    }
    headers
}

/// The key and the values of a header; binary ones as bytes.
fn each(headers: &[Header]) -> impl Iterator<Item = (String, &str)> {
    headers.iter().flat_map(|header| {
        let key = header.name.to_lowercase();
        header.value.iter().map(move |it| (key.clone(), &**it))
    })
}

/// The bytes of a binary value: it goes through metadata of a peer, which knows how it is encoded.
fn bytes_of(value: &str) -> Vec<u8> {
    let mut headers = http::HeaderMap::new();
    let Ok(header) = http::HeaderValue::from_str(value) else {
        return Vec::new();
    };
    headers.insert("value-bin", header);
    let bytes = Metadata::from_headers(headers).get_bin("value-bin");
    bytes.map(|it| it.to_vec()).unwrap_or_default()
}

fn error_of(status: &Status) -> Error {
    Error {
        code: status.code().as_i32(),
        message: Some(status.message().to_owned()),
        details: status.details().to_vec(),
    }
}

fn status_of(error: Error) -> Status {
    let status = Status::new(Code::from(error.code), error.message.unwrap_or_default());
    error.details.into_iter().fold(status, Status::with_any)
}

/// A message as the suite wants it back.
fn any(message: &impl Name) -> Any {
    Any::from_msg(message).expect("a vector has room")
}
