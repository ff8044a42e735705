//! The channel watches the health and the load of its servers.

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use trunkline::channel::ConnectivityState;
use trunkline::server::{LoadReports, Methods};
use trunkline::{
    Address, Channel, ChannelBuilder, Client, Code, LoadReport, Method, Raw, Request, Result,
    Sender, Server, Service, Status,
};
use trunkline_health::Health;
use trunkline_testkit::{Probe, within};

const A: &str = "10.0.0.1:1";
const B: &str = "10.0.0.2:1";
const CONFIG: &str =
    r#"{"loadBalancingPolicy": "round_robin", "healthCheckConfig": {"serviceName": "s"}}"#;

/// A channel to servers in memory.
fn channel(servers: Vec<(&'static str, Server)>) -> ChannelBuilder {
    let names: Vec<&str> = servers.iter().map(|(name, _)| *name).collect();
    Channel::to(names).connector(move |address: Address| {
        let server = servers
            .iter()
            .find(|(name, _)| *name == address.to_string());
        let server = server.map(|(_, server)| server.clone());
        async move {
            let (near, far) = tokio::io::duplex(64 << 10);
            if let Some(server) = server {
                tokio::spawn(async move { server.serve_connection(far).await });
            }
            Ok(near)
        }
    })
}

async fn echo(client: &Client) -> Result<()> {
    let call = client.unary::<Raw, Raw>(Probe::ECHO, Raw("x".into()));
    within("a call", call.into_future()).await.map(drop)
}

/// A health service that ends each watch after what it is told to report.
#[derive(Clone)]
struct Watches {
    begun: Arc<AtomicUsize>,
    /// The status, or `None` for a server that does not know the method.
    status: watch::Receiver<Option<u8>>,
    lasts: Duration,
}

impl Service for Watches {
    const NAME: &'static str = "grpc.health.v1.Health";

    fn add_to(self, methods: &mut Methods) {
        let method = Method::new("/grpc.health.v1.Health/Watch");
        methods.server_streaming(method, &Arc::new(self), Self::watch);
    }
}

impl Watches {
    fn new(status: Option<u8>, lasts: Duration) -> (Self, watch::Sender<Option<u8>>) {
        let (sender, status) = watch::channel(status);
        let begun = Arc::default();
        (
            Self {
                begun,
                status,
                lasts,
            },
            sender,
        )
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    async fn watch(
        self: Arc<Self>,
        request: Request<Raw>,
        mut responses: Sender<Raw>,
    ) -> Result<()> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        assert_eq!(&request.0[..], [0x0a, 1, b's']);
        let status = *self.status.borrow();
        let status = status.ok_or_else(|| Status::unimplemented("no such method"))?;
        responses.send(Raw(vec![8, status].into())).await?;
        tokio::time::sleep(self.lasts).await;
        Err(Status::unavailable("enough"))
    }
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn servers_that_are_not_healthy_receive_no_calls_until_they_are() -> Result<()> {
    let (a, b) = (Probe::new(), Probe::new());
    let healths = [Health::new(), Health::new()];
    let server = |probe: &Probe, at: usize| {
        Server::new()
            .add_service(probe.clone())
            .add_service(healths[at].clone())
    };
    healths[0].set_not_serving("s");
    healths[1].set_serving("s");
    let channel = channel(vec![(A, server(&a, 0)), (B, server(&b, 1))]);
    let channel = channel.service_config(CONFIG).connect().await?;
    let client = Client::new(channel.clone());
    settle().await;
    for _ in 0..10 {
        echo(&client).await?;
    }
    assert_eq!((a.counts().called, b.counts().called), (0, 10));
    healths[0].set_serving("s");
    settle().await;
    for _ in 0..10 {
        echo(&client).await?;
    }
    assert_eq!((a.counts().called, b.counts().called), (5, 15));
    for health in &healths {
        health.set_not_serving("s");
    }
    settle().await;
    let status = echo(&client).await.expect_err("no server is healthy");
    assert_eq!(status.code(), Code::UNAVAILABLE);
    assert!(
        status
            .message()
            .contains("the service \"s\" is not healthy: NOT_SERVING"),
        "{status}"
    );
    healths[1].set_serving("s");
    settle().await;
    echo(&client).await?;
    assert_eq!(channel.state(), ConnectivityState::Ready);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_server_without_the_health_service_is_healthy_and_asked_once() -> Result<()> {
    let (watches, _status) = Watches::new(None, Duration::ZERO);
    let server = Server::new()
        .add_service(Probe::new())
        .add_service(watches.clone());
    let channel = channel(vec![(A, server)]).service_config(CONFIG);
    let client = Client::new(channel.connect_lazy()?);
    for _ in 0..3 {
        echo(&client).await?;
        tokio::time::sleep(Duration::from_secs(300)).await;
    }
    assert_eq!(watches.begun(), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_is_a_failure_and_begins_again_after_a_pause() -> Result<()> {
    let lasts = Duration::from_millis(100);
    let (watches, status) = Watches::new(Some(1), lasts);
    let server = Server::new()
        .add_service(Probe::new())
        .add_service(watches.clone());
    let channel = channel(vec![(A, server)])
        .service_config(CONFIG)
        .connect()
        .await?;
    let client = Client::new(channel.clone());
    let mut states = channel.watch_state();
    for round in 1..4 {
        within("the health", states.until(ConnectivityState::Ready)).await;
        echo(&client).await?;
        within("the end", states.until(ConnectivityState::TransientFailure)).await;
        assert_eq!(watches.begun(), round);
        let failure = echo(&client).await.expect_err("the health is not known");
        assert!(
            failure.message().contains("the health check ended: enough"),
            "{failure}"
        );
    }
    // Pauses grow while the server reports nothing.
    status.send_replace(None);
    within(
        "a server without the service",
        states.until(ConnectivityState::Ready),
    )
    .await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn health_is_not_watched_at_the_top_nor_if_the_channel_disables_it() -> Result<()> {
    let pick_first = CONFIG.replace("round_robin", "pick_first");
    for (config, enabled) in [(&*pick_first, true), (CONFIG, false)] {
        let (watches, _status) = Watches::new(Some(2), Duration::from_secs(1000));
        let server = Server::new()
            .add_service(Probe::new())
            .add_service(watches.clone());
        let channel = channel(vec![(A, server)]).service_config(config);
        echo(&Client::new(channel.health_checks(enabled).connect_lazy()?)).await?;
        settle().await;
        assert_eq!(watches.begun(), 0, "{config}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_watches_health_becomes_idle_each_time_it_is_unused() -> Result<()> {
    let server = Server::new()
        .add_service(Probe::new())
        .add_service(Health::new());
    let config = CONFIG.replace("\"s\"", "\"\"");
    let channel = channel(vec![(A, server)])
        .service_config(&config)
        .connect_lazy()?;
    let client = Client::new(channel.clone());
    let mut states = channel.watch_state();
    for _ in 0..3 {
        echo(&client).await?;
        assert_eq!(channel.state(), ConnectivityState::Ready);
        let idle = states.until(ConnectivityState::Idle);
        let idle = tokio::time::timeout(Duration::from_secs(3 * 3600), idle).await;
        assert_eq!(idle.expect("nobody calls"), ConnectivityState::Idle);
        assert_eq!(channel.connection_stats().len(), 0);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn load_reports_apart_from_calls_decide_the_shares_of_servers() -> Result<()> {
    let (a, b) = (Probe::new(), Probe::new());
    let reporting = |probe: &Probe, utilization: f64| {
        let reports = LoadReports::new().min_interval(Duration::from_secs(1));
        let mut report = LoadReport::default();
        report.application_utilization = utilization;
        report.rps_fractional = 100.0;
        reports.set(report);
        let server = Server::new()
            .add_service(probe.clone())
            .add_service(reports.clone());
        (server, reports)
    };
    let ((server_a, _held_a), (server_b, _held_b)) = (reporting(&a, 0.8), reporting(&b, 0.2));
    let config = r#"{"loadBalancingConfig": [{"weighted_round_robin": {
        "enableOobLoadReport": true, "oobReportingPeriod": "1s", "blackoutPeriod": "0s"}}]}"#;
    let channel = channel(vec![(A, server_a), (B, server_b)]).service_config(config);
    let client = Client::new(channel.connect().await?);
    tokio::time::sleep(Duration::from_secs(5)).await;
    for _ in 0..100 {
        echo(&client).await?;
    }
    assert!((18..=22).contains(&a.counts().called), "{:?}", a.counts());
    Ok(())
}
