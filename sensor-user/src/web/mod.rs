//! The HTTP server for `/metrics`, the health checks, `/api/v1/status` and the landing page.
//!
//! [`Server::bind`] takes the addresses before anything attaches, [`Bound::serve`] answers on them.
//! No client can keep another from being answered: there are bounds on connections, heads, time and
//! work, and places are shared out by peer (the rules are in `connection`). `/metrics` is rendered
//! outside of the runtime's threads, once for all who ask within a moment, from a snapshot, so that
//! scrapes and drains do not wait for each other.

mod auth;
mod cache;
mod config;
mod connection;
mod routes;
mod throttle;

pub use config::WebConfigError;
pub(crate) use config::own_certificate;

use crate::config::DEFAULT_TELEMETRY_PATH;
use crate::exposition::{Closed, Exposition};
use crate::shown::Status;
use crate::system::clock;
use config::{LoadedSecurity, Security};
use connection::{ConnectionPlace, ConnectionTable, LOOK, Peer, Tracked, Watched};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use routes::Routes;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use throttle::Throttle;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes that the head of a request may have.
const MAX_HEAD: usize = 32 * 1024;

/// Header fields that a request may have.
const MAX_FIELDS: usize = 64;

/// Bytes of an answer that the kernel holds for a client: what clients that never read can cost.
const SEND_BUFFER: usize = 256 * 1024;

/// How long answers under way may still take when the server ends.
const GRACE: Duration = Duration::from_secs(1);

/// Connections that the kernel completes before they are accepted; it takes no more than
/// `net.core.somaxconn`, 4096 by default.
const BACKLOG: i32 = 4096;

/// Descriptors that the rest of the process may need, and connections that have lost their place and are
/// about to close.
const OTHER_DESCRIPTORS: u64 = 512;

/// How many connections, and how long a client of one is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; one peer has a quarter of them at most.
    pub connections: usize,
    /// From the connection, or the first byte of a further request, to the end of the head; a TLS
    /// handshake included.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// Without a byte of the answer being taken.
    pub stall: Duration,
    /// From the beginning of the answer to its last byte.
    pub request: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            // On a machine with too much to do, clients are late as well.
            head: Duration::from_secs(10),
            // Longer than any common scrape interval, so that a scraper need not connect again.
            idle: Duration::from_secs(150),
            stall: Duration::from_secs(20),
            request: Duration::from_mins(1),
        }
    }
}

/// Where and how to serve.
#[derive(Clone, Debug)]
pub struct WebConfig {
    /// Addresses as `--web.listen-address` has them: `127.0.0.1:9477`, `[::1]:9477`,
    /// `localhost:9477`, or `:9477` for all addresses of the machine.
    pub listen: Vec<String>,
    /// `--web.config.file`.
    pub config_file: Option<PathBuf>,
    /// Whether systemd hands over the sockets, instead of `listen`.
    pub systemd_socket: bool,
    /// The path of the metrics.
    pub telemetry_path: String,
    /// Bounds.
    pub limits: Limits,
}

impl Default for WebConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            config_file: None,
            systemd_socket: false,
            telemetry_path: DEFAULT_TELEMETRY_PATH.to_owned(),
            limits: Limits::default(),
        }
    }
}

/// Why the server cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Not an address, or an unknown name.
    #[error(
        "`--web.listen-address {address}`: {source}; write it as 127.0.0.1:9477, [::1]:9477, \
         or :9477 for all addresses"
    )]
    Address {
        /// As written.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process listens there.
    #[error(
        "listen on {address}: address already in use; another `teiten run`, or another program, \
         serves there: end it, or name another with `--web.listen-address`"
    )]
    InUse {
        /// Where.
        address: SocketAddr,
    },
    /// The port is for the privileged.
    #[error(
        "listen on {address}: {source}; ports below 1024 need CAP_NET_BIND_SERVICE, \
         others can be named with `--web.listen-address`"
    )]
    Denied {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Anything else, as that the address is not one of this machine.
    #[error("listen on {address}: {source}; name another with `--web.listen-address`")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There are no sockets of systemd, or none to listen on.
    #[error(
        "--web.systemd-socket: {reason}; start the socket unit (systemctl start teiten.socket), \
         or leave the option out"
    )]
    Systemd {
        /// What was found.
        reason: String,
    },
    /// `--web.config.file` cannot be used.
    #[error("--web.config.file: {0}")]
    Config(#[from] WebConfigError),
}

