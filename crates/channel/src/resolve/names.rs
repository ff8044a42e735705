//! The resolver of hosts, addresses and lists of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use trunkline_codec::Status;
use trunkline_transport::{Address, Target};

use super::dns_config::DnsConfig;
use super::lookup::{Answer, AnyLookup};
use super::resolver::{Resolution, Updates, Verdict};
use crate::backoff::{self, Backoff};
use crate::config::ServiceConfig;
use crate::endpoint::Endpoint;
use crate::limits::ChannelLimits;
use crate::target_address::OfTarget;

type FoundConfig = Option<Result<Arc<ServiceConfig>, Status>>;

/// Resolves a list of targets: their addresses in order, each target with those that it had last if its lookup fails.
pub(crate) struct Names {
    targets: Arc<[Arc<Target>]>,
    lookups: Arc<[AnyLookup]>,
    limits: Arc<ChannelLimits>,
    /// The time from one lookup to the next if the channel does not ask.
    every: Option<Duration>,
    dns_config: Option<DnsConfig>,
    /// The last service config that DNS has had.
    config: FoundConfig,
    /// The last addresses of each target.
    found: Vec<Vec<Address>>,
    /// The moment when each target may be looked up again.
    due: Vec<Option<Instant>>,
}

impl Names {
    pub(crate) fn new(
        targets: Arc<[Arc<Target>]>,
        lookups: Arc<[AnyLookup]>,
        limits: Arc<ChannelLimits>,
        every: Option<Duration>,
        dns_config: Option<DnsConfig>,
    ) -> Self {
        let known = targets.iter().map(|it| it.address());
        Self {
            found: known.map(|it| it.into_iter().collect()).collect(),
            due: vec![None; targets.len()],
            targets,
            lookups,
            limits,
            every,
            dns_config,
            config: None,
        }
    }

    /// Resolves until this is dropped, or until nothing is left that could change.
    pub(crate) async fn run(mut self, mut updates: Updates) {
        let mut backoff = Backoff::new(&self.limits);
        loop {
            let started = Instant::now();
            let finding = self.find_config();
            let mut failure = self.look_up(started, &mut updates).await;
            self.take_config(finding, &updates).await;
            let mut resolution = match (self.endpoints(), &failure) {
                (endpoints, Some(status)) if endpoints.is_empty() => {
                    Resolution::failed(status.clone())
                }
                (endpoints, _) => Resolution::new(endpoints),
            };
            updates.forget_requests();
            resolution.service_config = self.config.clone();
            if let Verdict::Refused(status) = updates.put(resolution).await {
                failure.get_or_insert(status);
            }
            if self.targets.iter().all(|it| it.address().is_some()) {
                return;
            }
            let interval = self.interval();
            let pause = match failure {
                None => {
                    backoff = Backoff::new(&self.limits);
                    let next = self.every.and_then(|every| started.checked_add(every));
                    match next {
                        Some(next) => drop(timeout_at(next, updates.asked()).await),
                        None => updates.asked().await,
                    }
                    interval
                }
                // The naming document leaves it to the resolver; grpc-go and grpc-core pause here as between attempts
                // to connect. Other names do not wait longer than usual for one that never has an address.
                Some(_) => {
                    let pause = backoff.pause(&self.limits, backoff::random());
                    match self.found.iter().all(Vec::is_empty) {
                        true => pause,
                        false => pause.min(interval),
                    }
                }
            };
            if let Some(at) = started.checked_add(pause) {
                sleep_until(at).await;
            }
        }
    }

    /// Starts to look for the service config in DNS, if the channel wants it.
    fn find_config(&self) -> JoinSet<Result<Option<String>, Option<Status>>> {
        let mut finding = JoinSet::new();
        if let Some(dns_config) = self.dns_config.clone() {
            let limit = self.limits.connect_timeout;
            finding.spawn(async move {
                let found = timeout(limit, dns_config.find()).await;
                found.unwrap_or(Err(None))
            });
        }
        finding
    }

    /// Stores the service config once it is found. A lookup that fails leaves the one before.
    async fn take_config(
        &mut self,
        mut finding: JoinSet<Result<Option<String>, Option<Status>>>,
        updates: &Updates,
    ) {
        match finding.join_next().await {
            Some(Ok(Ok(found))) => self.config = found.map(|json| updates.service_config(&json)),
            Some(Ok(Err(Some(rejected)))) => self.config = Some(Err(rejected)),
            None | Some(Ok(Err(None)) | Err(_)) => {}
        }
    }

