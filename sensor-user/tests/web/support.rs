//! A server on loopback, and a client that sends exactly the given bytes.

use sensor_common::{Class, Slot, Transport};
use sensor_counters::NetworkLabel;
use sensor_user::counters::port_names::PortTable;
use sensor_user::counters::totals::{PortLabel, Tally, Totals};
use sensor_user::country::Country;
use sensor_user::exposition::{Exposition, SensorInfo};
use sensor_user::ledger::Today;
use sensor_user::shown::{Inputs, Status};
use sensor_user::web::{Limits, Server, WebConfig, WebState};
use sensor_user::who::lists::NO_LIST;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running server.
pub(crate) struct Serving {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) exposition: Arc<Exposition>,
    runtime: Runtime,
    end: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

pub(crate) fn config(listen: &[&str]) -> WebConfig {
    let listen = listen.iter().map(|&address| address.to_owned()).collect();
    WebConfig { listen, ..WebConfig::default() }
}

pub(crate) fn info() -> SensorInfo {
    SensorInfo {
        sensor: "<b>tokyo & \"1\"</b>".to_owned(),
        timezone: "Asia/Tokyo".to_owned(),
        interfaces: vec!["eth0".to_owned()],
        xdp_modes: vec!["native".to_owned()],
        version: "0.1.0".to_owned(),
        revision: "0123abc".to_owned(),
    }
}

impl Serving {
    /// On a free port of 127.0.0.1, with this hold.
    pub(crate) fn start(hold: Duration) -> Self {
        Self::with(&config(&["127.0.0.1:0"]), hold)
    }

    /// On a free port of 127.0.0.1, with these limits and no hold.
    pub(crate) fn limited(limits: Limits) -> Self {
        Self::with(&WebConfig { limits, ..config(&["127.0.0.1:0"]) }, Duration::ZERO)
    }

    pub(crate) fn with(config: &WebConfig, hold: Duration) -> Self {
        Self::with_gate(config, hold, || ())
    }

    /// As `with`; `gate` is called before each status is made.
    pub(crate) fn with_gate(
        config: &WebConfig,
        hold: Duration,
        gate: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let bound = Server::bind(config).unwrap();
        let addresses = bound.addresses();
        let exposition = Arc::new(Exposition::new(hold, BTreeSet::new()).unwrap());
        let source = Arc::clone(&exposition);
        let status = move || {
            gate();
            let totals = source.totals().unwrap_or_default();
            Status::new(Inputs {
                info: &info(),
                totals: &totals,
                today: Some(&Today {
                    total: totals.ports.values().fold(Tally::default(), |mut total, tally| {
                        total += *tally;
                        total
                    }),
                    ports: totals
                        .ports
                        .iter()
                        .filter_map(|(label, tally)| match label {
                            PortLabel::Own(slot) => Some((*slot, *tally)),
                            PortLabel::Rest(_) => None,
                        })
                        .collect(),
                    countries: totals.countries.iter().map(|(country, tally)| (*country, *tally)).collect(),
                    ..Today::default()
                }),
                ports: &PortTable::default(),
                health: source.health(),
                since: None,
                notes: &[],
                now: jiff::Timestamp::now(),
                instant: Instant::now(),
            })
        };
        let state = WebState { exposition: Arc::clone(&exposition), status: Arc::new(status) };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let task = runtime.spawn(async move {
            let ended = async {
                let _ = ended.await;
            };
            bound.serve(state, ended).await.unwrap();
        });
        Self { addresses, exposition, runtime, end: Some(end), task: Some(task) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Asks the server to end, and waits until it accepts no connection.
    pub(crate) fn begin_end(&mut self) {
        drop(self.end.take());
        self.until("it listens on no port", |serving| TcpStream::connect(serving.address()).is_err());
    }

    /// Ends the server and returns how long that took.
    pub(crate) fn end(&mut self) -> Duration {
        let begun = Instant::now();
        drop(self.end.take());
        let task = self.task.take().expect("ended once");
        self.runtime.block_on(task).unwrap();
        begun.elapsed()
    }

    /// Runs a client in the server's runtime.
    pub(crate) fn run<F: Future>(&self, client: F) -> F::Output {
        self.runtime.block_on(client)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        stream
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: sensor\r\nconnection: close\r\n\r\n"))
    }

    /// Sends `request` and reads until the server ends the connection.
    pub(crate) fn ask(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        Answer::parse(&answer)
    }

    /// The value of a self-metric that the server shows of itself.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.exposition.render(Instant::now()).unwrap().text;
        let text = String::from_utf8(text).unwrap();
        let line =
            text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("no {series}"));
        line.trim().parse().unwrap()
    }

    /// Waits until `is_so`.
    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < Duration::from_mins(1), "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// One answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| {
            panic!("no whole head in {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)]))
        });
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(": ").unwrap();
                (name.to_ascii_lowercase(), value.to_owned())
            })
            .collect();
        Self { status, headers, body: bytes[end + 4..].to_vec() }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// `accesses` to one port from Japan, and nothing else.
pub(crate) fn accesses(port: u16, accesses: u64) -> Totals {
    let mut totals = Totals::default();
    let tally = Tally { accesses, sources: 1 };
    totals.packets.entry(Class::Access).or_default().packets = accesses;
    totals.ports.insert(PortLabel::Own(Slot::new(Transport::Tcp, port)), tally);
    totals.countries.insert(Country::from_code("JP").unwrap(), tally);
    totals.lists.insert(NO_LIST.to_owned(), tally);
    totals.networks.insert(NetworkLabel::Nowhere, tally);
    totals
}

/// More than a megabyte of text: more than all buffers on the way to a client hold.
pub(crate) fn large() -> Arc<Totals> {
    let mut totals = Totals::default();
    for port in 0..10_000 {
        let tally = Tally { accesses: 1_000_000 + u64::from(port), sources: 1_000 };
        totals.ports.insert(PortLabel::Own(Slot::new(Transport::Tcp, port)), tally);
    }
    Arc::new(totals)
}
