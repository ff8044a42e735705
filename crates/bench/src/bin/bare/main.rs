//! Bare h2 in its best shape: the floor of the comparison.
//!
//! The least code that serves and calls the four methods: no framework, no timeouts, no metadata, no
//! errors beyond the end of a call or of the connection. What it does take is what makes h2 fast: one
//! task for a connection and all of its calls, one write for all they have to say, one read of up to
//! 64 KiB, and no copy of a large payload.

mod calls;
mod client;
mod message;
mod server;
mod slots;
mod wire;

use std::io::Write as _;
use std::process::exit;

use tokio::net::TcpListener;

const USAGE: &str = "usage: bare server --port N
       bare client --target 127.0.0.1:PORT --calls N --in-flight K [--payload BYTES]";

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.split_first() {
        Some((&"server", rest)) => {
            let [port] = options(rest, ["--port"]);
            serve(number(port, "--port")).await;
        }
        Some((&"client", rest)) => {
            let names = ["--target", "--calls", "--in-flight", "--payload"];
            let [target, calls, in_flight, payload] = options(rest, names);
            client::run(
                required(target, "--target"),
                number(calls, "--calls"),
                number(in_flight, "--in-flight"),
                number(payload.or(Some("16")), "--payload"),
            )
            .await;
        }
        Some((mode, _)) => refuse(&format!("unknown mode {mode}")),
        None => refuse("no mode given"),
    }
}

async fn serve(port: u16) {
    let bound = TcpListener::bind(("127.0.0.1", port)).await;
    let Ok(listener) = bound else {
        refuse(&format!("cannot listen on port {port}"));
    };
    if let Ok(address) = listener.local_addr() {
        println!("listening {address}");
    }
    let _ = std::io::stdout().flush();
    loop {
        if let Ok((tcp, _)) = listener.accept().await {
            let _ = tcp.set_nodelay(true);
            tokio::spawn(server::connection(tcp));
        }
    }
}

fn options<'a, const N: usize>(arguments: &[&'a str], names: [&str; N]) -> [Option<&'a str>; N] {
    let mut values = [None; N];
    for pair in arguments.chunks(2) {
        let Some(at) = names.iter().position(|name| *name == pair[0]) else {
            refuse(&format!("unknown option {}", pair[0]));
        };
        let Some(value) = pair.get(1) else {
            refuse(&format!("{} needs a value", pair[0]));
        };
        values[at] = Some(*value);
    }
    values
}

fn required<'a>(value: Option<&'a str>, name: &str) -> &'a str {
    value.unwrap_or_else(|| refuse(&format!("{name} is missing")))
}

fn number<T: std::str::FromStr>(value: Option<&str>, name: &str) -> T {
    required(value, name)
        .parse()
        .unwrap_or_else(|_| refuse(&format!("{name} is not a number in range")))
}

fn refuse(what: &str) -> ! {
    eprintln!("{what}\n{USAGE}");
    exit(2)
}
