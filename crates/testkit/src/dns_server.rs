//! A DNS server on a UDP port of this machine.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

/// The records of a name.
#[derive(Clone, Debug, Default)]
pub struct DnsRecords {
    /// Those of types A and AAAA.
    pub addresses: Vec<IpAddr>,
    /// Those of type TXT, each of one or several strings of 255 bytes.
    pub texts: Vec<String>,
}

/// A response of a server to questions about a name.
#[derive(Clone, Debug)]
enum Response {
    Records(DnsRecords),
    ServFail,
    Silence,
}

/// A DNS server whose names a test changes while it runs. Records have a TTL of zero. Other names are NXDOMAIN.
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct State {
    names: HashMap<String, Response>,
    /// The names and types that were asked for, in order.
    asked: Vec<(String, u16)>,
}

const A: u16 = 1;
const TXT: u16 = 16;
const AAAA: u16 = 28;

const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

impl DnsServer {
    /// Listens on a free port.
    ///
    /// # Panics
    ///
    /// When the machine has no port left.
    pub async fn bind() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("a bound socket has one");
        let state = Arc::<Mutex<State>>::default();
        let served = state.clone();
        let task = tokio::spawn(async move {
            let mut question = [0; 1500];
            while let Ok((len, from)) = socket.recv_from(&mut question).await {
                if let Some(response) = respond(&question[..len], &served) {
                    let _ = socket.send_to(&response, from).await;
                }
            }
        });
        Self {
            address,
            state,
            task: task.abort_handle(),
        }
    }

    /// The address of the server, as targets name it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the records of a name.
    pub fn set(&self, name: &str, records: DnsRecords) {
        self.put(name, Response::Records(records));
    }

    /// Sets the addresses of a name.
    pub fn set_addresses(&self, name: &str, addresses: &[IpAddr]) {
        let addresses = addresses.to_vec();
        self.set(
            name,
            DnsRecords {
                addresses,
                ..DnsRecords::default()
            },
        );
    }

    /// Sets the texts of a name.
    pub fn set_texts(&self, name: &str, texts: &[&str]) {
        let texts = texts.iter().map(|it| (*it).to_owned()).collect();
        self.set(
            name,
            DnsRecords {
                texts,
                ..DnsRecords::default()
            },
        );
    }

    /// Responds to questions about the name with SERVFAIL.
    pub fn fail(&self, name: &str) {
        self.put(name, Response::ServFail);
    }

    /// Does not respond to questions about the name.
    pub fn silence(&self, name: &str) {
        self.put(name, Response::Silence);
    }

    /// The number of questions about the name so far.
    pub fn asked(&self, name: &str) -> usize {
        let state = lock(&self.state);
        state
            .asked
            .iter()
            .filter(|(asked, _)| asked == name)
            .count()
    }

    fn put(&self, name: &str, response: Response) {
        lock(&self.state).names.insert(name.to_owned(), response);
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The response to a message with one question (RFC 1035, section 4).
fn respond(message: &[u8], state: &Mutex<State>) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + len)?).to_ascii_lowercase());
        at += len;
    }
    let kind = u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?);
    let question = message.get(12..at + 4)?;
    let name = labels.join(".");
    let mut state = lock(state);
    state.asked.push((name.clone(), kind));
    let (code, data) = match state.names.get(&name) {
        None => (NXDOMAIN, Vec::new()),
        Some(Response::Silence) => return None,
        Some(Response::ServFail) => (SERVFAIL, Vec::new()),
        Some(Response::Records(records)) => (0, data_of(records, kind)),
    };
    let mut response = message.get(..2)?.to_vec();
    // A response, recursion was desired and is available.
    response.extend([0x81, 0x80 | code, 0, 1]);
    response.extend((data.len() as u16).to_be_bytes());
    response.extend([0, 0, 0, 0]);
    response.extend(question);
    for data in data {
        // The name of the question.
        response.extend([0xc0, 12]);
        response.extend(kind.to_be_bytes());
        // Class IN, and a TTL of zero.
        response.extend([0, 1, 0, 0, 0, 0]);
        response.extend((data.len() as u16).to_be_bytes());
        response.extend(data);
    }
    Some(response)
}

/// The data of the records of a type.
fn data_of(records: &DnsRecords, kind: u16) -> Vec<Vec<u8>> {
    let addresses = records.addresses.iter().filter_map(|it| match (it, kind) {
        (IpAddr::V4(it), A) => Some(it.octets().to_vec()),
        (IpAddr::V6(it), AAAA) => Some(it.octets().to_vec()),
        _ => None,
    });
    let texts = records.texts.iter().filter(|_| kind == TXT).map(|text| {
        let strings = text.as_bytes().chunks(255);
        strings
            .flat_map(|it| [&[it.len() as u8], it].concat())
            .collect()
    });
    addresses.chain(texts).collect()
}
