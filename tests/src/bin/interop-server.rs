//! The interop server of `trunkline`, with the flags that every implementation's has. It writes `port N` when it listens.
//!
//! With `--use_tls` it needs `--tls_cert_file` and `--tls_key_file`. The secrets of its connections go to the file that
//! `SSLKEYLOGFILE` names, if it is set.

use std::process::ExitCode;

use trunkline::tls::ServerTls;
use trunkline_tests::flags::Flags;
use trunkline_tests::test_service;

const FLAGS: &[(&str, &str)] = &[
    ("port", "10000"),
    ("use_tls", "false"),
    ("tls_cert_file", ""),
    ("tls_key_file", ""),
    ("use_alts", "false"),
    ("alts_handshaker_service_address", ""),
    ("address_type", "IPV4_IPV6"),
    ("max_concurrent_streams_limit", "0"),
];

#[tokio::main]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), String> {
    let flags = Flags::parse(std::env::args().skip(1), FLAGS)?;
    flags.refuse(&["use_alts", "alts_handshaker_service_address"])?;
    let host = match flags.text("address_type") {
        "IPV4" => "0.0.0.0",
        // Takes IPv4 connections, too, wherever the system has not been told otherwise.
        "IPV6" | "IPV4_IPV6" => "[::]",
        other => {
            return Err(format!(
                "--address_type is IPV4, IPV6 or IPV4_IPV6, not {other:?}"
            ));
        }
    };
    let mut server = test_service::server();
    if flags.is_on("use_tls")? {
        let files = (flags.text("tls_cert_file"), flags.text("tls_key_file"));
        let tls = ServerTls::from_files(files.0, files.1)
            .map_err(|status| format!("--tls_cert_file, --tls_key_file: {}", status.message()))?;
        server = server.tls(tls.key_log());
    }
    let limit = flags.number("max_concurrent_streams_limit")?;
    if limit > 0 {
        server = server.max_concurrent_streams(limit);
    }
    let address = format!("{host}:{}", flags.number("port")?);
    let bound = server
        .bind(&address)
        .await
        .map_err(|status| status.message().to_owned())?;
    let port = bound.local_addr().tcp().map_or(0, |address| address.port());
    println!("port {port}");
    bound
        .serve()
        .await
        .map_err(|status| status.message().to_owned())
}
