//! What a connection does with the frames that come.

use trunkline_testkit::{flag, kind, setting};

use super::{Call, Connection};
use crate::frames::{self, CONNECTION_WINDOW, FRAME_MAX, Header, STREAM_WINDOW};
use crate::messages;
use crate::plan::Tally;
use crate::workloads::Kind;

/// Window is returned when a quarter is used, as grpc-go does it.
pub(super) const STREAM_STEP: u32 = STREAM_WINDOW / 4;
const CONNECTION_STEP: u32 = CONNECTION_WINDOW / 4;

impl Connection {
    /// Takes all whole frames of the input.
    pub(super) fn take_frames(
        &mut self,
        input: &[u8],
        now: u64,
        tally: &mut Tally,
    ) -> Result<(), String> {
        while let Some(header) = Header::read(&input[self.input_at..self.input_end]) {
            if header.len > FRAME_MAX {
                return Err(format!("a frame of {} bytes", header.len));
            }
            let start = self.input_at + frames::HEADER_LEN;
            if start + header.len > self.input_end {
                break;
            }
            self.input_at = start + header.len;
            self.take_frame(header, &input[start..self.input_at], now, tally)?;
        }
        Ok(())
    }

    fn take_frame(
        &mut self,
        header: Header,
        payload: &[u8],
        now: u64,
        tally: &mut Tally,
    ) -> Result<(), String> {
        match header.kind {
            kind::DATA => self.take_data(header, payload, now, tally),
            kind::HEADERS => self.take_headers(header, payload, now, tally),
            kind::SETTINGS if !header.has(flag::ACK) => {
                self.take_settings(payload);
                Ok(())
            }
            kind::PING if header.has(flag::ACK) => {
                self.pings = self.pings.saturating_sub(1);
                Ok(())
            }
            kind::PING => {
                frames::put(&mut self.output, kind::PING, flag::ACK, 0, payload);
                Ok(())
            }
            kind::WINDOW_UPDATE => {
                self.take_window_update(header.stream, frames::number(payload, 0));
                Ok(())
            }
            // A server may say that it needs no more of a request that it has answered.
            kind::RST_STREAM if self.call_mut(header.stream).is_none() => Ok(()),
            kind::RST_STREAM => Err(format!(
                "RST_STREAM {}",
                frames::error_name(frames::number(payload, 0))
            )),
            kind::GOAWAY => Err(format!(
                "GOAWAY {} {}",
                frames::error_name(frames::number(payload, 4)),
                String::from_utf8_lossy(payload.get(8..).unwrap_or_default())
            )),
            kind::CONTINUATION | kind::PUSH_PROMISE => Err("a frame that is not for us".to_owned()),
            _ => Ok(()),
        }
    }

    /// The call of a stream, while it is open.
    fn call_mut(&mut self, stream: u32) -> Option<&mut Call> {
        let at = stream.checked_sub(self.first_stream)? / 2;
        self.calls.get_mut(at as usize).filter(|it| !it.is_done)
    }

    fn take_data(
        &mut self,
        header: Header,
        payload: &[u8],
        now: u64,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let data = frames::unpadded(header, payload).ok_or("padding longer than its frame")?;
        let (stream, reply_len) = (header.stream, self.reply_len);
        let Some(call) = self.call_mut(stream) else {
            return Err("DATA for a call that is not open".to_owned());
        };
        if !call.has_head {
            return Err("DATA before a head".to_owned());
        }
        if header.has(flag::END_STREAM) {
            return Err("a response without trailers".to_owned());
        }
        call.received += data.len() as u64;
        if call.plan.collects {
            call.collected.extend_from_slice(data);
        }
        if call.plan.is_timed {
            tally.bytes += data.len() as u64;
        }
        if call.plan.returns_window {
            let len = payload.len() as u32;
            let increments = [
                (stream, due(&mut call.unreturned, len, STREAM_STEP)),
                (0, due(&mut self.unreturned, len, CONNECTION_STEP)),
            ];
            for (stream, increment) in increments {
                if let Some(increment) = increment {
                    frames::put_window_update(&mut self.output, stream, increment);
                }
            }
        }
        let Some(call) = self.call_mut(stream) else {
            return Ok(());
        };
        if call.plan.kind == Kind::PingPong && !call.plan.half_closes && call.received >= reply_len
        {
            if call.received > reply_len {
                return Err("a reply that nothing asked for".to_owned());
            }
            tally.operations += 1;
            tally.latencies.add(now.saturating_sub(call.started));
            (call.received, call.started) = (0, now);
            (call.messages_left, call.message_at) = (1, 0);
            self.sending.push_back(stream);
            self.send();
        }
        Ok(())
    }

