//! Addresses at which servers are found, or not, without a network.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use trunkline::{Address, Server};

use crate::probe::Probe;
use crate::raw_peer::RawPeer;
use crate::within;

/// Bytes that a connection holds in each direction.
const PIPE_SIZE: usize = 64 * 1024;

/// A network in memory: what a channel's connector finds at an address. Clones are the same one. An
/// address of which nothing was said refuses.
///
/// With it a test can stop the clock: no time passes but what somebody waits for.
#[derive(Clone, Debug)]
pub struct MemoryNet(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    began: Instant,
    places: HashMap<SocketAddr, Place>,
    dials: Vec<(Duration, SocketAddr)>,
}

#[derive(Debug)]
enum Place {
    Blackhole,
    Panics,
    Listens(mpsc::UnboundedSender<DuplexStream>),
    Serves(Probe, Vec<AbortHandle>),
}

/// An address at which a raw peer plays the server.
#[derive(Debug)]
pub struct MemoryListener(mpsc::UnboundedReceiver<DuplexStream>);

type Dialing = Pin<Box<dyn Future<Output = io::Result<DuplexStream>> + Send>>;

impl Default for MemoryNet {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            began: Instant::now(),
            places: HashMap::new(),
            dials: Vec::new(),
        })))
    }
}

impl MemoryNet {
    /// Serves `probe` there from now on.
    pub fn serve(&self, address: &str, probe: &Probe) {
        self.put(address, Some(Place::Serves(probe.clone(), Vec::new())));
    }

    /// Gives the connections to that address to a raw peer.
    pub fn listen(&self, address: &str) -> MemoryListener {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.put(address, Some(Place::Listens(sender)));
        MemoryListener(receiver)
    }

    /// Who connects there hears nothing at all.
    pub fn blackhole(&self, address: &str) {
        self.put(address, Some(Place::Blackhole));
    }

    /// The connector panics there.
    pub fn panics(&self, address: &str) {
        self.put(address, Some(Place::Panics));
    }

    /// Refuses connections there, and closes those that are served.
    pub fn refuse(&self, address: &str) {
        self.put(address, None);
    }

    /// Every attempt so far: when, from the beginning, and where to.
    pub fn dials(&self) -> Vec<(Duration, SocketAddr)> {
        self.lock().dials.clone()
    }

    /// When attempts were made so far, in seconds.
    pub fn dial_times(&self) -> Vec<f64> {
        let dials = self.dials();
        dials.iter().map(|(at, _)| at.as_secs_f64()).collect()
    }

    /// What a channel connects with.
    pub fn connector(&self) -> impl Fn(Address) -> Dialing + Send + Sync + 'static {
        let net = self.clone();
        move |address| net.dial(address)
    }

    fn dial(&self, address: Address) -> Dialing {
        let Some(address) = address.tcp() else {
            return Box::pin(async { Err(io::ErrorKind::Unsupported.into()) });
        };
        let mut state = self.lock();
        let at = state.began.elapsed();
        state.dials.push((at, address));
        let (near, far) = tokio::io::duplex(PIPE_SIZE);
        match state.places.get_mut(&address) {
            None => return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) }),
            Some(Place::Blackhole) => return Box::pin(std::future::pending()),
            Some(Place::Panics) => return Box::pin(async { panic!("in the connector") }),
            Some(Place::Listens(sender)) => drop(sender.send(far)),
            Some(Place::Serves(probe, tasks)) => {
                let server = Server::new().add_service(probe.clone());
                let serving = tokio::spawn(server.serve_connection(far));
                tasks.push(serving.abort_handle());
            }
        }
        Box::pin(async move { Ok(near) })
    }

    fn put(&self, address: &str, place: Option<Place>) {
        let address = parsed(address);
        let mut state = self.lock();
        let before = match place {
            Some(place) => state.places.insert(address, place),
            None => state.places.remove(&address),
        };
        if let Some(Place::Serves(_, tasks)) = before {
            tasks.iter().for_each(AbortHandle::abort);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryListener {
    /// The next connection, whenever it comes, on which nothing has been said.
    pub(crate) async fn next(&mut self) -> Option<DuplexStream> {
        self.0.recv().await
    }

    /// The next connection, on which nothing has been said.
    ///
    /// # Panics
    ///
    /// When none comes.
    pub async fn accept_silent(&mut self) -> DuplexStream {
        let accepted = within("a connection", self.0.recv()).await;
        accepted.expect("the net is there")
    }

    /// The next connection, with the beginning of HTTP/2 behind it.
    ///
    /// # Panics
    ///
    /// When none comes.
    pub async fn accept(&mut self) -> RawPeer<DuplexStream> {
        self.accept_with(&[]).await
    }

    /// The same, with `settings` of the server.
    ///
    /// # Panics
    ///
    /// When none comes.
    pub async fn accept_with(&mut self, settings: &[(u16, u32)]) -> RawPeer<DuplexStream> {
        RawPeer::server(self.accept_silent().await, settings).await
    }

    /// How many connections are there that nobody has accepted.
    pub fn waiting(&self) -> usize {
        self.0.len()
    }
}

fn parsed(address: &str) -> SocketAddr {
    address.parse().expect("an IP address and a port")
}
