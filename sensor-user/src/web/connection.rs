//! One place for each connection, the rules by which it keeps it, and how long a client is waited for.
//!
//! Places are shared out by peer. A peer has a quarter of them at most, and when all are taken, the
//! peer with the most gives one up; so a newcomer gets in whatever another peer does, and keeps its
//! place as long as it asks for less than others. Within a peer, the connection goes first that has gone
//! longest without doing its part, though not before it was looked at once.
//!
//! Time limits measure how long the client is waited for, never how long the server takes: a limit is
//! spent in steps, and a step that the server came late to, because it was busy, counts once. A client
//! that sends its request byte by byte, or reads the answer so, still runs out of steps.

use super::Limits;
use crate::exposition::Closed;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Answers go out in pieces of this many bytes, so that the end of one is known to within it.
const PIECE: usize = 64 * 1024;

/// How long it takes to look at a connection at most; the least that a timer can wait.
pub(super) const LOOK: Duration = Duration::from_millis(1);

/// A limit is spent in this many steps.
const STEPS: u32 = 8;

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
    /// How many of them wait for the server, not for the client.
    in_work: usize,
    /// Whether anything that the client may have sent was looked at.
    met: bool,
    /// Whether a request was ever answered.
    served: bool,
    /// Whether the head of a request has begun to come in.
    reading: bool,
    /// With requests under way: the last byte written, or the beginning of the last request or its
    /// answer. Without: the beginning of the wait.
    since: Instant,
    /// Steps that the client was waited for since then, the first of them not a whole one.
    waited: u32,
    /// Time that the client was waited for since the oldest of the requests under way began.
    taken: Duration,
    /// Answers handed over but not yet flushed.
    ended: Vec<Option<Then>>,
}

/// What the connections of one peer have in common.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// Places that the peer has; changed under the lock of the table.
    places: AtomicUsize,
    /// Whose turn it is among the peer's connections to have a password checked.
    pub(super) password: Arc<tokio::sync::Mutex<()>>,
}

/// One connection.
pub(super) struct Connection {
    peer: Peer,
    pub(super) share: Arc<Share>,
    /// Whose turn it is among the connection's requests to have a password checked.
    pub(super) password: Arc<tokio::sync::Mutex<()>>,
    progress: Mutex<Progress>,
    pub(super) evicted: Notify,
}

