//! Resolvers, policies and pickers of users, and their panics.

use std::future::IntoFuture;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use trunkline::balancing::serde_json::Value;
use trunkline::balancing::{
    Balancer, Control, Pick, PickArgs, PickResult, Picker, Policies, Policy, PolicyConfig,
    Subchannel, SubchannelId, SubchannelState, Update,
};
use trunkline::channel::{
    ConnectivityState, Endpoint, Resolution, Resolver, TargetUri, Updates, Verdict,
};
use trunkline::{Address, Channel, Client, Code, Raw, Response, Result, Status};
use trunkline_testkit::{MemoryNet, Probe, within};

const A: &str = "10.0.0.1:1";
const B: &str = "10.0.0.2:1";

async fn echo(client: &Client) -> Result<Response<Raw>> {
    let call = client.unary::<Raw, Raw>(Probe::ECHO, Raw("x".into()));
    within("a call", call.into_future()).await
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

fn endpoint(text: &str) -> Endpoint {
    Endpoint::new(Address::Tcp(text.parse().expect("an address")))
}

/// A registry in this process.
struct Registry {
    lists: watch::Receiver<Vec<&'static str>>,
    verdicts: Arc<Mutex<Vec<Verdict>>>,
}

impl Resolver for Registry {
    fn schemes(&self) -> &[&str] {
        &["registry"]
    }

    fn start(
        &self,
        _: &TargetUri,
        mut updates: Updates,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (mut lists, verdicts) = (self.lists.clone(), self.verdicts.clone());
        async move {
            loop {
                let list = lists.borrow_and_update().clone();
                match list[..] {
                    ["panics"] => panic!("in the resolver"),
                    ["ends"] => return,
                    _ => {}
                }
                let endpoints = list.into_iter().map(endpoint).collect();
                let verdict = updates.put(Resolution::new(endpoints)).await;
                verdicts.lock().expect("no panic").push(verdict);
                if lists.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_pushes_its_servers_and_learns_which_lists_are_refused() {
    let (net, a, b) = (MemoryNet::default(), Probe::new(), Probe::new());
    net.serve(A, &a);
    net.serve(B, &b);
    let (list, lists) = watch::channel(vec![A]);
    let verdicts = Arc::<Mutex<Vec<Verdict>>>::default();
    let registry = Registry {
        lists,
        verdicts: verdicts.clone(),
    };
    let builder = Channel::to("Registry:///orders").resolver(registry);
    let channel = builder.round_robin().connector(net.connector());
    let client = Client::new(channel.connect_lazy().expect("a target"));
    for _ in 0..4 {
        echo(&client).await.expect("a response");
    }
    list.send_replace(vec![B]);
    settle().await;
    for _ in 0..4 {
        echo(&client).await.expect("a response");
    }
    assert_eq!((a.counts().called, b.counts().called), (4, 4));
    list.send_replace(Vec::new());
    settle().await;
    let status = echo(&client).await.expect_err("no server");
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
    assert!(status.message().contains("no addresses"), "{status}");
    list.send_replace(vec![A]);
    settle().await;
    echo(&client).await.expect("a response");
    let verdicts = verdicts.lock().expect("no panic");
    let used = verdicts.iter().map(|it| matches!(it, Verdict::Used));
    assert_eq!(used.collect::<Vec<_>>(), [true, true, false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_panics_or_ends_loses_no_server_and_starts_again() {
    for (first, words) in [
        ("panics", "the resolver has panicked"),
        ("ends", "has ended without"),
    ] {
        a_resolver_starts_again(first, words).await;
    }
}

async fn a_resolver_starts_again(first: &'static str, words: &str) {
    let (net, probe) = (MemoryNet::default(), Probe::new());
    net.serve(A, &probe);
    let (list, lists) = watch::channel(vec![first]);
    let registry = Registry {
        lists,
        verdicts: Arc::default(),
    };
    let builder = Channel::to("registry:orders").resolver(registry);
    let channel = builder.connector(net.connector()).connect_lazy();
    let client = Client::new(channel.expect("a target"));
    let status = echo(&client).await.expect_err("no server is known");
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
    assert!(status.message().contains(words), "{status}");
    list.send_replace(vec![A]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    echo(&client).await.expect("a response");
    list.send_replace(vec![first]);
    settle().await;
    echo(&client).await.expect("the server that was known");
}

#[tokio::test]
async fn a_target_with_a_resolver_stands_alone_and_has_an_authority() {
    let builder = |targets: &[&str]| {
        let (_, lists) = watch::channel(Vec::new());
        let registry = Registry {
            lists,
            verdicts: Arc::default(),
        };
        Channel::to(targets).resolver(registry).connect_lazy()
    };
    for (targets, words) in [
        (&["registry:a", "b:1"][..], "must be the only target"),
        (&["registry:a%2"], "two hexadecimal digits"),
        (&["registry:a b"], "is not an authority"),
        (&["registre:a"], "registre"),
    ] {
        let status = builder(targets).expect_err("no channel");
        assert_eq!(status.code(), Code::INVALID_ARGUMENT, "{status}");
        assert!(status.message().contains(words), "{status}");
    }
}

/// A policy that connects to all endpoints and uses the last, in the mood that is set.
#[derive(Clone)]
struct Last {
    name: &'static str,
    mood: Arc<AtomicUsize>,
}

const UPDATE_PANICS: usize = 1;
const PICK_PANICS: usize = 2;
const PICK_FAILS: usize = 3;
const PICK_DROPS: usize = 4;
/// Drops the first call of two.
const PICK_DROPS_ONCE: usize = 5;

struct LastBalancer {
    subchannels: Vec<Subchannel>,
    mood: Arc<AtomicUsize>,
}

struct LastPicker(Subchannel, Arc<AtomicUsize>);

impl Policy for Last {
    fn name(&self) -> &str {
        self.name
    }

    fn parse(&self, _: &Value, _: &Policies) -> Result<PolicyConfig> {
        Ok(Arc::new(()))
    }

    fn build(&self) -> Box<dyn Balancer> {
        Box::new(LastBalancer {
            subchannels: Vec::new(),
            mood: self.mood.clone(),
        })
    }
}

impl Balancer for LastBalancer {
    fn update(&mut self, update: Update<'_>, control: &mut dyn Control) -> Result<()> {
        assert_ne!(self.mood.load(Ordering::Relaxed), UPDATE_PANICS);
        let endpoints = update.endpoints.map_err(Status::clone)?;
        self.subchannels = endpoints
            .iter()
            .map(|it| control.create_subchannel(&it.addresses()[0], it.attributes()))
            .collect();
        self.subchannels.iter().for_each(|it| control.connect(it));
        Ok(())
    }

    fn subchannel_changed(
        &mut self,
        id: SubchannelId,
        state: &SubchannelState,
        control: &mut dyn Control,
    ) {
        let Some(last) = self.subchannels.last().filter(|it| it.id() == id) else {
            return;
        };
        if state.connectivity == ConnectivityState::Ready {
            let picker = LastPicker(last.clone(), self.mood.clone());
            control.publish(ConnectivityState::Ready, Picker::Custom(Arc::new(picker)));
        }
    }

    fn exit_idle(&mut self, _: &mut dyn Control) {}
}

impl Pick for LastPicker {
    fn pick(&self, call: &PickArgs<'_>) -> PickResult {
        assert_eq!(call.path, "/test.Probe/Echo");
        match self.1.load(Ordering::Relaxed) {
            PICK_PANICS => panic!("in the picker"),
            PICK_FAILS => PickResult::Fail(Arc::new(Status::not_found("no zone"))),
            PICK_DROPS_ONCE => {
                self.1.store(0, Ordering::Relaxed);
                PickResult::Drop(Arc::new(Status::unavailable("dropped")))
            }
            PICK_DROPS => PickResult::Drop(Arc::new(Status::unavailable("dropped"))),
            _ => self.0.clone().into(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_a_user_chooses_and_its_panics_are_statuses() {
    let (net, a, b) = (MemoryNet::default(), Probe::new(), Probe::new());
    net.serve(A, &a);
    net.serve(B, &b);
    let mood = Arc::new(AtomicUsize::new(0));
    let policy = Last {
        name: "last",
        mood: mood.clone(),
    };
    let builder = Channel::to([A, B]).policy(policy).use_policy("last");
    let channel = builder.connector(net.connector()).connect_lazy();
    let client = Client::new(channel.expect("a policy"));
    for _ in 0..3 {
        echo(&client).await.expect("a response");
    }
    assert_eq!((a.counts().called, b.counts().called), (0, 3));
    for (now, code, words) in [
        (PICK_PANICS, Code::INTERNAL, "the picker panicked"),
        (PICK_FAILS, Code::INTERNAL, "no zone"),
        (PICK_DROPS, Code::UNAVAILABLE, "dropped"),
    ] {
        mood.store(now, Ordering::Relaxed);
        let status = echo(&client).await.expect_err("no subchannel");
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(words), "{status}");
        let waiting = client.unary::<Raw, Raw>(Probe::ECHO, Raw("x".into()));
        let waiting = waiting.wait_for_ready().timeout(Duration::from_secs(5));
        let status = waiting.await.expect_err("no subchannel");
        // gRFC A6 and the document on wait-for-ready: a call that waits is not failed by the picker, but dropped.
        let expected = if now == PICK_FAILS {
            Code::DEADLINE_EXCEEDED
        } else {
            code
        };
        assert_eq!(status.code(), expected, "{status}");
    }
    // A picker is asked once whether it drops a call.
    mood.store(PICK_DROPS_ONCE, Ordering::Relaxed);
    echo(&client).await.expect_err("dropped");
    echo(&client).await.expect("a response");
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_panics_is_built_again() {
    let (net, probe) = (MemoryNet::default(), Probe::new());
    net.serve(A, &probe);
    let mood = Arc::new(AtomicUsize::new(UPDATE_PANICS));
    let policy = Last {
        name: "last",
        mood: mood.clone(),
    };
    let builder = Channel::to(A).policy(policy).use_policy("last");
    let channel = builder.connector(net.connector()).connect_lazy();
    let channel = channel.expect("a policy");
    let client = Client::new(channel.clone());
    let status = echo(&client).await.expect_err("a panic");
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
    assert!(
        status.message().contains("policy last panicked"),
        "{status}"
    );
    assert_eq!(channel.state(), ConnectivityState::TransientFailure);
    mood.store(0, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(3)).await;
    echo(&client).await.expect("a response");
}

#[tokio::test]
async fn policies_have_names_of_their_own_and_are_known() {
    let policy = |name| Last {
        name,
        mood: Arc::default(),
    };
    for (added, used, words) in [
        ("round_robin", "round_robin", "exists already"),
        ("", "", "needs a name"),
        ("last", "lost", "lost"),
    ] {
        let builder = Channel::to(A).policy(policy(added)).use_policy(used);
        let status = builder.connect_lazy().expect_err("no channel");
        assert_eq!(status.code(), Code::INVALID_ARGUMENT, "{status}");
        assert!(status.message().contains(words), "{status}");
    }
}

/// Outside of a runtime, nothing can connect: a call waits, and does not spin.
#[test]
fn a_call_outside_of_a_runtime_waits() {
    let channel = Channel::to(A).connect_lazy().expect("a target");
    let client = Client::new(channel);
    let mut call = std::pin::pin!(
        client
            .unary::<Raw, Raw>(Probe::ECHO, Raw("x".into()))
            .into_future()
    );
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(call.as_mut().poll(&mut cx).is_pending());
}
