//! Observers, which count, measure and log the calls of a server or a channel.
//!
//! [`Server::observe`](crate::Server::observe) and [`Channel::observe`](crate::Channel::observe) add an [`Observer`].
//! To receive the statistics of each call once it has ended, use [`on_end`]:
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
//! To receive events during a call, implement [`Observer`]. For each call it can return a
//! [`CallObserver`], which receives the kinds of [`CallEvent`]s that it [wants](CallObserver::wants).
//!
//! **Order of events.** On a client, each attempt begins with
//! [`AttemptStarted`](CallEvent::AttemptStarted), continues with
//! [`AttemptOpened`](CallEvent::AttemptOpened) and ends with [`AttemptEnded`](CallEvent::AttemptEnded).
//! Messages are reported before the half-close or the trailers of their direction. Received events are
//! reported in the order of arrival. A sent message is reported when it is encoded: on a server, this can
//! be before the head is sent; on a client, before the first attempt has a stream.
//! [`Ended`](CallEvent::Ended) is reported exactly once, as the last event, even if the call is dropped,
//! its handler panics, or the server shuts down. Events of the two directions can be reported by two
//! threads at the same time.
//!
//! **Several observers** of a channel or server are notified in the order in which they were added.
//!
//! **Cost.** Observers run in the task of the call, so a slow observer delays the call. Without an
//! observer and a `tracing` subscriber, a call has almost no additional cost.
//!
//! **Panics.** If an observer panics, the panic is caught and logged, and the observer receives no
//! further events of that call. The call continues.

mod call;
mod event;
mod recorder;
mod span;

use std::sync::Arc;
use std::time::Instant;

pub use call::{CallStart, CallStats};
pub use event::{CallEvent, Direction, Wants};
#[cfg(feature = "server")]
pub(crate) use recorder::observed;
pub(crate) use recorder::{MessageSize, Observers, Recorder, Subject};
pub use trunkline_transport::ConnectionStats;
use trunkline_transport::Peer;

/// An observer of calls and connections. [`Server::observe`](crate::Server::observe) and
/// [`Channel::observe`](crate::Channel::observe) add it.
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
    /// Returns an observer for a call that begins, or `None` to ignore the call. The default returns
    /// `None`.
    ///
    /// A client calls this method when the call is awaited, before its interceptors run. A server calls
    /// it when it has read the head of the request, even if it then refuses the call because the method
    /// does not exist or the request is malformed.
    fn call(&self, call: &CallStart<'_>) -> Option<impl CallObserver> {
        let _ = call;
        None::<fn(Instant, &CallEvent<'_>)>
    }

    /// Receives the statistics of a server's connection that has ended. The default does nothing.
    ///
    /// A channel does not call this method.
    /// [`Channel::connection_stats`](crate::Channel::connection_stats) returns the statistics of its
    /// current connections.
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

/// An observer of one call, which [`Observer::call`] returns. It is dropped when the call has ended.
///
/// A closure `Fn(Instant, &CallEvent)` is also an observer, which receives [`Wants::ENDS`].
///
/// ```
/// use std::time::Instant;
/// use trunkline::observe::{CallEvent, CallObserver, Wants};
///
/// struct Heads;
///
/// impl CallObserver for Heads {
///     fn wants(&self) -> Wants {
///         Wants::HEADS
///     }
///
///     fn event(&self, _: Instant, event: &CallEvent<'_>) {
///         println!("{event:?}");
///     }
/// }
/// ```
pub trait CallObserver: Send + Sync + 'static {
    /// Returns the kinds of events to receive. The default is [`Wants::ENDS`]: only the end of the call.
    ///
    /// The method is called once, when the call begins. Events of other kinds are not created.
    fn wants(&self) -> Wants {
        Wants::ENDS
    }

    /// Receives an event and the moment at which it occurred. It runs in the task of the call, so it must not block.
    fn event(&self, at: Instant, event: &CallEvent<'_>);
}

impl<F: Fn(Instant, &CallEvent<'_>) + Send + Sync + 'static> CallObserver for F {
    fn event(&self, at: Instant, event: &CallEvent<'_>) {
        self(at, event);
    }
}

/// A server's connection that has ended, as [`Observer::connection_ended`] receives it.
///
/// ```
/// use trunkline::observe::{ConnectionEnd, Observer};
///
/// struct Connections;
///
/// impl Observer for Connections {
///     fn connection_ended(&self, connection: &ConnectionEnd<'_>) {
///         println!("{:?}: {:?}", connection.peer(), connection.stats());
///     }
/// }
/// ```
#[derive(Debug)]
pub struct ConnectionEnd<'a> {
    pub(crate) peer: &'a Peer,
    pub(crate) stats: ConnectionStats,
}

impl ConnectionEnd<'_> {
    /// Returns the local and remote address of the connection.
    pub fn peer(&self) -> &Peer {
        self.peer
    }

    /// Returns the number of bytes and frames of the connection, including those that do not belong to a
    /// call.
    pub fn stats(&self) -> &ConnectionStats {
        &self.stats
    }
}

/// Returns an observer that passes the statistics of each call to `take` after the call has ended.
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
