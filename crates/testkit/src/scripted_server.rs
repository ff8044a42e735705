//! A server that treats each attempt of each call as its script says, and notes the attempts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

use crate::fields::Fields;
use crate::frame::{Frame, error};
use crate::memory_net::MemoryNet;
use crate::message::message;
use crate::raw_peer::{RawPeer, Received};
use crate::script::{Script, Step};
use crate::within;

/// A raw server with a script. Dropping it closes its connections.
///
/// A script is a text. Semicolons separate calls: the call to a path that ends in `/0` is the first, and so on; the
/// last stands for all later ones. Spaces separate the attempts of a call, in the order in which their heads come.
/// A `*` behind the last one repeats it; an attempt that is not foreseen ends INTERNAL.
///
/// | attempt | response |
/// | --- | --- |
/// | `K` | OK, with a message |
/// | `U`, `I`, `D`, `C` | UNAVAILABLE, INTERNAL, DEADLINE_EXCEEDED, CANCELLED; Trailers-Only |
/// | `U(700)`, `U()`, `U(1,2)` | the same, with a `grpc-retry-pushback-ms`, an empty one, two of them |
/// | `S(x)` | Trailers-Only with this `grpc-status` |
/// | `503` | this HTTP status, without a `grpc-status` |
/// | `R(REFUSED)` | RST_STREAM; also `NO_ERROR`, `INTERNAL_ERROR` and `CANCEL` |
/// | `G0` | GOAWAY whose last stream is 0 |
/// | `X` | the end of the connection |
/// | `-` | none |
/// | `H.M.~500.U` | several in turn: head, message, a pause of 500 ms, trailers |
///
/// The response begins once the request has ended; with a `!` in front, at its head. `E` waits for the end of the
/// request. The message of a status is `attempt ` and the number of the attempt.
#[derive(Debug)]
pub struct ScriptedServer {
    play: Arc<Play>,
    accepting: AbortHandle,
}

/// An attempt of a call, as the server sees it.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When its head came, from the beginning of the server.
    pub at: Duration,
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    /// Which call it belongs to, by the last part of its path.
    pub call: usize,
    /// The head.
    pub head: Fields,
    /// The payloads of all DATA frames.
    pub data: Bytes,
    /// END_STREAM has come.
    pub is_half_closed: bool,
    /// When RST_STREAM came, and its error code.
    pub reset: Option<(Duration, u32)>,
}

impl Attempt {
    /// The value of `grpc-previous-rpc-attempts`.
    pub fn previous_attempts(&self) -> Option<String> {
        self.head.text("grpc-previous-rpc-attempts")
    }

    /// The value of `grpc-timeout`.
    pub fn timeout(&self) -> Option<String> {
        self.head.text("grpc-timeout")
    }
}

/// What the connections of a server share.
#[derive(Debug)]
struct Play {
    address: String,
    script: Script,
    began: Instant,
    attempts: watch::Sender<Vec<Attempt>>,
}

/// A stream whose response is not complete.
struct Playing {
    stream: u32,
    /// Its index in the record.
    attempt: usize,
    /// Its number in its call, from 1.
    number: usize,
    steps: VecDeque<Step>,
    /// When the pause ends that is now.
    due: Option<Instant>,
    has_head: bool,
}

