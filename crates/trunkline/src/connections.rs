//! The connections of a channel to its server: which one a call takes, and when there is another.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::task::Poll;

use tokio::sync::watch;
use tokio::time::Instant;
use trunkline_codec::{Limits, Status};
use trunkline_transport::{ClientTls, Connection, Keepalive, ReadyConnection, Target};

/// A connection with this many calls is busy even if the server allows more: h2 has one lock for
/// all streams of a connection, and TCP one window for all of them. It is what servers commonly
/// allow.
const BUSY_CALLS: usize = 100;

/// How often a call that waits moves to another connection, because the server closes the one it
/// waits on.
const MOVES_MAX: usize = 3;

/// The connections to one server, up to `limits.max_connections`.
///
/// Calls go to the usable one with the fewest calls. If that one is busy, another is opened beside
/// the call, which does not ask how that goes; only a call that has to wait for a stream anyway
/// chooses again once it is there. All that a channel knows of connecting is here: [`ready`] gives
/// it a stream to be opened.
///
/// [`ready`]: Self::ready
pub(crate) struct Connections {
    target: Target,
    tls: Option<ClientTls>,
    /// What a server that is asked too often has taught all connections.
    keepalive: Keepalive,
    limits: Arc<Limits>,
    state: RwLock<State>,
    /// `State::joined`, for calls that wait.
    joined: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    open: Vec<Arc<Member>>,
    /// The one that is under way.
    attempt: Option<Attempt>,
    /// How many connections have been opened so far.
    joined: u64,
    /// When a connection was last lost, or could not be opened.
    failed: Option<Instant>,
}

/// One of several connections.
struct Member {
    connection: Connection,
    /// A call has taken it since somebody last looked.
    was_taken: AtomicBool,
}

/// An attempt to connect. It has a task of its own: calls that wait share it, however it ends, and
/// those that stop waiting do not end it.
type Attempt = watch::Receiver<Option<Result<Arc<Member>, Status>>>;