    fn take_headers(
        &mut self,
        header: Header,
        payload: &[u8],
        now: u64,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let block = frames::unpadded(header, payload).ok_or("padding longer than its frame")?;
        if !header.has(flag::END_HEADERS) {
            return Err("a header block in several frames".to_owned());
        }
        let ends = header.has(flag::END_STREAM);
        let Some(call) = self.call_mut(header.stream) else {
            return Err("HEADERS for a call that is not open".to_owned());
        };
        match (call.has_head, ends) {
            (false, false) => {
                call.has_head = true;
                self.heads.head(block)
            }
            (true, true) => {
                self.heads.trailers(block)?;
                self.finish(header.stream, now, tally)
            }
            (false, true) => {
                self.heads.trailers(block)?;
                Err("status 0 without a message".to_owned())
            }
            (true, false) => Err("a second head".to_owned()),
        }
    }

    fn finish(&mut self, stream: u32, now: u64, tally: &mut Tally) -> Result<(), String> {
        let reply_len = self.reply_len;
        let Some(call) = self.call_mut(stream) else {
            return Ok(());
        };
        if call.messages_left > 0 {
            return Err("the response ended before the requests".to_owned());
        }
        call.is_done = true;
        let plan = call.plan.clone();
        let (started, received) = (call.started, call.received);
        if plan.collects {
            let requests = (plan.kind == Kind::ClientStream).then_some(plan.requests.into());
            let collected = std::mem::take(&mut call.collected);
            messages::verify(&collected, &plan.payload, plan.replies, requests)?;
            self.reply_len = received / u64::from(plan.replies);
        } else if received != reply_len * u64::from(plan.replies) {
            return Err(format!("a response of {received} bytes of DATA"));
        }
        tally.finished += 1;
        self.open -= 1;
        if plan.is_timed {
            self.open_timed -= 1;
            tally.latencies.add(now.saturating_sub(started));
            tally.operations += u64::from(plan.requests);
        }
        while self.calls.front().is_some_and(|call| call.is_done) {
            self.calls.pop_front();
            self.first_stream += 2;
        }
        Ok(())
    }

    fn take_settings(&mut self, payload: &[u8]) {
        for pair in payload.chunks_exact(6) {
            let value = frames::number(pair, 2);
            match u16::from_be_bytes([pair[0], pair[1]]) {
                setting::INITIAL_WINDOW_SIZE => {
                    let change = i64::from(value) - self.peer_stream_window;
                    self.peer_stream_window += change;
                    for call in &mut self.calls {
                        call.send_window += change;
                    }
                }
                setting::MAX_FRAME_SIZE => self.peer_frame_max = FRAME_MAX.min(value as usize),
                setting::MAX_CONCURRENT_STREAMS => self.peer_streams_max = value,
                _ => {}
            }
        }
        self.has_settings = true;
        frames::put(&mut self.output, kind::SETTINGS, flag::ACK, 0, &[]);
        self.resume();
    }

    fn take_window_update(&mut self, stream: u32, increment: u32) {
        if stream == 0 {
            self.send_window += i64::from(increment);
            return self.send();
        }
        let Some(call) = self.call_mut(stream) else {
            return;
        };
        let was_blocked = call.send_window <= 0 && call.messages_left > 0;
        call.send_window += i64::from(increment);
        if was_blocked && call.send_window > 0 {
            self.sending.push_back(stream);
            self.send();
        }
    }
}

/// Adds `len` bytes to those for which the peer has no window yet, and takes them all out when they
/// are a step.
pub(super) fn due(unreturned: &mut u32, len: u32, step: u32) -> Option<u32> {
    *unreturned += len;
    (*unreturned >= step).then(|| std::mem::take(unreturned))
}