/// The HTTP server.
pub struct Server;

/// A server that has its addresses; clients wait until it serves.
#[derive(Debug)]
pub struct Bound {
    listeners: Vec<(TcpListener, SocketAddr)>,
    security: Security,
    telemetry_path: String,
    limits: Limits,
}

/// What is served.
#[derive(Clone)]
pub struct WebState {
    /// `/metrics`, readiness, and where the server's own figures go.
    pub exposition: Arc<Exposition>,
    /// `/api/v1/status` and the landing page. Called on a thread that may block, at most once for
    /// each change and second.
    pub status: Arc<dyn Fn() -> Status + Send + Sync>,
}

/// The socket addresses that a written address means.
fn resolve(address: &str) -> Result<Vec<SocketAddr>, BindError> {
    let wrong = |source| BindError::Address { address: address.to_owned(), source };
    let all = format!("[::]{address}");
    let to_resolve = if address.starts_with(':') { &all } else { address };
    let resolved: Vec<_> = to_resolve.to_socket_addrs().map_err(wrong)?.collect();
    if resolved.is_empty() { Err(wrong(io::ErrorKind::NotFound.into())) } else { Ok(resolved) }
}

/// Raises the limit on open files to what `connections` need beside the rest of the process, where the hard
/// limit allows it; how many connections there can be.
fn connections_within_descriptors(connections: usize) -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let wanted = connections as u64 + OTHER_DESCRIPTORS;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return connections };
    if soft >= wanted || (hard >= wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok()) {
        return connections;
    }
    let fewer = soft.saturating_sub(OTHER_DESCRIPTORS).max(8) as usize;
    tracing::warn!(
        limit = soft,
        wanted,
        connections = fewer,
        "the limit on open files is too low for all HTTP connections; serving fewer at a time. Raise it \
         (LimitNOFILE=, ulimit -n)"
    );
    fewer
}