impl Connection {
    pub(super) fn new(peer: Peer, share: Arc<Share>, now: Instant) -> Self {
        let progress = Progress {
            in_flight: 0,
            in_work: 0,
            met: false,
            served: false,
            reading: false,
            since: now,
            waited: 0,
            taken: Duration::ZERO,
            ended: Vec::new(),
        };
        Self { peer, share, password: Arc::default(), progress: Mutex::new(progress), evicted: Notify::new() }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Plain values, whole after every statement: a panic elsewhere does not spoil them.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the runtime learn whether the client has sent something, before a connection may be
    /// evicted because it has no request: timers fire after the runtime has looked at its sockets.
    pub(super) async fn meet(&self, stream: &TcpStream) {
        let _ = tokio::time::timeout(LOOK, stream.readable()).await;
    }

    /// Drives `work` until it is done, or until the client was waited for longer than `limits` allow, or
    /// the place is needed for another; `work` has looked at what the client sent before that can be.
    pub(super) async fn guard<T>(&self, limits: &Limits, work: impl Future<Output = T>) -> Result<T, Closed> {
        let mut work = pin!(work);
        loop {
            let step = self.progress().limit(limits) / STEPS;
            let began = Instant::now();
            let look = std::future::poll_fn(|context| {
                let done = work.as_mut().poll(context);
                self.progress().met = true;
                done
            });
            tokio::select! {
                // The client's bytes come before the clock: they may have been here for long.
                biased;
                done = look => return Ok(done),
                () = self.evicted.notified() => return Err(Closed::Evicted),
                () = tokio::time::sleep(step) => {
                    // Timers fire at once after a clock was set back; the client was not waited for then.
                    if began.elapsed() < step {
                        tokio::task::yield_now().await;
                    } else if self.progress().wait(step, limits) {
                        return Err(Closed::Timeout);
                    }
                }
            }
        }
    }

    /// A request's head has come in whole.
    pub(super) fn begin(self: &Arc<Self>, now: Instant) -> InFlight {
        let mut progress = self.progress();
        if progress.in_flight == 0 {
            progress.taken = Duration::ZERO;
        }
        progress.in_flight += 1;
        progress.in_work += 1;
        progress.moved(now);
        InFlight { connection: Arc::clone(self), then: None, is_answered: false, is_whole: false }
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
    /// The limit that holds now.
    fn limit(&self, limits: &Limits) -> Duration {
        if self.in_flight > 0 {
            limits.stall
        } else if self.reading || !self.served {
            limits.head
        } else {
            limits.idle
        }
    }

    /// What leaves first has the least: no request under way, an answer that the client does not take,
    /// and then whichever has gone longest without progress.
    fn rank(&self) -> (bool, bool, bool, Instant) {
        (self.in_flight > 0, self.in_work > 0, !self.met, self.since)
    }

    /// The client did something.
    fn moved(&mut self, now: Instant) {
        self.since = now;
        self.waited = 0;
    }

    /// A step has passed; whether that was the last that the limits allow.
    fn wait(&mut self, step: Duration, limits: &Limits) -> bool {
        if self.in_work > 0 {
            return false;
        }
        self.waited += 1;
        if self.in_flight > 0 {
            self.taken += step;
        }
        self.waited > STEPS || self.taken >= limits.request
    }

    fn finish(&mut self, requests: usize, now: Instant) {
        if requests > 0 {
            self.in_flight -= requests;
            if self.in_flight == 0 {
                self.served = true;
                self.reading = false;
                self.taken = Duration::ZERO;
                self.moved(now);
            }
        }
    }
}

/// A request under way.
pub(super) struct InFlight {
    connection: Arc<Connection>,
    then: Option<Then>,
    is_answered: bool,
    is_whole: bool,
}

impl InFlight {
    /// The answer is there: from now on it is the client's turn.
    pub(super) fn answered(&mut self, now: Instant) {
        self.is_answered = true;
        let mut progress = self.connection.progress();
        progress.in_work -= 1;
        progress.moved(now);
    }

    /// What to do once the answer was written out whole, and only then.
    pub(super) fn then(&mut self, then: impl FnOnce() + Send + 'static) {
        self.then = Some(Box::new(then));
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut progress = self.connection.progress();
        if !self.is_answered {
            progress.in_work -= 1;
        }
        if self.is_whole {
            progress.ended.push(self.then.take());
        } else {
            progress.finish(1, Instant::now());
        }
    }
}

/// A response's body that knows when it was handed over whole.
pub(super) struct Tracked {
    rest: Bytes,
    in_flight: InFlight,
}

impl Tracked {
    pub(super) fn new(body: Bytes, in_flight: InFlight) -> Self {
        Self { rest: body, in_flight }
    }
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            self.in_flight.is_whole = true;
            return Poll::Ready(None);
        }
        let piece = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(piece);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
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
    /// HTTP/2 also talks between requests, so bytes say nothing of a request there.
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
                progress.moved(Instant::now());
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
                    progress.moved(Instant::now());
                }
            }
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
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
pub(super) struct ConnectionTable {
    max: usize,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    next: u64,
    taken: HashMap<u64, Arc<Connection>>,
    shares: HashMap<Peer, Arc<Share>>,
}

/// A place in the table; dropping it frees it.
pub(super) struct ConnectionPlace {
    table: Arc<ConnectionTable>,
    id: u64,
    pub(super) connection: Arc<Connection>,
}

impl ConnectionTable {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max: max.max(1), places: Mutex::default() })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // Entries go in and out whole.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a newcomer; the connection that leaves for it is notified. `None` when that one was not
    /// even looked at yet: the tasks of the connections have to run first. There is nothing to look at on
    /// one that `is_silent`.
    pub(super) fn enter(
        self: &Arc<Self>,
        peer: Peer,
        is_silent: bool,
        now: Instant,
    ) -> Option<ConnectionPlace> {
        let mut places = self.places();
        // The newcomer counts, so that of two peers alike the one that asks for more gives way.
        let of_peer = 1 + places.shares.get(&peer).map_or(0, |share| share.places.load(Ordering::Relaxed));
        if of_peer > (self.max / 4).max(1) {
            places.evict(|connection| (connection.peer == peer).then_some(0))?;
        } else if places.taken.len() >= self.max {
            places.evict(|connection| {
                let others = connection.share.places.load(Ordering::Relaxed);
                Some(if connection.peer == peer { of_peer } else { others })
            })?;
        }
        let id = places.next;
        places.next += 1;
        let share = Arc::clone(places.shares.entry(peer).or_default());
        share.places.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::new(peer, share, now));
        connection.progress().met = is_silent;
        places.taken.insert(id, Arc::clone(&connection));
        Some(ConnectionPlace { table: Arc::clone(self), id, connection })
    }

    /// Frees a place, when something else that connections hold has run out.
    pub(super) fn make_room(&self) {
        let _ = self.places().evict(|connection| Some(connection.share.places.load(Ordering::Relaxed)));
    }
}

