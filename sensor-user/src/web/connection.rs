//! One place for each connection, and the rules by which it may keep it.
//!
//! A sensor's endpoint has few friends, who ask for something at once and read the answer. So a
//! newcomer always gets in: when all places are taken, the connection that has gone longest without
//! getting anywhere has to leave, first among those that have not asked for anything, and first
//! among those of a peer that holds most of the places. A client that sends its request byte by
//! byte, or reads the answer so, is ended by a time limit that its bytes do not extend.

use super::Limits;
use crate::exposition::Closed;
use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// Answers go out in pieces of this many octets, so that the end of one is known to within it.
const PIECE: usize = 64 * 1024;

/// Whom a connection belongs to: an IPv4 address, or an IPv6 network of 64 bits, which is what one
/// owner commonly has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer(IpAddr);

impl Peer {
    pub(super) fn of(address: SocketAddr) -> Self {
        Self(match address.ip().to_canonical() {
            IpAddr::V6(v6) => {
                let network = u128::from(v6) & !u128::from(u64::MAX);
                IpAddr::V6(network.into())
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// What happens once an answer was written out whole.
type Then = Box<dyn FnOnce() + Send>;

/// How far a connection has got.
struct Progress {
    /// Requests under way; more than one only with HTTP/2.
    in_flight: usize,
    /// When the oldest of them began.
    begun: Instant,
    /// Whether a request was ever answered.
    served: bool,
    /// Whether the head of a request has begun to come in.
    reading: bool,
    /// With requests under way: the last octet written, or the last request's beginning. Without:
    /// the beginning of the wait.
    since: Instant,
    /// Answers handed over but not yet flushed.
    ended: Vec<Option<Then>>,
}

/// One connection.
pub(super) struct Connection {
    peer: Peer,
    progress: Mutex<Progress>,
    pub(super) evicted: Notify,
}

impl Connection {
    pub(super) fn new(peer: Peer, now: Instant) -> Self {
        let progress = Progress {
            in_flight: 0,
            begun: now,
            served: false,
            reading: false,
            since: now,
            ended: Vec::new(),
        };
        Self { peer, progress: Mutex::new(progress), evicted: Notify::new() }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Plain values, whole after every statement: a panic elsewhere does not spoil them.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it is over unless something happens.
    pub(super) fn deadline(&self, limits: &Limits) -> Instant {
        let progress = self.progress();
        if progress.in_flight > 0 {
            (progress.since + limits.stall).min(progress.begun + limits.request)
        } else if progress.reading || !progress.served {
            progress.since + limits.head
        } else {
            progress.since + limits.idle
        }
    }

    /// A request's head has come in whole.
    pub(super) fn begin(self: &Arc<Self>, now: Instant) -> InFlight {
        let mut progress = self.progress();
        if progress.in_flight == 0 {
            progress.begun = now;
        }
        progress.in_flight += 1;
        progress.since = now;
        InFlight { connection: Arc::clone(self), then: None, is_whole: false }
    }

    fn settle(&self, now: Instant) {
        let ended = {
            let mut progress = self.progress();
            let ended = std::mem::take(&mut progress.ended);
            progress.finish(ended.len(), now);
            ended
        };
        for then in ended.into_iter().flatten() {
            then();
        }
    }
}

impl Progress {
    fn finish(&mut self, requests: usize, now: Instant) {
        if requests > 0 {
            self.in_flight -= requests;
            if self.in_flight == 0 {
                self.served = true;
                self.reading = false;
                self.since = now;
            }
        }
    }
}

/// A request under way.
pub(super) struct InFlight {
    connection: Arc<Connection>,
    then: Option<Then>,
    is_whole: bool,
}

impl InFlight {
    /// What to do once the answer was written out whole, and only then.
    pub(super) fn then(&mut self, then: impl FnOnce() + Send + 'static) {
        self.then = Some(Box::new(then));
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut progress = self.connection.progress();
        if self.is_whole {
            progress.ended.push(self.then.take());
        } else {
            progress.finish(1, Instant::now());
        }
    }
}

/// A response's body that knows when it was handed over whole.
pub(super) struct Tracked {
    inner: Body,
    rest: Bytes,
    in_flight: InFlight,
}

impl Tracked {
    pub(super) fn new(inner: Body, in_flight: InFlight) -> Self {
        Self { inner, rest: Bytes::new(), in_flight }
    }
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        while self.rest.is_empty() {
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                Poll::Ready(None) => {
                    self.in_flight.is_whole = true;
                    return Poll::Ready(None);
                }
                other => return other,
            }
        }
        let piece = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(piece);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // The server does not ask for more when the end is announced with the last piece.
        self.in_flight.is_whole |= http_body::Body::is_end_stream(self);
    }
}

/// A stream that tells its connection how it gets on.
pub(super) struct Watched<S> {
    stream: S,
    connection: Arc<Connection>,
    /// HTTP/2 also talks between requests, so octets say nothing of a request there.
    is_http2: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, connection: Arc<Connection>, is_http2: bool) -> Self {
        Self { stream, connection, is_http2 }
    }

    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(1..)) = result {
            let mut progress = self.connection.progress();
            if progress.in_flight > 0 {
                progress.since = Instant::now();
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if !self.is_http2 && buffer.filled().len() > before {
            let mut progress = self.connection.progress();
            if progress.in_flight == 0 && !progress.reading {
                progress.reading = true;
                // The first request's time runs from the beginning of the connection.
                if progress.served {
                    progress.since = Instant::now();
                }
            }
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, octets);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// The server flushes when it has written all it has, so what ended before is now out.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        if let Poll::Ready(Ok(())) = result {
            self.connection.settle(Instant::now());
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// All connections of a server.
pub(super) struct Table {
    max: usize,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    next: u64,
    taken: HashMap<u64, Arc<Connection>>,
}

/// A place in the table; dropping it frees it.
pub(super) struct Place {
    table: Arc<Table>,
    id: u64,
    pub(super) connection: Arc<Connection>,
}

impl Table {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max: max.max(1), places: Mutex::default() })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // Entries go in and out whole.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a newcomer; whoever has to leave for it is told.
    pub(super) fn enter(self: &Arc<Self>, peer: Peer, now: Instant) -> Place {
        let mut places = self.places();
        if places.taken.len() >= self.max
            && let Some(id) = places.weakest()
            && let Some(connection) = places.taken.remove(&id)
        {
            connection.evicted.notify_one();
        }
        let id = places.next;
        places.next += 1;
        let connection = Arc::new(Connection::new(peer, now));
        places.taken.insert(id, Arc::clone(&connection));
        Place { table: Arc::clone(self), id, connection }
    }
}

impl Places {
    /// Who leaves first.
    fn weakest(&self) -> Option<u64> {
        let mut by_peer: HashMap<Peer, usize> = HashMap::new();
        for connection in self.taken.values() {
            *by_peer.entry(connection.peer).or_default() += 1;
        }
        self.taken
            .iter()
            .min_by_key(|(id, connection)| {
                let progress = connection.progress();
                let is_light = by_peer[&connection.peer] * 2 <= self.taken.len();
                (progress.in_flight > 0, is_light, progress.since, **id)
            })
            .map(|(id, _)| *id)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.places().taken.remove(&self.id);
    }
}

/// Why a connection that the server did not want to end has ended; `None`: by itself.
pub(super) type Ended = Option<Closed>;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn peer(address: &str) -> Peer {
        Peer::of(SocketAddr::new(address.parse().unwrap(), 1))
    }

    fn is_evicted(place: &Place) -> bool {
        !place.table.places().taken.contains_key(&place.id)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_longest_without_a_request_leaves_first() {
        let (table, now) = (Table::new(2), Instant::now());
        let asked = table.enter(peer("192.0.2.1"), now);
        let _request = asked.connection.begin(now);
        let silent = table.enter(peer("192.0.2.1"), now + SECOND);
        let _newcomer = table.enter(peer("192.0.2.1"), now + 2 * SECOND);
        assert!(!is_evicted(&asked));
        assert!(is_evicted(&silent));
    }

    #[test]
    fn among_those_with_requests_the_one_without_progress_leaves() {
        let (table, now) = (Table::new(2), Instant::now());
        let [stalled, lively] = [now, now].map(|now| table.enter(peer("192.0.2.1"), now));
        let _requests = [stalled.connection.begin(now), lively.connection.begin(now)];
        lively.connection.progress().since = now + SECOND;
        let _newcomer = table.enter(peer("192.0.2.1"), now + 2 * SECOND);
        assert!(is_evicted(&stalled));
        assert!(!is_evicted(&lively));
    }

    #[test]
    fn a_peer_with_most_of_the_places_gives_way_to_others() {
        let (table, now) = (Table::new(3), Instant::now());
        let other = table.enter(peer("198.51.100.1"), now);
        // One owner's IPv6 network counts as one peer.
        let many = [
            table.enter(peer("2001:db8::1"), now + SECOND),
            table.enter(peer("2001:db8::2"), now + 2 * SECOND),
        ];
        let _newcomer = table.enter(peer("203.0.113.1"), now + 3 * SECOND);
        assert!(!is_evicted(&other), "though it has waited longest");
        assert!(is_evicted(&many[0]));
    }

    #[test]
    fn octets_of_a_head_do_not_extend_its_time() {
        let limits = Limits::default();
        let now = Instant::now();
        let connection = Arc::new(Connection::new(peer("192.0.2.1"), now));
        assert_eq!(connection.deadline(&limits), now + limits.head);
        connection.progress().reading = true;
        assert_eq!(connection.deadline(&limits), now + limits.head);
        let mut request = connection.begin(now + SECOND);
        assert_eq!(connection.deadline(&limits), now + SECOND + limits.stall);
        // Octets of the answer do, up to a limit of their own.
        connection.progress().since = now + limits.request;
        assert_eq!(connection.deadline(&limits), now + SECOND + limits.request);
        request.is_whole = true;
        drop(request);
        connection.settle(now + 9 * SECOND);
        assert_eq!(connection.deadline(&limits), now + 9 * SECOND + limits.idle);
    }

    #[test]
    fn only_a_whole_answer_that_was_flushed_counts_as_given() {
        let now = Instant::now();
        let connection = Arc::new(Connection::new(peer("192.0.2.1"), now));
        let given = Arc::new(Mutex::new(Vec::new()));
        let request = |name: &'static str, is_whole| {
            let given = Arc::clone(&given);
            let mut request = connection.begin(now);
            request.then(move || given.lock().unwrap().push(name));
            request.is_whole = is_whole;
        };
        request("broken off", false);
        request("whole", true);
        assert_eq!(*given.lock().unwrap(), [""; 0], "nothing is flushed yet");
        connection.settle(now);
        assert_eq!(*given.lock().unwrap(), ["whole"]);
    }
}