/// Has the kernel hold connections back until their client has sent something, for some seconds: silent
/// ones take no place, and a request is there when its connection is.
fn accept_deferred(socket: &impl AsRawFd) -> io::Result<()> {
    let seconds: libc::c_int = 3;
    // SAFETY: the descriptor is open, and the value lives through the call and has the size given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of_val(&seconds) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Listens on one address. `is_v6_only` keeps `[::]` from taking IPv4 too, when that has a listener
/// of its own.
fn listen(address: SocketAddr, is_v6_only: bool) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(is_v6_only)?;
    }
    // Connections of an earlier process may still linger on the port.
    socket.set_reuse_address(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    accept_deferred(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The sockets that systemd hands over.
fn systemd_sockets() -> Result<Vec<(TcpListener, SocketAddr)>, BindError> {
    let wrong = |reason: String| BindError::Systemd { reason };
    let mut sockets = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..sockets.len() {
        let listener = sockets
            .take_tcp_listener(index)
            .and_then(|listener| listener.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .and_then(|listener| {
                listener.set_nonblocking(true)?;
                accept_deferred(&listener)?;
                Ok((listener.local_addr()?, listener))
            })
            .map_err(|error| wrong(format!("socket {index} is not one to listen on by TCP: {error}")))?;
        listeners.push((listener.1, listener.0));
    }
    if listeners.is_empty() {
        Err(wrong("systemd has handed over no socket".to_owned()))
    } else {
        Ok(listeners)
    }
}

impl Server {
    /// Reads `--web.config.file` and takes all addresses, so that what is wrong is known before
    /// anything is attached. Needs no runtime.
    ///
    /// # Errors
    /// [`BindError`] names the address or the file, and the way out.
    pub fn bind(config: &WebConfig) -> Result<Bound, BindError> {
        let security = Security::load(config.config_file.as_deref(), Instant::now())?;
        if config.systemd_socket {
            let listeners = systemd_sockets()?;
            let telemetry_path = config.telemetry_path.clone();
            return Ok(Bound { listeners, security, telemetry_path, limits: config.limits });
        }
        let mut addresses = Vec::new();
        for address in &config.listen {
            for address in resolve(address)? {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        let mut listeners: Vec<(TcpListener, SocketAddr)> = Vec::new();
        for address in &addresses {
            let has_v4 = addresses.iter().any(|other| other.is_ipv4() && other.port() == address.port());
            let listener = listen(*address, has_v4).map_err(|source| match source.kind() {
                io::ErrorKind::AddrInUse => BindError::InUse { address: *address },
                io::ErrorKind::PermissionDenied => BindError::Denied { address: *address, source },
                _ => BindError::Listen { address: *address, source },
            })?;
            let local =
                listener.local_addr().map_err(|source| BindError::Listen { address: *address, source })?;
            listeners.push((listener, local));
        }
        let telemetry_path = config.telemetry_path.clone();
        Ok(Bound { listeners, security, telemetry_path, limits: config.limits })
    }
}

impl Bound {
    /// The addresses, with the ports that the kernel chose for port 0.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|(_, address)| *address).collect()
    }

    /// Serves until `shutdown` is ready; answers under way get a second to be finished.
    ///
    /// # Errors
    /// When a listener cannot be handed to the runtime that this runs in.
    pub async fn serve(self, state: WebState, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let table = ConnectionTable::new(connections_within_descriptors(self.limits.connections));
        let service = Arc::new(Service {
            routes: Routes::new(state.clone(), self.security, &self.telemetry_path),
            exposition: state.exposition,
            limits: self.limits,
            accept_failures: Throttle::default(),
            violations: Throttle::default(),
        });
        let (end, is_ending) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for (listener, address) in self.listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tracing::info!(%address, "serving HTTP");
            tasks.spawn(accept(listener, Arc::clone(&service), Arc::clone(&table), is_ending.clone()));
        }
        drop(is_ending);
        shutdown.await;
        end.send_replace(true);
        let all_ended = async { while tasks.join_next().await.is_some() {} };
        // What has not ended by then is aborted with the set.
        let _ = tokio::time::timeout(GRACE, all_ended).await;
        Ok(())
    }
}

struct Service {
    routes: Routes,
    exposition: Arc<Exposition>,
    limits: Limits,
    accept_failures: Throttle,
    violations: Throttle,
}

/// Whether the client has sent nothing yet.
fn is_silent(stream: &TcpStream) -> bool {
    let mut first = [std::mem::MaybeUninit::uninit()];
    socket2::SockRef::from(stream)
        .peek(&mut first)
        .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Accepts connections until the server ends, and waits for those that are open.
async fn accept(
    listener: tokio::net::TcpListener,
    service: Arc<Service>,
    table: Arc<ConnectionTable>,
    mut is_ending: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = is_ending.wait_for(|is_ending| *is_ending) => break,
            // Keeps the set no larger than the number of open connections.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let is_silent = is_silent(&stream);
                let place = loop {
                    match table.enter(Peer::of(address), is_silent, Instant::now()) {
                        Some(place) => break place,
                        None => tokio::time::sleep(LOOK).await,
                    }
                };
                connections.spawn(serve(stream, place, Arc::clone(&service), is_ending.clone()));
            }
            // The client has gone already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Descriptors or memory are short: a connection less frees some.
                table.make_room();
                if let Some(failures) = service.accept_failures.count(Instant::now()) {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(
                        error,
                        failures,
                        "cannot accept an HTTP connection; closed another one to make room. Raise the limit \
                         on open files (LimitNOFILE=, ulimit -n) if this lasts"
                    );
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// One connection, from accept to end.
async fn serve(
    stream: TcpStream,
    place: ConnectionPlace,
    service: Arc<Service>,
    is_ending: watch::Receiver<bool>,
) {
    let health = service.exposition.health();
    health.http_opened();
    place.connection.meet(&stream).await;
    let ended = converse(stream, &place, &service, is_ending).await;
    health.http_gone(ended.err());
    if matches!(ended, Err(Closed::Protocol | Closed::Handshake))
        && let Some(connections) = service.violations.count(Instant::now())
    {
        tracing::warn!(
            connections,
            "closed HTTP connections of clients that broke the protocol; counts are not affected. \
             teiten_http_connections_closed_total counts them; the next line comes in ten minutes at the earliest"
        );
    }
}

async fn converse(
    stream: TcpStream,
    place: &ConnectionPlace,
    service: &Arc<Service>,
    is_ending: watch::Receiver<bool>,
) -> Result<(), Closed> {
    // Answers are written at once and whole.
    let _ = stream.set_nodelay(true);
    let security = service.routes.security().await;
    let Some(tls) = &security.tls else {
        return drive(stream, false, place, service, &security, is_ending).await;
    };
    let is_plain = async {
        let mut first = [0];
        // TLS begins with the type of a record, which is no letter.
        stream.peek(&mut first).await.is_ok_and(|_| first[0].is_ascii_uppercase())
    };
    if place.connection.guard(&service.limits, is_plain).await? {
        // However that ends, what the client sent was no handshake.
        let _ = place.connection.guard(&service.limits, refuse_plain(stream)).await;
        return Err(Closed::Handshake);
    }
    let handshake = tokio_rustls::TlsAcceptor::from(Arc::clone(&tls.config)).accept(stream);
    let stream = match place.connection.guard(&service.limits, handshake).await? {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "TLS handshake");
            return Err(Closed::Handshake);
        }
    };
    let (_, session) = stream.get_ref();
    if !tls.allows(session.peer_certificates()) {
        tracing::debug!("the client's certificate has none of client_allowed_sans");
        return Err(Closed::Handshake);
    }
    // HTTP/2 needs TLS, as in exporter-toolkit.
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    drive(stream, is_http2, place, service, &security, is_ending).await
}

/// Tells a client that speaks HTTP without TLS so, in the words of Go's servers.
async fn refuse_plain(mut stream: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\n\
        Client sent an HTTP request to an HTTPS server.\n";
    if stream.write_all(ANSWER).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    // Closing with something unread resets the connection, and the answer may be lost with it.
    let _ = tokio::io::copy(&mut stream.take(MAX_HEAD as u64), &mut tokio::io::sink()).await;
}

/// The connection was opened under other terms than hold now.
#[derive(Debug, thiserror::Error)]
#[error("--web.config.file has changed; connect again")]
struct Outdated;

/// Whether the client broke the protocol, and did not just go away.
fn is_violation(error: &(dyn std::error::Error + 'static)) -> bool {
    let is_io = std::iter::successors(Some(error), |error| error.source())
        .any(<dyn std::error::Error>::is::<io::Error>);
    let is_harmless = error
        .downcast_ref::<hyper::Error>()
        .is_some_and(|error| error.is_user() || error.is_incomplete_message() || error.is_canceled());
    !is_io && !is_harmless
}

/// Speaks HTTP on `stream` until it ends, its time is up, or its place is taken.
async fn drive<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    is_http2: bool,
    place: &ConnectionPlace,
    service: &Arc<Service>,
    security: &Arc<LoadedSecurity>,
    mut is_ending: watch::Receiver<bool>,
) -> Result<(), Closed> {
    let connection = Arc::clone(&place.connection);
    let answer = {
        let (connection, service) = (Arc::clone(&connection), Arc::clone(service));
        let opened = Arc::clone(security);
        service_fn(move |request: Request<Incoming>| {
            let mut in_flight = connection.begin(Instant::now());
            let (connection, service) = (Arc::clone(&connection), Arc::clone(&service));
            let opened = Arc::clone(&opened);
            async move {
                let security = service.routes.security().await;
                if security.terms() != opened.terms() {
                    return Err(Outdated);
                }
                let response = service.routes.answer(request, &security, &connection).await;
                in_flight.answered(Instant::now());
                if let Some(routes::Given(given)) = response.extensions().get() {
                    let (exposition, shown) = (Arc::clone(&service.exposition), *given);
                    in_flight.then(move || exposition.scraped(shown, clock::now()));
                }
                Ok::<Response<Tracked>, Outdated>(response.map(|body| Tracked::new(body, in_flight)))
            }
        })
    };
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if is_http2 { builder.http2_only() } else { builder.http1_only() };
    // `guard` knows more than a timeout for heads, such as whether one has begun.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
    builder.http1().max_buf_size(MAX_HEAD).max_headers(MAX_FIELDS);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(16);
    builder.http2().max_header_list_size(MAX_HEAD as u32).max_send_buf_size(SEND_BUFFER);
    let stream = TokioIo::new(Watched::new(stream, Arc::clone(&connection), is_http2));
    let mut changes = service.routes.follow_security();
    let conversation = async {
        let mut conversation = std::pin::pin!(builder.serve_connection(stream, answer));
        tokio::select! {
            result = conversation.as_mut() => return result,
            _ = is_ending.wait_for(|is_ending| *is_ending) => {}
            _ = changes.wait_for(|now| now.terms() != security.terms()) => {}
        }
        conversation.as_mut().graceful_shutdown();
        conversation.await
    };
    if let Err(error) = connection.guard(&service.limits, conversation).await? {
        tracing::debug!(%error, "HTTP connection");
        if is_violation(&*error) {
            return Err(Closed::Protocol);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(listen: &[&str]) -> Result<Bound, BindError> {
        let listen = listen.iter().map(|&address| address.to_owned()).collect();
        Server::bind(&WebConfig { listen, ..WebConfig::default() })
    }

    #[test]
    fn an_address_in_use_is_named_with_the_way_out() {
        let taken = bind(&["127.0.0.1:0"]).unwrap();
        let address = taken.addresses()[0].to_string();
        let error = bind(&[&address]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "listen on {address}: address already in use; another `teiten run`, or another program, \
                 serves there: end it, or name another with `--web.listen-address`"
            )
        );
    }

    #[test]
    fn what_is_no_address_and_what_is_not_here_are_told_apart() {
        let error = bind(&["9477"]).unwrap_err();
        assert!(matches!(&error, BindError::Address { address, .. } if address == "9477"), "{error}");
        assert!(
            error.to_string().ends_with("write it as 127.0.0.1:9477, [::1]:9477, or :9477 for all addresses")
        );
        // TEST-NET-1 is not assigned.
        let error = bind(&["192.0.2.1:9477"]).unwrap_err();
        assert!(error.to_string().starts_with("listen on 192.0.2.1:9477: "), "{error}");
    }

    #[test]
    fn ipv4_and_ipv6_wildcards_share_a_port() {
        let port = bind(&["0.0.0.0:0"]).unwrap().addresses()[0].port();
        let bound = bind(&[&format!("0.0.0.0:{port}"), &format!("[::]:{port}")]).unwrap();
        assert_eq!(bound.addresses().len(), 2);
    }

    #[test]
    fn without_sockets_of_systemd_there_is_nothing_to_listen_on() {
        let config = WebConfig { systemd_socket: true, ..WebConfig::default() };
        assert_eq!(
            Server::bind(&config).unwrap_err().to_string(),
            "--web.systemd-socket: systemd has handed over no socket; start the socket unit (systemctl start \
             teiten.socket), or leave the option out"
        );
    }

    #[test]
    fn an_address_named_twice_is_bound_once() {
        let port = bind(&["127.0.0.1:0"]).unwrap().addresses()[0].port();
        let address = format!("127.0.0.1:{port}");
        assert_eq!(bind(&[&address, &address]).unwrap().addresses().len(), 1);
    }
}