impl ScriptedServer {
    /// A server at an address of `net`.
    ///
    /// # Panics
    ///
    /// When the text is not a script.
    pub fn in_memory(net: &MemoryNet, address: &str, script: &str) -> Self {
        let mut listener = net.listen(address);
        let play = Play::new(address.to_owned(), script);
        let playing = play.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Some(io) = listener.next().await {
                let number = connections.len();
                connections.spawn(playing.clone().serve(io, number));
            }
        });
        let accepting = accepting.abort_handle();
        Self { play, accepting }
    }

    /// A server on a free port of this machine.
    ///
    /// # Panics
    ///
    /// When the text is not a script, or the machine has no port left.
    pub async fn on_tcp(script: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a listening socket has one");
        let play = Play::new(address.to_string(), script);
        let playing = play.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((io, _)) = listener.accept().await {
                let number = connections.len();
                connections.spawn(playing.clone().serve(io, number));
            }
        });
        let accepting = accepting.abort_handle();
        Self { play, accepting }
    }

    /// What a channel connects to.
    pub fn address(&self) -> &str {
        &self.play.address
    }

    /// The attempts so far, in the order in which their heads came.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.play.attempts.borrow().clone()
    }

    /// Waits until the attempts are as wanted.
    ///
    /// # Panics
    ///
    /// When they do not become so.
    pub async fn until(&self, what: &str, is_wanted: impl Fn(&[Attempt]) -> bool) {
        let mut attempts = self.play.attempts.subscribe();
        let waited = within(what, attempts.wait_for(|attempts| is_wanted(attempts))).await;
        assert!(waited.is_ok(), "the sender is in the server");
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Play {
    fn new(address: String, script: &str) -> Arc<Self> {
        Arc::new(Self {
            address,
            script: Script::parse(script),
            began: Instant::now(),
            attempts: watch::Sender::default(),
        })
    }

    /// Plays one connection until it is closed.
    async fn serve<IO: AsyncRead + AsyncWrite + Unpin>(self: Arc<Self>, io: IO, connection: usize) {
        let mut peer = RawPeer::server(io, &[]).await;
        let mut streams: Vec<Playing> = Vec::new();
        loop {
            while peer.waiting_requests() > 0 {
                let stream = peer.next_request().await;
                let head = peer.stream(stream).head.unwrap_or_default();
                streams.push(self.begin(stream, head, connection));
            }
            for playing in &mut streams {
                if let Some(received) = peer.received(playing.stream) {
                    self.note(received, playing);
                }
                if playing.play(&mut peer).await.is_err() {
                    return;
                }
            }
            if peer.is_closed() {
                return;
            }
            match streams.iter().filter_map(|it| it.due).min() {
                Some(due) => drop(timeout_at(due, peer.read_frame()).await),
                None => peer.read_frame().await,
            }
        }
    }

    fn begin(&self, stream: u32, head: Fields, connection: usize) -> Playing {
        let path = head.text(":path").unwrap_or_default();
        let call = path.rsplit('/').next().and_then(|it| it.parse().ok());
        let call = call.unwrap_or_else(|| panic!("{path:?} does not end in the number of a call"));
        let attempt = Attempt {
            at: self.began.elapsed(),
            connection,
            call,
            head,
            data: Bytes::new(),
            is_half_closed: false,
            reset: None,
        };
        let mut place = (0, 0);
        self.attempts.send_modify(|attempts| {
            let before = attempts.iter().filter(|it| it.call == call).count();
            place = (attempts.len(), before);
            attempts.push(attempt);
        });
        let (attempt, before) = place;
        let unforeseen = || {
            VecDeque::from([Step::Status {
                code: "13".to_owned(),
                pushback: vec!["-1".to_owned()],
            }])
        };
        Playing {
            stream,
            attempt,
            number: before + 1,
            steps: self.script.steps(call, before).unwrap_or_else(unforeseen),
            due: None,
            has_head: false,
        }
    }

    /// Notes what has come on a stream.
    fn note(&self, received: &Received, playing: &mut Playing) {
        if received.reset.is_some() {
            playing.steps.clear();
            playing.due = None;
        }
        self.attempts.send_if_modified(|attempts| {
            let attempt = &mut attempts[playing.attempt];
            let is_new = attempt.data.len() < received.data.len()
                || attempt.is_half_closed != received.is_ended
                || attempt.reset.is_some() != received.reset.is_some();
            if is_new {
                attempt.data = received.data.clone().freeze();
                attempt.is_half_closed = received.is_ended;
                let at = self.began.elapsed();
                attempt.reset = attempt
                    .reset
                    .or_else(|| received.reset.map(|code| (at, code)));
            }
            is_new
        });
    }
}

/// The connection is to be closed.
struct Closing;

impl Playing {
    /// Plays the steps whose time has come.
    async fn play<IO: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        peer: &mut RawPeer<IO>,
    ) -> Result<(), Closing> {
        while let Some(step) = self.steps.front() {
            match step {
                Step::HalfClose => {
                    if !peer.received(self.stream).is_some_and(|it| it.is_ended) {
                        return Ok(());
                    }
                }
                Step::Wait(pause) => {
                    let due = *self.due.get_or_insert_with(|| Instant::now() + *pause);
                    if Instant::now() < due {
                        return Ok(());
                    }
                    self.due = None;
                }
                Step::Close => return Err(Closing),
                step => {
                    let frames = self.frames(step);
                    self.has_head |= matches!(step, Step::Head | Step::Message);
                    peer.write(&frames).await;
                }
            }
            self.steps.pop_front();
        }
        Ok(())
    }

    fn frames(&self, step: &Step) -> Vec<Frame> {
        let stream = self.stream;
        let head = Frame::headers(stream, &Fields::response());
        match step {
            Step::HalfClose | Step::Wait(_) | Step::Close => Vec::new(),
            Step::Head => vec![head],
            Step::Message => {
                let data = Frame::data(stream, message(b"response"));
                let head = Some(head).filter(|_| !self.has_head);
                head.into_iter().chain([data]).collect()
            }
            Step::Status { code, pushback } => {
                let fields = match self.has_head {
                    true => Fields::new(),
                    false => Fields::response(),
                };
                let mut fields = fields.and("grpc-status", code);
                if code != "0" {
                    fields = fields.and("grpc-message", format!("attempt {}", self.number));
                }
                for value in pushback {
                    fields = fields.and("grpc-retry-pushback-ms", value);
                }
                vec![Frame::headers(stream, &fields).ending()]
            }
            Step::Http(status) => {
                let fields = Fields::new().and(":status", status);
                vec![Frame::headers(stream, &fields).ending()]
            }
            Step::Reset(code) => vec![Frame::rst_stream(stream, *code)],
            Step::GoAway => vec![Frame::goaway(0, error::NO_ERROR, "scripted")],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw_peer::Outcome;

    async fn call(client: &mut RawPeer<tokio::net::TcpStream>, call: usize) -> (Outcome, Fields) {
        let head = Fields::call(&format!("/test.Scripted/{call}"));
        let stream = client.call(&head, message(b"request")).await;
        let outcome = client.outcome(stream).await;
        (outcome, client.stream(stream).head.unwrap_or_default())
    }

    #[tokio::test]
    async fn each_attempt_of_each_call_goes_as_scripted_and_is_noted() {
        let server = ScriptedServer::on_tcp("U(7) K; R(CANCEL)").await;
        let mut client = RawPeer::connect(server.address()).await;
        let (outcome, head) = call(&mut client, 0).await;
        assert_eq!(outcome, Outcome::Answered(200, 14));
        assert_eq!(head.text("grpc-retry-pushback-ms").as_deref(), Some("7"));
        assert_eq!(head.text("grpc-message").as_deref(), Some("attempt 1"));
        assert_eq!(call(&mut client, 1).await.0, Outcome::Reset(error::CANCEL));
        assert_eq!(call(&mut client, 0).await.0, Outcome::Answered(200, 0));
        assert_eq!(call(&mut client, 0).await.0, Outcome::Answered(200, 13));
        let attempts = server.attempts();
        let calls: Vec<_> = attempts.iter().map(|it| it.call).collect();
        assert_eq!(calls, [0, 1, 0, 0]);
        for attempt in attempts {
            assert_eq!((attempt.connection, attempt.reset), (0, None));
            assert_eq!(attempt.data, message(b"request"));
            assert!(attempt.is_half_closed);
        }
    }
}
