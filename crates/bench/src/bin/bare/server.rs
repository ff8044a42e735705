//! One connection and all of its calls, in one task.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use h2::RecvStream;
use h2::server::{Builder, Connection, SendResponse};
use http::Request;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::calls::{Broken, Call, Heads, Next, Requests};
use crate::message::{self, Message, Pieces};
use crate::slots::Slots;
use crate::wire::WireIo;

pub(crate) const STREAM_WINDOW: u32 = 1 << 20;
pub(crate) const CONNECTION_WINDOW: u32 = 16 << 20;
pub(crate) const SEND_BUFFER: usize = 64 * 1024;
/// A frame that carries a message has 5 bytes or more: the window always bites before this does.
pub(crate) const FRAME_BUDGET: usize = 51 * CONNECTION_WINDOW as usize;
/// Turns in one poll before the other tasks of the thread get theirs.
pub(crate) const ROUNDS_MAX: usize = 8;

pub(crate) async fn connection(tcp: TcpStream) {
    let wire = WireIo::new(tcp);
    let mut handshake = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(FRAME_BUDGET)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(100)
        .handshake(wire.clone());
    let shaken = std::future::poll_fn(|cx| {
        wire.wire().begin_turn(cx.waker());
        loop {
            let poll = Pin::new(&mut handshake).poll(cx);
            match wire.wire().end_turn() {
                Err(_) => return Poll::Ready(None),
                Ok(true) if poll.is_pending() => {}
                Ok(_) => return poll.map(Result::ok),
            }
        }
    });
    let Some(h2) = shaken.await else {
        return;
    };
    let mut server = Server {
        h2,
        heads: Heads::new(),
        slots: Slots::new(),
        woken: Vec::new(),
        sleeping: BTreeMap::new(),
        alarm: None,
        sleepers: 0,
    };
    std::future::poll_fn(|cx| server.poll(&wire, cx)).await;
}

struct Server {
    h2: Connection<WireIo, Pieces>,
    heads: Heads,
    slots: Slots<Call>,
    woken: Vec<usize>,
    /// By the time of their reply; the number tells those of one moment apart.
    sleeping: BTreeMap<(Instant, usize), (SendResponse<Pieces>, Pieces)>,
    /// One timer for all of them.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Calls that ever slept.
    sleepers: usize,
}

impl Server {
    fn poll(&mut self, wire: &WireIo, cx: &mut Context<'_>) -> Poll<()> {
        wire.wire().begin_turn(cx.waker());
        for _ in 0..ROUNDS_MAX {
            let mut over = self.turn().is_ready();
            if self.wake_sleepers(cx) {
                over |= self.turn().is_ready();
            }
            match wire.wire().end_turn() {
                Ok(again) if !over => {
                    if !again {
                        return Poll::Pending;
                    }
                }
                Ok(_) | Err(_) => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready when the connection is over. Accepts and answers until there is nothing more to do.
    fn turn(&mut self) -> Poll<()> {
        // Only this task touches h2, and it polls h2 again after whatever it told it: a real waker
        // would make the task run once more for nothing.
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            while let Poll::Ready(accepted) = self.h2.poll_accept(&mut cx) {
                let Some(Ok((request, respond))) = accepted else {
                    return Poll::Ready(());
                };
                // A call that breaks is dropped, and so reset.
                let _ = self.begin(request, respond, &mut cx);
            }
            let mut woken = std::mem::take(&mut self.woken);
            self.slots.take_woken(&mut woken);
            if woken.is_empty() {
                self.woken = woken;
                return Poll::Pending;
            }
            for at in woken.drain(..) {
                self.resume(at);
            }
            self.woken = woken;
        }
    }

    /// Most calls are here whole, and end where they begin.
    fn begin(
        &mut self,
        request: Request<RecvStream>,
        respond: SendResponse<Pieces>,
        cx: &mut Context<'_>,
    ) -> Result<(), Broken> {
        let (head, mut body) = request.into_parts();
        let path = head.uri.path();
        let mut first = None;
        if !is_streaming(path)
            && let Poll::Ready(Some(data)) = body.poll_data(cx)
        {
            let data = data?;
            if body.is_end_stream() {
                match message::whole(data) {
                    Ok(message) => {
                        // The fewer handles a stream has, the less h2 does when one is dropped.
                        drop(body);
                        return self.answer(respond, message);
                    }
                    Err(data) => first = Some(data),
                }
            } else {
                first = Some(data);
            }
        }
        let mut requests = Requests::new(body);
        if let Some(data) = first {
            requests.push(data);
        }
        let call = Call::new(path, respond, requests, &self.heads)?;
        let at = self.slots.insert(call);
        self.resume(at);
        Ok(())
    }

    fn resume(&mut self, at: usize) {
        let Some((call, waker)) = self.slots.woken_call(at) else {
            return;
        };
        match call.poll(&mut Context::from_waker(waker), &self.heads) {
            Poll::Pending => {}
            Poll::Ready(Ok(Next::Answer(request))) => {
                if let Some(Call::Unary(respond, _)) = self.slots.remove(at) {
                    // As above.
                    let _ = self.answer_decoded(respond, request);
                }
            }
            Poll::Ready(Ok(Next::Done) | Err(Broken)) => {
                self.slots.remove(at);
            }
        }
    }

    fn answer(&mut self, respond: SendResponse<Pieces>, request: Pieces) -> Result<(), Broken> {
        self.answer_decoded(respond, message::decode(request).ok_or(Broken)?)
    }

    fn answer_decoded(
        &mut self,
        mut respond: SendResponse<Pieces>,
        request: Message,
    ) -> Result<(), Broken> {
        if request.sleep_millis | request.spin_millis | request.block_millis > 0 {
            return self.dawdle(respond, request);
        }
        self.heads
            .reply(&mut respond, message::encode(request.payload, 0))
    }

    /// The methods' ways of being slow. Computing and blocking hold up the connection: to do better
    /// costs a task a call, which is what the floor leaves out.
    fn dawdle(
        &mut self,
        mut respond: SendResponse<Pieces>,
        request: Message,
    ) -> Result<(), Broken> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(request.spin_millis) {}
        thread::sleep(Duration::from_millis(request.block_millis));
        let reply = message::encode(request.payload, 0);
        if request.sleep_millis == 0 {
            return self.heads.reply(&mut respond, reply);
        }
        self.sleepers += 1;
        let until = begun + Duration::from_millis(request.sleep_millis);
        self.sleeping
            .insert((until, self.sleepers), (respond, reply));
        Ok(())
    }

    /// Answers the calls that have slept, and sets the alarm for the next. True if it answered any.
    fn wake_sleepers(&mut self, cx: &mut Context<'_>) -> bool {
        let mut answered = false;
        while let Some(entry) = self.sleeping.first_entry() {
            let until = entry.key().0;
            let alarm = self
                .alarm
                .get_or_insert_with(|| Box::pin(sleep_until(until)));
            if alarm.deadline() != until {
                alarm.as_mut().reset(until);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                break;
            }
            let (mut respond, reply) = entry.remove();
            // As above.
            let _ = self.heads.reply(&mut respond, reply);
            answered = true;
        }
        answered
    }
}

fn is_streaming(path: &str) -> bool {
    path.ends_with("Stream") || path.ends_with("/Bidi")
}
