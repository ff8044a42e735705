//! A fleet of servers in memory, under a steady load. With tokio's paused clock, computing takes no time, so
//! the duration of a call is that of its handler, its pauses and its timeout.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use trunkline::server::Methods;
use trunkline::testing::{Faults, FaultyStream};
use trunkline::{Address, Client, Code, Method, Raw, Request, Result, Server, Service, Status};
use trunkline_testkit::within;

const METHOD: Method = Method::new("/test.Fleet/Work");

/// The timeout of each call.
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);

/// The bytes that a connection holds in each direction.
const PIPE_SIZE: usize = 64 * 1024;

/// The behavior of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Behavior {
    /// Responds after 5 to 15 ms.
    #[default]
    Good,
    /// Ends each call with this code at once.
    Fails(Code),
    /// Responds after 500 ms.
    Slow,
    /// Neither receives nor sends anything.
    BlackHole,
}

/// The servers, at 10.0.0.1:80, 10.0.0.2:80 and so on. Clones are the same fleet.
#[derive(Clone)]
pub(super) struct Fleet(Arc<Vec<FleetServer>>);

/// One server of a fleet. Clones are the same server.
#[derive(Clone, Default)]
pub(super) struct FleetServer(Arc<State>);

#[derive(Default)]
struct State {
    behavior: Mutex<Behavior>,
    attempts: AtomicUsize,
    faults: Faults,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<FaultyStream<DuplexStream>>> + Send>>;

impl Fleet {
    pub(super) fn new(servers: usize) -> Self {
        Self(Arc::new(
            (0..servers).map(|_| FleetServer::default()).collect(),
        ))
    }

    pub(super) fn servers(&self) -> &[FleetServer] {
        &self.0
    }

    pub(super) fn address(&self, server: usize) -> Address {
        assert!(server < self.0.len(), "no server {server}");
        let last = u8::try_from(server + 1).expect("a small fleet");
        Address::Tcp(([10, 0, 0, last], 80).into())
    }

    pub(super) fn addresses(&self) -> Vec<Address> {
        (0..self.0.len()).map(|it| self.address(it)).collect()
    }

    /// The number of attempts that each server has received.
    pub(super) fn attempts(&self) -> Vec<usize> {
        self.0.iter().map(FleetServer::attempts).collect()
    }

    /// Connects to the servers, each of which has `settings`.
    pub(super) fn connector(
        &self,
        settings: Server,
    ) -> impl Fn(Address) -> Connecting + Send + Sync + 'static {
        let fleet = self.clone();
        move |address| {
            let position = fleet.addresses().iter().position(|it| *it == address);
            let server = position.map(|at| fleet.0[at].clone());
            let Some(server) = server else {
                return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) });
            };
            let serving = settings.clone().add_service(server.clone());
            server.0.faults.connector(move |_| {
                let serving = serving.clone();
                async move {
                    let (near, far) = tokio::io::duplex(PIPE_SIZE);
                    tokio::spawn(serving.serve_connection(far));
                    Ok(near)
                }
            })(address)
        }
    }
}

impl FleetServer {
    pub(super) fn attempts(&self) -> usize {
        self.0.attempts.load(Ordering::Relaxed)
    }

    pub(super) fn behave(&self, behavior: Behavior) {
        match behavior {
            Behavior::BlackHole => self.0.faults.black_hole(),
            _ => self.0.faults.restore(),
        }
        *self
            .0
            .behavior
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = behavior;
    }

    async fn work(&self, request: Raw) -> Result<Raw> {
        let attempt = self.0.attempts.fetch_add(1, Ordering::Relaxed) as u64;
        let behavior = *self
            .0
            .behavior
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let pause = match behavior {
            Behavior::Good | Behavior::BlackHole => 5 + attempt * 7 % 11,
            Behavior::Slow => 500,
            Behavior::Fails(code) => return Err(Status::new(code, "the server is bad")),
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        Ok(request)
    }
}

impl Service for FleetServer {
    const NAME: &'static str = "test.Fleet";

    fn add_to(self, methods: &mut Methods) {
        methods.unary(
            METHOD,
            &Arc::new(self),
            |server, request: Request<Raw>| async move { server.work(request.into_inner()).await },
        );
    }
}

/// The calls of a load, and their outcomes.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// The duration of each call, failed calls included.
    pub(super) durations: Vec<Duration>,
    pub(super) failures: Vec<Status>,
}

/// A load that goes on until it is stopped.
pub(super) struct RunningLoad {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Load>,
}

impl Load {
    /// Starts to make `rate` calls a second, a divisor of 1,000, independently of the duration of calls.
    pub(super) fn start(client: &Client, rate: u32) -> RunningLoad {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(client.clone(), rate, stopped));
        RunningLoad { stop, task }
    }

    fn add(&mut self, (duration, result): (Duration, Result<()>)) {
        self.durations.push(duration);
        self.failures.extend(result.err());
    }
}

impl RunningLoad {
    /// Stops the load after `time`, and waits for its last calls.
    pub(super) async fn stop_after(self, time: Duration) -> Load {
        tokio::time::sleep(time).await;
        self.stop().await
    }

    /// Stops the load, and waits for its last calls.
    pub(super) async fn stop(self) -> Load {
        assert!(self.stop.send(()).is_ok(), "the load has ended");
        let load = within("the last calls", self.task).await;
        load.expect("no panic")
    }
}

async fn run(client: Client, rate: u32, mut stop: oneshot::Receiver<()>) -> Load {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    let (mut load, mut running) = (Load::default(), JoinSet::new());
    while stop.try_recv().is_err() {
        ticks.tick().await;
        while let Some(call) = running.try_join_next() {
            load.add(call.expect("no panic"));
        }
        running.spawn(call(client.clone()));
    }
    while let Some(call) = running.join_next().await {
        load.add(call.expect("no panic"));
    }
    load
}

async fn call(client: Client) -> (Duration, Result<()>) {
    let began = Instant::now();
    let call = client.unary::<Raw, Raw>(METHOD, Raw("x".into()));
    let result = call.timeout(TIMEOUT).await;
    (began.elapsed(), result.map(drop))
}
