//! The command line that every program under measurement has, for those written in Rust.
//!
//! Each takes this file in by its path: nothing but the framework may differ between them.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::process::exit;

/// What to be. What a framework has no use for stays unread.
#[allow(dead_code)]
pub enum Mode {
    Server {
        port: u16,
    },
    Client {
        target: SocketAddr,
        calls: u64,
        in_flight: u64,
        payload: usize,
        /// Of each call, which is unary if there are none.
        replies: u32,
    },
}

/// The mode, and which of the program's own `switches` are set.
pub fn parse(switches: &[&'static str]) -> (Mode, Vec<&'static str>) {
    let mut arguments = std::env::args().skip(1);
    let (mut mode, mut set) = (None, Vec::new());
    let (mut port, mut target, mut calls, mut in_flight, mut payload, mut replies) =
        (None, None, None, None, None, None);
    while let Some(name) = arguments.next() {
        if let Some(switch) = switches.iter().find(|it| **it == name) {
            set.push(*switch);
            continue;
        }
        match name.as_str() {
            "server" | "client" if mode.is_none() => mode = Some(name),
            "--port" => port = Some(value(&name, arguments.next())),
            "--target" => target = Some(value(&name, arguments.next())),
            "--calls" => calls = Some(value(&name, arguments.next())),
            "--in-flight" => in_flight = Some(value(&name, arguments.next())),
            "--payload" => payload = Some(value(&name, arguments.next())),
            "--replies" => replies = Some(value(&name, arguments.next())),
            _ => refuse(&format!("{name}: not understood")),
        }
    }
    let mode = match mode.as_deref() {
        Some("server") => Mode::Server {
            port: given("--port", port),
        },
        Some(_) => Mode::Client {
            target: given("--target", target),
            calls: given("--calls", calls),
            in_flight: given("--in-flight", in_flight),
            payload: payload.unwrap_or(16),
            replies: replies.unwrap_or(0),
        },
        None => refuse("neither server nor client"),
    };
    (mode, set)
}

fn value<T: std::str::FromStr>(name: &str, text: Option<String>) -> T {
    let Some(text) = text else {
        refuse(&format!("{name}: value missing"))
    };
    match text.parse() {
        Ok(value) => value,
        Err(_) => refuse(&format!("{name} {text}: not understood")),
    }
}

fn given<T>(name: &str, value: Option<T>) -> T {
    value.unwrap_or_else(|| refuse(&format!("{name} is missing")))
}

/// Ends the program: the command line asks for what it does not do.
pub fn refuse(why: &str) -> ! {
    eprintln!("{why}");
    exit(2)
}

/// Tells who started a server that it listens.
pub fn say_listening(address: SocketAddr) {
    println!("listening {address}");
    std::io::stdout().flush().expect("stdout takes a line");
}

/// Says how far a client is, and waits until that has been noted.
#[allow(dead_code)]
pub fn say_and_wait(word: &str) {
    println!("{word}");
    std::io::stdout().flush().expect("stdout takes a line");
    std::io::stdin()
        .lock()
        .read_line(&mut String::new())
        .expect("stdin gives a line");
}