    /// Looks up all names that are due, side by side. Returns the reason if some did not resolve.
    async fn look_up(&mut self, started: Instant, updates: &mut Updates) -> Option<Status> {
        let mut asked = JoinSet::new();
        for (at, target) in self.targets.iter().cloned().enumerate() {
            if self.due[at].is_none_or(|due| due <= started) {
                let limit = self.limits.connect_timeout;
                self.lookups[at].ask(&mut asked, (at, target), limit);
            }
        }
        let mut failure = None;
        let stagger = self.limits.connect_stagger;
        // A slow name does not delay the addresses of the others.
        let taken = self.take(&mut asked, started, &mut failure);
        if timeout(stagger, taken).await.is_ok() {
            return failure;
        }
        let endpoints = self.endpoints();
        if !endpoints.is_empty() {
            let mut resolution = Resolution::new(endpoints);
            resolution.is_partial = self.found.iter().any(Vec::is_empty);
            resolution.service_config = self.config.clone();
            let _ = updates.put(resolution).await;
        }
        self.take(&mut asked, started, &mut failure).await;
        failure
    }

    /// Stores the addresses of `asked` as they arrive.
    async fn take(
        &mut self,
        asked: &mut JoinSet<Answer>,
        started: Instant,
        failure: &mut Option<Status>,
    ) {
        while let Some(answer) = asked.join_next().await {
            let Ok(Answer { at, addresses }) = answer else {
                *failure = Some(Status::unavailable("the resolver has panicked"));
                continue;
            };
            match addresses {
                Err(status) => *failure = Some(status),
                Ok(addresses) => {
                    self.found[at] = addresses;
                    self.due[at] = started.checked_add(self.interval());
                }
            }
        }
    }

    /// Returns the shortest time between two lookups.
    fn interval(&self) -> Duration {
        let interval = self.limits.resolve_interval;
        self.every.map_or(interval, |every| every.min(interval))
    }

    /// Returns the endpoints of all targets whose addresses are known, in order, each once.
    fn endpoints(&self) -> Vec<Endpoint> {
        let mut known: Vec<(&Address, &Arc<Target>)> = Vec::new();
        for (target, addresses) in self.targets.iter().zip(&self.found) {
            for address in addresses {
                if !known.contains(&(address, target)) {
                    known.push((address, target));
                }
            }
        }
        let endpoint = |(address, target): (&Address, &Arc<Target>)| {
            Endpoint::new(address.clone()).with(OfTarget(target.clone()))
        };
        known.into_iter().map(endpoint).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::{Notify, mpsc};

    use super::super::resolver::PushedResolution;
    use super::*;
    use crate::balancing::Policies;
    use crate::config::config_parser::ConfigParser;

    /// Returns the seconds at which a name is looked up, of ten hours. The channel asks for a lookup every `asks`.
    async fn lookups(every: Option<u64>, asks: Option<u64>) -> Vec<u64> {
        let began = Instant::now();
        let (times, found) = mpsc::unbounded_channel();
        let lookup = AnyLookup::new(move |_: String, _: u16| {
            let _ = times.send(began.elapsed().as_secs());
            async { io::Result::Ok(vec![Address::Tcp(([10, 0, 0, 1], 1).into())]) }
        });
        let limits = Arc::new(ChannelLimits::default());
        let target = Arc::new(Target::parse("name:1").expect("a target"));
        let every = every.map(Duration::from_secs);
        let names = Names::new(
            [target].into(),
            [lookup].into(),
            limits.clone(),
            every,
            None,
        );
        let (sender, mut pushed) = mpsc::channel::<PushedResolution>(1);
        let wanted = Arc::<Notify>::default();
        let parser = ConfigParser {
            policies: Policies::default(),
            limits,
        };
        let resolving = names.run(Updates::new(sender, wanted.clone(), Arc::new(parser)));
        let puts = Arc::new(AtomicU64::new(0));
        let counted = puts.clone();
        let accepts = async move {
            while let Some(pushed) = pushed.recv().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = pushed.verdict.send(Verdict::Used);
            }
        };
        let asking = async move {
            let Some(pause) = asks.map(Duration::from_secs) else {
                return std::future::pending().await;
            };
            loop {
                tokio::time::sleep(pause).await;
                wanted.notify_one();
            }
        };
        let hours = Duration::from_secs(36_000);
        let running = async { tokio::join!(resolving, accepts, asking) };
        let _ = timeout(hours, running).await;
        let mut found = found;
        let mut times = Vec::new();
        while let Ok(time) = found.try_recv() {
            times.push(time);
        }
        assert_eq!(times.len() as u64, puts.load(Ordering::Relaxed));
        times
    }

    #[tokio::test(start_paused = true)]
    async fn names_are_looked_up_when_the_channel_asks_and_at_the_interval_of_the_user() {
        assert_eq!(lookups(None, None).await, [0]);
        assert_eq!(
            lookups(None, Some(10_000)).await,
            [0, 10_000, 20_000, 30_000]
        );
        assert_eq!(lookups(Some(15_000), None).await, [0, 15_000, 30_000]);
        assert_eq!(
            lookups(Some(15_000), Some(20_000)).await,
            [0, 15_000, 20_000, 35_000]
        );
        // Requests every second: the pause is 30 s, or the interval if that is shorter.
        assert_eq!(lookups(None, Some(1)).await.len(), 1_200);
        assert_eq!(lookups(Some(10), Some(1)).await.len(), 3_600);
        assert_eq!(lookups(Some(10), None).await.len(), 3_600);
    }
}
