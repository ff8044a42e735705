//! One connection of the load generator: frames by hand on a plain socket.
//!
//! It keeps to flow control both ways, answers SETTINGS and PING, and checks every response: its
//! head, the number of its DATA bytes, its trailers, and that nothing was reset.

mod receive;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;

use trunkline_testkit::{flag, kind};

use crate::frames::{self, DEFAULT_WINDOW, FRAME_MAX};
use crate::heads::Heads;
use crate::plan::{Plan, Tally};

/// Read at once.
const INPUT_LEN: usize = 256 * 1024;

/// Written ahead of what the socket takes.
const OUTPUT_MAX: usize = 256 * 1024;

/// A call that is open.
struct Call {
    plan: Rc<Plan>,
    /// When it, or its round trip, was to begin: nanoseconds of the run.
    started: u64,
    /// What is left to send, the current message included; bytes of that which were sent.
    messages_left: u32,
    message_at: usize,
    /// Bytes of DATA, in this round trip if it is one.
    received: u64,
    unreturned: u32,
    send_window: i64,
    has_head: bool,
    is_done: bool,
    collected: Vec<u8>,
}

/// How far a call's sending went.
enum Sent {
    All,
    /// The stream's window is used up.
    Blocked,
    /// The connection's window is, or the output is full.
    Later,
}

/// What a read has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Nothing was there.
    Nothing,
    /// All that was there.
    All,
    /// As much as there was room for.
    More,
}

/// One connection.
pub(crate) struct Connection {
    socket: mio::net::TcpStream,
    input: Vec<u8>,
    input_at: usize,
    input_end: usize,
    output: Vec<u8>,
    output_at: usize,
    calls: VecDeque<Call>,
    /// The stream of the first of `calls`, and of the next to be opened.
    first_stream: u32,
    next_stream: u32,
    /// Timed calls that are open, and all.
    open_timed: usize,
    open: usize,
    sending: VecDeque<u32>,
    send_window: i64,
    peer_stream_window: i64,
    peer_frame_max: usize,
    peer_streams_max: u32,
    has_settings: bool,
    unreturned: u32,
    /// PINGs that were not answered yet.
    pings: usize,
    heads: Heads,
    /// Bytes of one reply, prefix included, as the first response had it.
    reply_len: u64,
}

impl Connection {
    /// Connects and says what a client says first.
    pub(crate) fn open(address: SocketAddr) -> Result<Self, String> {
        let connect = || {
            let socket = TcpStream::connect(address)?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(mio::net::TcpStream::from_std(socket))
        };
        let socket = connect().map_err(|error| format!("cannot connect: {error}"))?;
        let mut output = Vec::with_capacity(OUTPUT_MAX + 2 * FRAME_MAX);
        frames::put_greeting(&mut output);
        Ok(Self {
            socket,
            input: vec![0; INPUT_LEN],
            input_at: 0,
            input_end: 0,
            output,
            output_at: 0,
            calls: VecDeque::new(),
            first_stream: 1,
            next_stream: 1,
            open_timed: 0,
            open: 0,
            sending: VecDeque::new(),
            send_window: DEFAULT_WINDOW.into(),
            peer_stream_window: DEFAULT_WINDOW.into(),
            peer_frame_max: FRAME_MAX,
            peer_streams_max: u32::MAX,
            has_settings: false,
            unreturned: 0,
            pings: 0,
            heads: Heads::new(),
            reply_len: 0,
        })
    }

    /// The socket, to be registered.
    pub(crate) fn socket_mut(&mut self) -> &mut mio::net::TcpStream {
        &mut self.socket
    }

    /// Whether the server's settings have come.
    pub(crate) fn has_settings(&self) -> bool {
        self.has_settings
    }

    /// Streams that the server allows.
    pub(crate) fn streams_max(&self) -> usize {
        self.peer_streams_max as usize
    }

    /// Calls that are open.
    pub(crate) fn open_calls(&self) -> usize {
        self.open
    }

    /// Timed calls that are open.
    pub(crate) fn open_timed_calls(&self) -> usize {
        self.open_timed
    }

    /// Whether the server allows one more.
    pub(crate) fn has_room(&self) -> bool {
        self.open < self.streams_max()
    }

    /// Bytes of one reply, once a response was read in full.
    pub(crate) fn reply_len(&self) -> u64 {
        self.reply_len
    }

