//! Observers: counting, measuring and logging calls from the outside, on a server or a channel.
//!
//! [`Server::observe`](crate::Server::observe) and [`Channel::observe`](crate::Channel::observe) add an [`Observer`].
//! It is asked once for each call and may return a [`CallObserver`], which is told the [`CallEvent`]s that it
//! [wants](CallObserver::wants). [`on_end`] is the short form for an observer that only reads the figures of calls
//! that have ended.
//!
//! ```
//! use std::collections::HashMap;
//! use std::sync::{Arc, Mutex};
//! use trunkline::{Server, observe};
//!
//! let counts = Arc::new(Mutex::new(HashMap::new()));
//! let counter = counts.clone();
//! let server = Server::new().observe(observe::on_end(move |call| {
//!     let key = (call.method().to_owned(), call.code());
//!     *counter.lock().unwrap().entry(key).or_insert(0_u64) += 1;
//! }));
//! ```
//!
//! **Order.** The events of one call come in this order: on a client each attempt begins with
//! [`AttemptStarted`](CallEvent::AttemptStarted), continues with [`AttemptOpened`](CallEvent::AttemptOpened) and
//! ends with [`AttemptEnded`](CallEvent::AttemptEnded); messages come before half-close or trailers, and what is
//! received comes in the order in which it arrived. A message to be sent is told when it was encoded: on a server that
//! may be before the head, on a client while the first attempt waits for its stream. [`Ended`](CallEvent::Ended) comes exactly once, last, also if the
//! call is dropped, if its handler panics and if the server shuts down. The two directions of a call may be told
//! from two threads at once.
//!
//! **Several observers** of one channel or server are told one after the other, in the order in which they were
//! added.
//!
//! **Costs.** Observers run where the call does, so a slow one delays its call: count, and leave writing to
//! something else. Without an observer, and without a subscriber of `tracing`, a call pays two comparisons.
//!
//! **Panics.** An observer that panics does not harm the call: the panic is caught and logged, and the observer is
//! told nothing more of that call.

mod call;
mod event;
mod recorder;
mod span;

use std::sync::Arc;
use std::time::Instant;

pub use crate::call::kind::{CallKind, Side};
pub use call::{CallStart, CallStats};
pub use event::{CallEvent, Direction, Wants};
#[cfg(feature = "server")]
pub(crate) use recorder::observed;
pub(crate) use recorder::{MessageSize, Observers, Recorder, Subject};
pub use trunkline_transport::ConnectionStats;
use trunkline_transport::Peer;

/// Observes calls and connections; added with [`Server::observe`](crate::Server::observe) or
/// [`Channel::observe`](crate::Channel::observe).
///
/// ```
/// use std::time::Instant;
/// use trunkline::observe::{CallEvent, CallObserver, CallStart, Observer, Wants};
///
/// /// Prints the size of each message of one service.
/// struct Sizes;
///
/// impl Observer for Sizes {
///     fn call(&self, call: &CallStart<'_>) -> Option<impl CallObserver> {
///         let is_ours = call.method().starts_with("helloworld.Greeter/");
///         is_ours.then(|| Messages { call: call.id() })
///     }
/// }
///
/// struct Messages {
///     call: u64,
/// }
///
/// impl CallObserver for Messages {
///     fn wants(&self) -> Wants {
///         Wants::MESSAGES
///     }
///
///     fn event(&self, _: Instant, event: &CallEvent<'_>) {
///         if let CallEvent::Message { direction, number, size, .. } = event {
///             println!("call {}: {direction:?} message {number}, {size} bytes", self.call);
///         }
///     }
/// }
///
/// let server = trunkline::Server::new().observe(Sizes);
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Begins a call, and returns what observes it; `None` if the call is of no interest.
    ///
    /// On a client this is when the call is awaited, before its interceptors run; on a server when its head has
    /// been read. Calls that a server refuses, because the method does not exist or the request is malformed,
    /// are told as well.
    ///
    /// By default it observes no call, for an observer of connections only.
    fn call(&self, call: &CallStart<'_>) -> Option<impl CallObserver> {
        let _ = call;
        None::<fn(Instant, &CallEvent<'_>)>
    }

    /// Takes the figures of a server's connection that has ended. Does nothing by default.
    ///
    /// A channel does not call this: [`Channel::connection_stats`](crate::Channel::connection_stats) returns
    /// the figures of its connections.
    fn connection_ended(&self, connection: &ConnectionEnd<'_>) {
        let _ = connection;
    }
}

/// An observer of any type.
pub(crate) trait AnyObserver: Send + Sync {
    fn call(&self, call: &CallStart<'_>) -> Option<Box<dyn CallObserver>>;

    fn connection_ended(&self, connection: &ConnectionEnd<'_>);
}

impl<O: Observer> AnyObserver for O {
    fn call(&self, call: &CallStart<'_>) -> Option<Box<dyn CallObserver>> {
        Some(Box::new(Observer::call(self, call)?))
    }

    fn connection_ended(&self, connection: &ConnectionEnd<'_>) {
        Observer::connection_ended(self, connection);
    }
}

impl<O: Observer> Observer for Arc<O> {
    fn call(&self, call: &CallStart<'_>) -> Option<impl CallObserver> {
        Observer::call(&**self, call)
    }

    fn connection_ended(&self, connection: &ConnectionEnd<'_>) {
        Observer::connection_ended(&**self, connection);
    }
}

/// Observes one call; made by [`Observer::call`].
///
/// A closure of that shape is one, which wants [`Wants::ENDS`].
pub trait CallObserver: Send + Sync + 'static {
    /// Returns the kinds of events to be told; [`Wants::ENDS`] by default.
    ///
    /// It is read once, when the call begins. Other events are neither told nor prepared.
    fn wants(&self) -> Wants {
        Wants::ENDS
    }

    /// Takes an event, which happened at `at`.
    fn event(&self, at: Instant, event: &CallEvent<'_>);
}

impl<F: Fn(Instant, &CallEvent<'_>) + Send + Sync + 'static> CallObserver for F {
    fn event(&self, at: Instant, event: &CallEvent<'_>) {
        self(at, event);
    }
}

/// A server's connection that has ended.
#[derive(Debug)]
pub struct ConnectionEnd<'a> {
    pub(crate) peer: &'a Peer,
    pub(crate) stats: ConnectionStats,
}

impl ConnectionEnd<'_> {
    /// The two ends of the connection.
    pub fn peer(&self) -> &Peer {
        self.peer
    }

    /// The bytes and frames that the connection has carried, including those of no call.
    pub fn stats(&self) -> &ConnectionStats {
        &self.stats
    }
}

/// Returns an observer that hands the figures of each call to `take` when the call has ended.
///
/// ```
/// let channel = trunkline::Channel::in_process(trunkline::Server::new());
/// let channel = channel.observe(trunkline::observe::on_end(|call| {
///     println!("{} {} in {:?}", call.method(), call.code(), call.duration());
/// }));
/// ```
pub fn on_end(take: impl Fn(&CallStats<'_>) + Send + Sync + 'static) -> impl Observer {
    OnEnd(Arc::new(take))
}

struct OnEnd<F>(Arc<F>);

impl<F: Fn(&CallStats<'_>) + Send + Sync + 'static> Observer for OnEnd<F> {
    fn call(&self, _: &CallStart<'_>) -> Option<impl CallObserver> {
        let take = self.0.clone();
        Some(move |_: Instant, event: &CallEvent<'_>| {
            if let CallEvent::Ended(call) = event {
                take(call);
            }
        })
    }
}
