//! Keeps to the sizes that header lists may have, in both directions of a connection.
//!
//! h2 does not tell what its peer announces, drops without a word the fields of trailers that it does not
//! decode, and refuses a head with nothing but an HTTP status or a reset. So it is made to decode more
//! than is announced (see [`Http2Limits::decoded_header_list_size`]), and what comes is looked at here.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use h2::{RecvStream, StreamId};
use http::{HeaderMap, Request, Response, StatusCode, response};
use trunkline_codec::Status;
use trunkline_codec::header_list::{self, Room, STATUS_SIZE, Source, What};

use crate::frame_guard::{FrameGuard, Role, SuspectBlock};
use crate::limits::Http2Limits;
use crate::sync::lock;

/// The largest header list that is sent before the peer's SETTINGS have come, in bytes: what C-core,
/// Java and the gRPC documents take by default.
const EARLY_HEADER_LIST_SIZE: u32 = 8 * 1024;

/// The number of streams that are remembered of which a suspect block has come.
const SUSPECTS_MAX: usize = 1_000;

const EARLY: u8 = 0;
const OURS: u8 = 1;
const PEERS: u8 = 2;

/// The limits of one connection, as its socket and its calls share them.
#[derive(Debug)]
pub(crate) struct HeaderLists {
    peer: Role,
    /// The size that the peer does not take: see [`Room`].
    send_limit: AtomicU32,
    source: AtomicU8,
    /// The size for a peer that announces nothing.
    unannounced: u32,
    recv_limit: u32,
    suspect_block: usize,
    has_suspects: AtomicBool,
    suspects: Mutex<Vec<SuspectBlock>>,
}

impl HeaderLists {
    pub(crate) fn new(limits: &Http2Limits, peer: Role) -> Self {
        Self {
            peer,
            send_limit: AtomicU32::new(EARLY_HEADER_LIST_SIZE),
            source: AtomicU8::new(EARLY),
            unannounced: limits.max_send_header_list_size,
            recv_limit: limits.max_header_list_size_hard,
            suspect_block: limits.suspect_header_block(),
            has_suspects: AtomicBool::new(false),
            suspects: Mutex::default(),
        }
    }

    /// The size that is announced to the peer.
    pub(crate) fn announced(&self) -> u32 {
        self.recv_limit
    }

    /// The bytes from which on a block that comes is noted.
    pub(crate) fn suspect_block(&self) -> usize {
        self.suspect_block
    }

    /// Takes note of what the peer has just said, before h2 hears it.
    #[inline]
    pub(crate) fn note(&self, peer: &mut FrameGuard) {
        if peer.take_news() {
            self.note_news(peer);
        }
    }

    #[cold]
    fn note_news(&self, peer: &mut FrameGuard) {
        match (peer.take_header_list_size(), peer.settings()) {
            (Some(limit), _) => {
                self.send_limit.store(limit, Ordering::Relaxed);
                self.source.store(PEERS, Ordering::Release);
            }
            (None, 1..) if self.source.load(Ordering::Relaxed) == EARLY => {
                self.send_limit.store(self.unannounced, Ordering::Relaxed);
                self.source.store(OURS, Ordering::Release);
            }
            (None, _) => {}
        }
        let noted = peer.take_suspects();
        if !noted.is_empty() {
            let mut suspects = lock(&self.suspects);
            suspects.extend(noted);
            let forgotten = suspects.len().saturating_sub(SUSPECTS_MAX);
            suspects.drain(..forgotten);
            self.has_suspects.store(true, Ordering::Release);
        }
    }

    /// The size of the suspect block that has come on a stream; none is told twice.
    fn suspect(&self, stream: impl FnOnce() -> StreamId, is_trailers: bool) -> Option<usize> {
        if !self.has_suspects.load(Ordering::Acquire) {
            return None;
        }
        let stream = stream().as_u32();
        let mut suspects = lock(&self.suspects);
        // Trailers end their stream. What else was large there was a head that was let pass.
        let is_meant = |it: &SuspectBlock| it.stream == stream && (it.ends_stream || !is_trailers);
        let at = suspects.iter().position(is_meant)?;
        let block = suspects.swap_remove(at);
        self.has_suspects
            .store(!suspects.is_empty(), Ordering::Release);
        Some(block.size)
    }

    fn room(&self) -> Room {
        Room {
            limit: self.send_limit.load(Ordering::Relaxed),
            source: match self.source.load(Ordering::Acquire) {
                EARLY => Source::Early,
                OURS => Source::Ours,
                _ => Source::Peer,
            },
        }
    }

    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED if the server does not take a head as large as this.
    pub(crate) fn check_request(&self, head: &Request<()>) -> Result<(), Status> {
        let size = request_size(head);
        match size < self.send_limit.load(Ordering::Relaxed) as usize {
            true => Ok(()),
            false => Err(self.room().exceeded("request headers", size)),
        }
    }

    /// The size of a response head that the client does not take.
    #[inline]
    pub(crate) fn excess_of_head(&self, head: &response::Parts) -> Option<usize> {
        let size = STATUS_SIZE + header_list::size(&head.headers);
        (size >= self.send_limit.load(Ordering::Relaxed) as usize).then_some(size)
    }