impl Places {
    /// Of the connections with the greatest weight the weakest leaves; those without a weight stay.
    fn evict(&mut self, weight: impl Fn(&Connection) -> Option<usize>) -> Option<()> {
        let ranked = self.taken.iter().filter_map(|(id, connection)| {
            Some((Reverse(weight(connection)?), connection.progress().rank(), *id))
        });
        let (_, (_, _, is_unmet, _), id) = ranked.min()?;
        if is_unmet {
            return None;
        }
        self.remove(id);
        Some(())
    }

    fn remove(&mut self, id: u64) {
        let Some(connection) = self.taken.remove(&id) else { return };
        if connection.share.places.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.shares.remove(&connection.peer);
        }
        connection.evicted.notify_one();
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.table.places().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn peer(address: &str) -> Peer {
        Peer::of(SocketAddr::new(address.parse().unwrap(), 1))
    }

    /// A place for a connection that was looked at.
    fn enter(table: &Arc<ConnectionTable>, address: &str, now: Instant) -> ConnectionPlace {
        let place = table.enter(peer(address), false, now).expect("all others were looked at");
        place.connection.progress().met = true;
        place
    }

    fn is_evicted(place: &ConnectionPlace) -> bool {
        !place.table.places().taken.contains_key(&place.id)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_longest_without_a_request_leaves_first() {
        let (table, now) = (ConnectionTable::new(8), Instant::now());
        let asked = enter(&table, "192.0.2.1", now);
        let _request = asked.connection.begin(now);
        let silent = enter(&table, "192.0.2.1", now + SECOND);
        let _newcomer = enter(&table, "192.0.2.1", now + 2 * SECOND);
        assert!(!is_evicted(&asked));
        assert!(is_evicted(&silent));
    }

    #[test]
    fn among_those_with_requests_the_one_that_the_server_does_not_owe_an_answer_leaves() {
        let (table, now) = (ConnectionTable::new(8), Instant::now());
        let [working, reading] = [now, now + SECOND].map(|now| enter(&table, "192.0.2.1", now));
        let _working = working.connection.begin(now);
        let mut answered = reading.connection.begin(now);
        answered.answered(now + SECOND);
        let _newcomer = enter(&table, "192.0.2.1", now + 2 * SECOND);
        assert!(is_evicted(&reading));
        assert!(!is_evicted(&working));
    }

    #[test]
    fn what_was_not_looked_at_yet_does_not_leave() {
        let (table, now) = (ConnectionTable::new(4), Instant::now());
        let unmet = table.enter(peer("192.0.2.1"), false, now).unwrap();
        assert!(table.enter(peer("192.0.2.1"), false, now).is_none());
        assert!(!is_evicted(&unmet));
        unmet.connection.progress().met = true;
        let silent = table.enter(peer("192.0.2.1"), true, now).unwrap();
        assert!(is_evicted(&unmet));
        assert!(table.enter(peer("192.0.2.1"), false, now).is_some());
        assert!(is_evicted(&silent), "at once");
    }

    #[test]
    fn a_peer_has_a_quarter_of_the_places_at_most() {
        let (table, now) = (ConnectionTable::new(256), Instant::now());
        let other = enter(&table, "198.51.100.1", now);
        // One owner's IPv6 network is one peer.
        let many: Vec<_> =
            (0..1_000).map(|index| enter(&table, &format!("2001:db8::{index:x}"), now + SECOND)).collect();
        assert_eq!(many.iter().filter(|place| !is_evicted(place)).count(), 64);
        assert!(!is_evicted(many.last().unwrap()), "the newcomer is in");
        assert!(!is_evicted(&other), "though it has waited longest");
    }

    #[test]
    fn a_newcomer_gets_in_and_stays_whatever_heavier_peers_do() {
        let (table, now) = (ConnectionTable::new(8), Instant::now());
        let other = enter(&table, "198.51.100.1", now);
        let mut many = Vec::new();
        for index in 0..100_u32 {
            let address = format!("203.0.113.{}", index % 5);
            let place = enter(&table, &address, now + SECOND * index);
            // All of them keep the server busy, whichever leaves.
            many.push((place.connection.begin(now + SECOND * index), place));
        }
        assert!(!is_evicted(&other), "it has no request under way, and still stays");
        let newcomer = enter(&table, "192.0.2.1", now);
        assert!(!is_evicted(&newcomer) && !is_evicted(&other));
        assert_eq!(table.places().taken.len(), 8);
        drop((other, newcomer, many));
        assert!(table.places().taken.is_empty() && table.places().shares.is_empty());
    }

    /// Polls once.
    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(std::task::Waker::noop()))
    }

    #[tokio::test]
    async fn what_has_come_in_time_is_taken_however_late_the_server_looks() {
        let limits = Limits { head: Duration::from_millis(8), ..Limits::default() };
        let connection = Connection::new(peer("192.0.2.1"), Arc::default(), Instant::now());
        let (mut client, mut server) = tokio::io::duplex(64);
        let mut head = pin!(connection.guard(&limits, async {
            let mut head = [0; 4];
            server.read_exact(&mut head).await.map(|_| head)
        }));
        client.write_all(b"GE").await.unwrap();
        assert!(poll(head.as_mut()).is_pending(), "half a head");
        client.write_all(b"T ").await.unwrap();
        // The connection does not get to run until its time has passed.
        tokio::time::sleep(2 * limits.head).await;
        assert!(matches!(poll(head), Poll::Ready(Ok(Ok([b'G', b'E', b'T', b' '])))));
    }

    #[tokio::test]
    async fn what_is_here_is_looked_at_before_its_place_can_be_another_s() {
        let (table, now) = (ConnectionTable::new(4), Instant::now());
        let place = table.enter(peer("192.0.2.1"), false, now).unwrap();
        let limits = Limits::default();
        let mut request = None;
        let mut work = pin!(place.connection.guard(&limits, async {
            assert!(table.enter(peer("192.0.2.1"), false, now).is_none(), "it is being looked at");
            request = Some(place.connection.begin(now));
            std::future::pending::<()>().await;
        }));
        assert!(poll(work.as_mut()).is_pending());
        assert!(table.enter(peer("192.0.2.1"), false, now).is_some());
        assert!(is_evicted(&place));
        assert!(matches!(poll(work), Poll::Ready(Err(Closed::Evicted))));
    }

    #[tokio::test]
    async fn a_server_that_is_late_again_and_again_uses_up_a_step_each_time_and_no_more() {
        let limits = Limits { head: Duration::from_millis(8), ..Limits::default() };
        let connection = Connection::new(peer("192.0.2.1"), Arc::default(), Instant::now());
        let mut never = pin!(connection.guard(&limits, std::future::pending::<()>()));
        for _ in 0..STEPS {
            assert!(poll(never.as_mut()).is_pending());
            tokio::time::sleep(2 * limits.head).await;
        }
        assert!(poll(never.as_mut()).is_pending());
        tokio::time::sleep(2 * limits.head).await;
        assert!(matches!(poll(never), Poll::Ready(Err(Closed::Timeout))));
    }

    #[test]
    fn the_clients_time_runs_out_and_the_servers_does_not() {
        let (limits, now) = (Limits::default(), Instant::now());
        let connection = Arc::new(Connection::new(peer("192.0.2.1"), Arc::default(), now));
        // Steps until the end, as far as anybody can wait.
        let steps = || {
            let step = connection.progress().limit(&limits) / STEPS;
            (1..1_000).find(|_| connection.progress().wait(step, &limits))
        };
        assert_eq!(connection.progress().limit(&limits), limits.head);
        assert_eq!(steps(), Some(STEPS + 1));
        connection.progress().moved(now);
        let mut request = connection.begin(now);
        assert_eq!(steps(), None, "the server works");
        request.answered(now);
        assert_eq!(connection.progress().limit(&limits), limits.stall);
        assert_eq!(steps(), Some(STEPS + 1));
        // Bytes of the answer begin a new wait, up to a limit of their own.
        let taken = (1..1_000).find(|_| {
            connection.progress().moved(now);
            connection.progress().wait(limits.stall / STEPS, &limits)
        });
        let in_all = limits.request.as_secs_f64() / (limits.stall / STEPS).as_secs_f64();
        assert_eq!(taken, Some(in_all.ceil() as u32 - STEPS - 1));
        request.is_whole = true;
        drop(request);
        connection.settle(now);
        assert_eq!(connection.progress().limit(&limits), limits.idle);
        // Bytes of a further head do not extend its time.
        connection.progress().reading = true;
        assert_eq!(connection.progress().limit(&limits), limits.head);
        assert_eq!(steps(), Some(STEPS + 1));
    }

    #[test]
    fn only_a_whole_answer_that_was_flushed_counts_as_given() {
        let now = Instant::now();
        let connection = Arc::new(Connection::new(peer("192.0.2.1"), Arc::default(), now));
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