    /// Asks the server for a sign of life.
    pub(crate) fn ping(&mut self) {
        frames::put(&mut self.output, kind::PING, 0, 0, b"are you ");
        self.pings += 1;
    }

    /// Whether all signs of life have come.
    pub(crate) fn is_answered(&self) -> bool {
        self.pings == 0
    }

    /// Opens a call that was to begin at `started`.
    pub(crate) fn start(&mut self, plan: &Rc<Plan>, started: u64) {
        let stream = self.next_stream;
        let block = match stream {
            1 => &plan.first,
            _ => &plan.later,
        };
        frames::put(
            &mut self.output,
            kind::HEADERS,
            flag::END_HEADERS,
            stream,
            block,
        );
        self.calls.push_back(Call {
            plan: plan.clone(),
            started,
            messages_left: plan.requests,
            message_at: 0,
            received: 0,
            unreturned: 0,
            send_window: self.peer_stream_window,
            has_head: false,
            is_done: false,
            collected: Vec::new(),
        });
        self.next_stream += 2;
        self.open += 1;
        self.open_timed += usize::from(plan.is_timed);
        self.sending.push_back(stream);
        self.send();
    }

    /// Reads once and takes all whole frames.
    ///
    /// # Errors
    ///
    /// What the server did wrong.
    pub(crate) fn read(
        &mut self,
        now: impl Fn() -> u64,
        tally: &mut Tally,
    ) -> Result<Input, String> {
        let room = self.input.len() - self.input_end;
        let len = match self.socket.read(&mut self.input[self.input_end..]) {
            Ok(0) => return Err("the server closed the connection".to_owned()),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Input::Nothing),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Input::More),
            Err(error) => return Err(format!("reading: {error}")),
        };
        self.input_end += len;
        let now = now();
        let input = std::mem::take(&mut self.input);
        let taken = self.take_frames(&input, now, tally);
        self.input = input;
        taken?;
        self.input.copy_within(self.input_at..self.input_end, 0);
        self.input_end -= self.input_at;
        self.input_at = 0;
        Ok(if len == room { Input::More } else { Input::All })
    }

    /// Writes what there is, as far as the socket takes it.
    ///
    /// # Errors
    ///
    /// What the socket says.
    pub(crate) fn flush(&mut self) -> Result<(), String> {
        while self.output_at < self.output.len() {
            match self.socket.write(&self.output[self.output_at..]) {
                Ok(len) => self.output_at += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.output.drain(..self.output_at);
                    self.output_at = 0;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("writing: {error}")),
            }
            if self.output_at == self.output.len() {
                self.output.clear();
                self.output_at = 0;
                self.send();
            }
        }
        Ok(())
    }

    /// Tries all calls again, after the windows of all have changed.
    fn resume(&mut self) {
        self.sending.clear();
        for (at, call) in self.calls.iter().enumerate() {
            if call.messages_left > 0 && !call.is_done {
                self.sending.push_back(self.first_stream + 2 * at as u32);
            }
        }
        self.send();
    }

    fn send(&mut self) {
        while let Some(stream) = self.sending.front() {
            match self.send_messages(*stream) {
                Sent::All | Sent::Blocked => self.sending.pop_front(),
                Sent::Later => return,
            };
        }
    }

    fn send_messages(&mut self, stream: u32) -> Sent {
        let at = (stream - self.first_stream) / 2;
        let Some(call) = self.calls.get_mut(at as usize) else {
            return Sent::All;
        };
        while call.messages_left > 0 {
            if call.send_window <= 0 {
                return Sent::Blocked;
            }
            if self.send_window <= 0 || self.output.len() - self.output_at >= OUTPUT_MAX {
                return Sent::Later;
            }
            let left = &call.plan.message[call.message_at..];
            let window = call.send_window.min(self.send_window) as usize;
            let len = left.len().min(self.peer_frame_max).min(window);
            let ends_message = len == left.len();
            let ends = ends_message && call.messages_left == 1 && call.plan.half_closes;
            let flags = if ends { flag::END_STREAM } else { 0 };
            frames::put(&mut self.output, kind::DATA, flags, stream, &left[..len]);
            call.send_window -= len as i64;
            self.send_window -= len as i64;
            call.message_at += len;
            if ends_message {
                call.message_at = 0;
                call.messages_left -= 1;
            }
        }
        Sent::All
    }
}