    /// Makes what goes out as a Trailers-Only response in place of a head of `size` bytes: `end`, if that is
    /// known, without what does not fit.
    #[cold]
    pub(crate) fn in_place_of_head(
        &self,
        what: What,
        size: usize,
        end: HeaderMap,
        status: StatusCode,
    ) -> response::Parts {
        let mut head = Response::new(());
        *head.status_mut() = status;
        *head.headers_mut() = self.room().shorten(what, size, end);
        head.into_parts().0
    }

    /// Leaves out of trailers what the peer does not take. Those of a request say nothing, and can be
    /// none.
    #[inline]
    pub(crate) fn fit_trailers(&self, trailers: &mut HeaderMap) {
        let size = header_list::size(trailers);
        if size >= self.send_limit.load(Ordering::Relaxed) as usize {
            self.shorten(size, trailers);
        }
    }

    #[cold]
    fn shorten(&self, size: usize, trailers: &mut HeaderMap) {
        let all = std::mem::take(trailers);
        if self.peer == Role::Client {
            *trailers = self.room().shorten(What::Trailers, size, all);
        }
    }

    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED for a response head above our limit.
    pub(crate) fn check_response<T>(&self, response: &Response<T>) -> Result<(), Status> {
        let size = STATUS_SIZE + header_list::size(response.headers());
        if size <= self.recv_limit as usize {
            return Ok(());
        }
        let what = match response.status() {
            StatusCode::OK => "response headers".to_owned(),
            status => format!("headers of a response with HTTP status {status}"),
        };
        Err(self.refused(&what, size, response.headers()))
    }

    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED for trailers above our limit, also if h2 has dropped what made them so large.
    #[inline]
    pub(crate) fn check_trailers(
        &self,
        trailers: Option<&HeaderMap>,
        recv: &RecvStream,
    ) -> Result<(), Status> {
        let Some(trailers) = trailers else {
            return Ok(());
        };
        let size = header_list::size(trailers);
        let block = self.suspect(|| recv.stream_id(), true).unwrap_or(0);
        match size > self.recv_limit as usize || block > 0 {
            true => Err(self.refused("trailers", size.max(block), trailers)),
            false => Ok(()),
        }
    }

    /// The status of a call whose response head h2 has refused for its size, if it has.
    pub(crate) fn refused_response(
        &self,
        error: &h2::Error,
        stream: impl FnOnce() -> StreamId,
    ) -> Option<Status> {
        if !error.is_library() || !error.is_reset() {
            return None;
        }
        let block = self.suspect(stream, false)?;
        Some(self.refused("response headers", block, &HeaderMap::new()))
    }

    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED for the head of a request that has to wait, and is too large to be kept.
    pub(crate) fn check_waiting<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let size = request_size(request);
        match size > self.recv_limit as usize {
            true => Err(self.refused("request headers", size, &HeaderMap::new())),
            false => Ok(()),
        }
    }

    #[cold]
    fn refused(&self, what: &str, size: usize, fields: &HeaderMap) -> Status {
        header_list::refused(what, size, self.recv_limit, fields)
    }
}

fn request_size<T>(request: &Request<T>) -> usize {
    header_list::pseudo_size(request.method(), request.uri()) + header_list::size(request.headers())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn settings(pairs: &[(u8, u32)]) -> Vec<u8> {
        let mut frame = vec![0, 0, 6 * pairs.len() as u8, 4, 0, 0, 0, 0, 0];
        for (id, value) in pairs {
            frame.extend([0, *id]);
            frame.extend(value.to_be_bytes());
        }
        frame
    }

    #[test]
    fn what_a_peer_takes_is_cautious_at_first_then_what_it_says() {
        let lists = HeaderLists::new(&Http2Limits::for_server(), Role::Server);
        let mut guard = FrameGuard::new(Role::Server);
        lists.note(&mut guard);
        let room = |limit, source| Room { limit, source };
        assert_eq!(lists.room(), room(8_192, Source::Early));
        for (pairs, expected) in [
            (&[(4, 1)][..], room(65_536, Source::Ours)),
            (&[(6, 100)], room(100, Source::Peer)),
            (&[(4, 1)], room(100, Source::Peer)),
            (&[(6, u32::MAX)], room(u32::MAX, Source::Peer)),
        ] {
            guard.follow(&settings(pairs));
            lists.note(&mut guard);
            assert_eq!(lists.room(), expected, "{pairs:?}");
        }
    }

    #[test]
    fn the_size_of_a_request_counts_its_pseudo_headers() {
        let lists = HeaderLists::new(&Http2Limits::for_server(), Role::Server);
        let mut head = Request::new(());
        *head.uri_mut() = "http://host/a.B/C".parse().unwrap();
        let pseudo = [":methodGET", ":schemehttp", ":authorityhost", ":path/a.B/C"];
        let pseudo: usize = pseudo.iter().map(|field| field.len() + 32).sum();
        for (size, fits) in [(8_191, true), (8_192, false)] {
            let value = "v".repeat(size - pseudo - "k".len() - 32);
            let value = HeaderValue::try_from(value).unwrap();
            head.headers_mut().insert("k", value);
            assert_eq!(lists.check_request(&head).is_ok(), fits, "{size}");
        }
    }
}