impl Connections {
    /// None is opened before the first call asks for one.
    pub(crate) fn new(target: Target, tls: Option<ClientTls>, limits: Arc<Limits>) -> Arc<Self> {
        Arc::new(Self {
            target,
            tls,
            keepalive: Keepalive::new(&limits),
            limits,
            state: RwLock::default(),
            joined: watch::Sender::default(),
        })
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Connects, unless there is a connection.
    pub(crate) async fn connect(self: &Arc<Self>) -> Result<(), Status> {
        self.first().await.map(drop)
    }

    /// A stream to be opened at once; none if a call has to wait for it.
    pub(crate) fn try_ready(self: &Arc<Self>) -> Option<ReadyConnection> {
        self.pick()?.0.connection.try_ready()
    }

    /// A stream to be opened, on a connection that there is or on a new one, before `deadline`.
    pub(crate) async fn ready(
        self: &Arc<Self>,
        deadline: Option<Instant>,
    ) -> Result<ReadyConnection, Status> {
        let Some(deadline) = deadline else {
            return self.find().await;
        };
        // The call has its deadline anyway; here it knows what it waited for.
        let finding = tokio::time::timeout_at(deadline, self.find());
        finding.await.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(
                "the deadline passed while the call waited for a connection, or for a stream on it",
            ))
        })
    }

    async fn find(self: &Arc<Self>) -> Result<ReadyConnection, Status> {
        let mut moves = 0;
        loop {
            let (member, joined) = match self.pick() {
                Some(picked) => picked,
                None => {
                    let first = self.first().await?;
                    // Calls that waited together may have filled it by now.
                    self.pick().unwrap_or((first, 0))
                }
            };
            match self.unless_another(joined, member.connection.ready()).await {
                None => {}
                // The server has closed this one while the call waited. It has not begun, and can
                // begin elsewhere.
                Some(Err(_)) if !member.is_usable() && moves < MOVES_MAX => moves += 1,
                Some(ready) => return ready,
            }
        }
    }

    /// The least busy connection that takes calls, and how many have joined before it was chosen.
    fn pick(self: &Arc<Self>) -> Option<(Arc<Member>, u64)> {
        let state = self.read();
        let (member, joined) = (state.least_busy()?.clone(), state.joined);
        member.was_taken.store(true, Ordering::Relaxed);
        let has_lost = !state.open.iter().all(|it| it.is_usable());
        if has_lost || (member.is_busy() && state.may_grow(&self.limits)) {
            drop(state);
            self.tend();
        }
        Some((member, joined))
    }

    /// Forgets connections that take no more calls, and opens another if all others are busy.
    fn tend(self: &Arc<Self>) {
        let mut state = self.write();
        state.forget_lost();
        let is_busy = state.least_busy().is_some_and(|it| it.is_busy());
        if is_busy && state.may_grow(&self.limits) {
            self.attempt(&mut state);
        }
    }

    /// Waits for `ready`; none if another connection is there before it is.
    async fn unless_another<T>(&self, joined: u64, ready: impl Future<Output = T>) -> Option<T> {
        let mut ready = pin!(ready);
        let mut another = pin!(async {
            let mut joins = self.joined.subscribe();
            let _ = joins.wait_for(|now| *now > joined).await;
        });
        poll_fn(|cx| match ready.as_mut().poll(cx) {
            Poll::Ready(ready) => Poll::Ready(Some(ready)),
            Poll::Pending => another.as_mut().poll(cx).map(|()| None),
        })
        .await
    }

    /// A connection where there was none.
    async fn first(self: &Arc<Self>) -> Result<Arc<Member>, Status> {
        let mut attempt = {
            let mut state = self.write();
            state.forget_lost();
            match state.least_busy() {
                Some(member) => return Ok(member.clone()),
                None => self.attempt(&mut state),
            }
        };
        match attempt.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(connected)) => connected.clone(),
            Ok(None) | Err(_) => Err(Status::unavailable("the runtime that connected is gone")),
        }
    }

    /// The attempt that is under way, or a new one.
    fn attempt(self: &Arc<Self>, state: &mut State) -> Attempt {
        if let Some(attempt) = state.attempt.as_ref().filter(|it| is_under_way(it)) {
            return attempt.clone();
        }
        let (ended, attempt) = watch::channel(None);
        let (target, limits) = (self.target.clone(), self.limits.clone());
        let (tls, keepalive) = (self.tls.clone(), self.keepalive.clone());
        let connections = Arc::downgrade(self);
        tokio::spawn(async move {
            let connecting = Connection::connect(&target, tls.as_ref(), limits.clone(), &keepalive);
            let connected = connecting.await;
            let connected = connected.map(Member::new);
            let further = connections.upgrade().and_then(|it| it.join(&connected));
            ended.send_replace(Some(connected));
            // What it was told holds the connection.
            drop(ended);
            if let Some(member) = further {
                close_when_idle(connections, member, &limits).await;
            }
        });
        state.attempt.insert(attempt).clone()
    }

    /// An attempt has ended. Gives its connection if it is one beside others.
    fn join(&self, connected: &Result<Arc<Member>, Status>) -> Option<Weak<Member>> {
        let mut state = self.write();
        state.attempt = None;
        state.forget_lost();
        let Ok(member) = connected else {
            state.failed = Some(Instant::now());
            return None;
        };
        let further = (!state.open.is_empty()).then(|| Arc::downgrade(member));
        state.open.push(member.clone());
        state.joined += 1;
        self.joined.send_replace(state.joined);
        further
    }

    /// Closes a connection that no call has taken since this was last asked, unless it is the only
    /// one: false if it stays.
    fn close_if_idle(&self, member: &Arc<Member>) -> bool {
        let was_taken = member.was_taken.swap(false, Ordering::Relaxed);
        if was_taken || member.connection.open_calls() > 0 {
            return false;
        }
        let mut state = self.write();
        state.forget_lost();
        if state.open.len() > 1 {
            // A call that has just chosen it holds it, and is not disturbed.
            state.open.retain(|it| !Arc::ptr_eq(it, member));
        }
        !state.open.iter().any(|it| Arc::ptr_eq(it, member))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks after a further connection for as long as there is one, and holds on to nothing.
async fn close_when_idle(connections: Weak<Connections>, member: Weak<Member>, limits: &Limits) {
    loop {
        tokio::time::sleep(limits.connection_idle_time).await;
        let (Some(connections), Some(member)) = (connections.upgrade(), member.upgrade()) else {
            return;
        };
        if connections.close_if_idle(&member) {
            return;
        }
    }
}

fn is_under_way(attempt: &Attempt) -> bool {
    // Its task is gone with its runtime otherwise.
    attempt.has_changed().is_ok()
}

impl State {
    fn least_busy(&self) -> Option<&Arc<Member>> {
        let usable = self.open.iter().filter(|it| it.is_usable());
        usable.min_by_key(|it| (it.is_busy(), it.connection.open_calls()))
    }

    fn forget_lost(&mut self) {
        let before = self.open.len();
        self.open.retain(|it| it.is_usable());
        if self.open.len() < before {
            // A server that takes a connection and closes it again is not asked for each call
            // either.
            self.failed = Some(Instant::now());
        }
    }

    /// Whether a connection may be opened beside those that there are.
    fn may_grow(&self, limits: &Limits) -> bool {
        let pause = limits.connection_retry_pause;
        self.open.len() < limits.max_connections
            && !self.attempt.as_ref().is_some_and(is_under_way)
            && self.failed.is_none_or(|at| at.elapsed() >= pause)
    }
}

impl Member {
    fn new(connection: Connection) -> Arc<Self> {
        Arc::new(Self {
            connection,
            was_taken: AtomicBool::new(false),
        })
    }

    fn is_usable(&self) -> bool {
        self.connection.is_usable()
    }

    fn is_busy(&self) -> bool {
        self.connection.open_calls() >= self.connection.max_streams().min(BUSY_CALLS)
    }
}
