//! What an unfriendly client cannot do. Most of it comes from the address of the one that scrapes, as
//! the worst case: the server cannot tell friend from foe by it.

use crate::support::{Answer, Serving, config, large};
use sensor_user::web::{Limits, WebConfig};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A whole scrape, while others misbehave.
fn scrape(serving: &Serving) {
    let answer = serving.get("/metrics");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body.len().to_string(), answer.headers["content-length"]);
}

/// Whether the server has ended the connection; waits for a while.
fn is_ended(stream: &mut TcpStream, wait: Duration) -> bool {
    stream.set_read_timeout(Some(wait)).unwrap();
    let mut answer = [0; 4096];
    loop {
        match stream.read(&mut answer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            Err(_) => return true,
        }
    }
}

#[test]
fn hundreds_of_half_open_connections_keep_no_scrape_waiting() {
    let serving = Serving::start(Duration::ZERO);
    serving.exposition.update(large());
    let half_open: Vec<_> = (0..600)
        .map(|index| {
            let mut stream = serving.connect();
            if index % 2 == 0 {
                stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: ").unwrap();
            }
            stream
        })
        .collect();
    scrape(&serving);
    assert!(serving.metric("teiten_http_connections ") <= Limits::default().connections as f64);
    // 300 have sent something.
    assert!(serving.metric("teiten_http_connections_closed_total{reason=\"evicted\"}") >= 236.0);
    drop(half_open);
}

/// Connects from this address of loopback.
fn connect_from(serving: &Serving, from: [u8; 4]) -> std::io::Result<TcpStream> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&serving.address().into())?;
    socket.set_read_timeout(Some(Duration::from_mins(1)))?;
    Ok(socket.into())
}

/// Asks on an open connection and reads the answer.
fn ask_again(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: s\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut more = [0; 1024];
    while !answer.ends_with(b"teiten is healthy\n") {
        match stream.read(&mut more)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => answer.extend(&more[..read]),
        }
    }
    Ok(())
}

#[test]
fn a_peer_that_asks_on_hundreds_of_connections_takes_no_place_from_another() {
    let serving = Arc::new(Serving::start(Duration::ZERO));
    serving.exposition.update(large());
    let mut connected = connect_from(&serving, [127, 0, 0, 3]).unwrap();
    ask_again(&mut connected).unwrap();

    let is_over = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU64::new(0));
    let flood: Vec<_> = (0..16)
        .map(|_| {
            let (serving, is_over, asked) = (Arc::clone(&serving), Arc::clone(&is_over), Arc::clone(&asked));
            std::thread::spawn(move || {
                // Each that is closed comes again at once.
                let mut open: Vec<Option<TcpStream>> = (0..32).map(|_| None).collect();
                while !is_over.load(Ordering::Relaxed) {
                    for place in &mut open {
                        if place.is_none() {
                            *place = connect_from(&serving, [127, 0, 0, 2]).ok();
                        }
                        let answered = place.as_mut().map(ask_again);
                        if !matches!(answered, Some(Ok(()))) {
                            *place = None;
                        }
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    serving.until("the flood has displaced connections of its own", |serving| {
        serving.metric("teiten_http_connections_closed_total{reason=\"evicted\"}") >= 100.0
    });
    for _ in 0..20 {
        let before = asked.load(Ordering::Relaxed);
        ask_again(&mut connected).expect("the connection from before is still open");
        let mut stream = connect_from(&serving, [127, 0, 0, 4]).unwrap();
        ask_again(&mut stream).expect("a newcomer gets in");
        ask_again(&mut stream).expect("and stays");
        scrape(&serving);
        serving.until("the flood continues", |_| asked.load(Ordering::Relaxed) > before);
    }
    is_over.store(true, Ordering::Relaxed);
    for thread in flood {
        thread.join().unwrap();
    }
}

#[test]
fn thousands_of_silent_connections_that_come_again_take_no_place_from_another() {
    let serving = Arc::new(Serving::start(Duration::ZERO));
    let mut connected = connect_from(&serving, [127, 0, 0, 3]).unwrap();
    ask_again(&mut connected).unwrap();
    let mut silent = std::collections::VecDeque::new();
    for round in 0..5_000 {
        silent.push_back(connect_from(&serving, [127, 0, 0, 2]).unwrap());
        if silent.len() > 400 {
            silent.pop_front();
        }
        if round % 250 == 0 {
            ask_again(&mut connected).expect("the connection from before is still open");
            ask_again(&mut connect_from(&serving, [127, 0, 0, 4]).unwrap()).expect("a newcomer gets in");
        }
    }
}

#[test]
fn a_slow_server_is_not_held_against_the_client() {
    let limits = Limits {
        head: Duration::from_millis(80),
        stall: Duration::from_millis(80),
        request: Duration::from_millis(80),
        ..Limits::default()
    };
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Mutex::new(released);
    let serving =
        Serving::with_gate(&WebConfig { limits, ..config(&["127.0.0.1:0"]) }, Duration::ZERO, move || {
            released.lock().unwrap().recv().unwrap();
        });
    let mut patient = serving.connect();
    patient.write_all(b"GET /api/v1/status HTTP/1.1\r\nhost: s\r\nconnection: close\r\n\r\n").unwrap();
    // One after the other, each that is slow itself uses up the limit that holds for all.
    for ended in 1..=3 {
        let mut slow = serving.connect();
        slow.write_all(b"GET").unwrap();
        serving.until("the slow client is ended", |serving| {
            serving.metric("teiten_http_connections_closed_total{reason=\"timeout\"}") >= f64::from(ended)
        });
    }
    release.send(()).unwrap();
    let mut answer = Vec::new();
    patient.read_to_end(&mut answer).unwrap();
    assert_eq!(Answer::parse(&answer).status, 200);
}

#[test]
fn clients_that_never_read_keep_no_scrape_and_no_drain_waiting() {
    let serving = Serving::start(Duration::ZERO);
    let totals = large();
    serving.exposition.update(Arc::clone(&totals));
    let mut stalled: Vec<_> = (0..400)
        .map(|_| {
            let mut stream = serving.connect();
            // Over and over, on one connection.
            let request = b"GET /metrics HTTP/1.1\r\nhost: s\r\n\r\n".repeat(20);
            stream.write_all(&request).unwrap();
            stream
        })
        .collect();
    for _ in 0..5 {
        let begun = Instant::now();
        serving.exposition.update(Arc::clone(&totals));
        let took = begun.elapsed();
        // Had it waited for one of them, then as long as that may stall.
        assert!(took < Limits::default().stall, "an update took {took:?}");
        scrape(&serving);
    }
    // They are still there and still ask; those that had to leave have noticed.
    for stream in &mut stalled {
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: s\r\n\r\n");
    }
    scrape(&serving);
}

#[test]
fn a_storm_of_connections_drowns_no_scrape() {
    let serving = Arc::new(Serving::start(Duration::ZERO));
    serving.exposition.update(large());
    let is_over = Arc::new(AtomicBool::new(false));
    let storm = {
        let (serving, is_over) = (Arc::clone(&serving), Arc::clone(&is_over));
        std::thread::spawn(move || {
            let mut open = std::collections::VecDeque::new();
            let mut count = 0_u32;
            while !is_over.load(Ordering::Relaxed) {
                if let Ok(mut stream) = TcpStream::connect(serving.address()) {
                    let _ = stream.write_all(b"GET / HTTP/1.1\r\n");
                    open.push_back(stream);
                    count += 1;
                }
                if open.len() > 300 {
                    open.pop_front();
                }
            }
            count
        })
    };
    for _ in 0..10 {
        scrape(&serving);
    }
    is_over.store(true, Ordering::Relaxed);
    assert!(storm.join().unwrap() > 100);
}

#[test]
fn a_megabyte_of_headers_is_refused() {
    let serving = Serving::start(Duration::ZERO);
    for head in [
        format!("GET / HTTP/1.1\r\nhost: s\r\nx: {}\r\n\r\n", "a".repeat(1_000_000)),
        format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(150_000)),
        format!("GET /{} HTTP/1.1\r\nhost: s\r\n\r\n", "a".repeat(1_000_000)),
    ] {
        let mut stream = serving.connect();
        // The server may end the connection before it has read it all.
        let _ = stream.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.1 414 "),
            "{answer}"
        );
        scrape(&serving);
    }
}

#[test]
fn what_is_no_http_gets_400_or_nothing() {
    let serving = Serving::start(Duration::ZERO);
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: s\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\ntransfer-encoding: nonsense\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nhost: s\r\n\r\n",
        b"GET http://example.org/ HTTP/1.1\r\nhost: s\r\nconnection: close\r\n\r\n",
    ] {
        let mut stream = serving.connect();
        stream.write_all(garbage).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let is_refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        // A whole URL in the request line is HTTP after all.
        let is_answered = garbage.starts_with(b"GET http") && answer.starts_with("HTTP/1.1 200");
        assert!(is_refused || is_answered, "{garbage:?}: {answer}");
    }
    let malformed = serving.ask("GET / HTTP/1.1\r\nno colon\r\n\r\n");
    assert_eq!(malformed.status, 400);
    scrape(&serving);
}

#[test]
fn a_request_names_one_host() {
    let serving = Serving::start(Duration::ZERO);
    for (head, status) in [
        ("GET /-/healthy HTTP/1.1\r\nhost: sensor.example:9477\r\nconnection: close\r\n\r\n", 200),
        ("GET /-/healthy HTTP/1.1\r\nhost: [::1]:9477\r\nconnection: close\r\n\r\n", 200),
        ("GET /-/healthy HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n", 200),
        ("GET /-/healthy HTTP/1.0\r\n\r\n", 200),
        ("GET /-/healthy HTTP/1.1\r\n\r\n", 400),
        ("GET /-/healthy HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        ("GET /-/healthy HTTP/1.1\r\nhost: a\r\nHost: a\r\n\r\n", 400),
        ("GET /-/healthy HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        ("GET /-/healthy HTTP/1.1\r\nhost: a b\r\n\r\n", 400),
        ("GET /-/healthy HTTP/1.1\r\nhost: user@a\r\n\r\n", 400),
        ("GET /-/healthy HTTP/1.1\r\nhost: a/b\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n", 400),
    ] {
        // Those that are refused are closed without being asked to.
        assert_eq!(serving.ask(head).status, status, "{head}");
    }
}

#[test]
fn who_breaks_the_protocol_is_counted_and_who_goes_away_is_not() {
    let serving = Serving::start(Duration::ZERO);
    let violations = || serving.metric("teiten_http_connections_closed_total{reason=\"protocol\"}");
    let mut gone = serving.connect();
    gone.write_all(b"GET / HTTP/1.1\r\nho").unwrap();
    drop(gone);
    ask_again(&mut serving.connect()).unwrap();
    serving.until("all are gone", |serving| serving.metric("teiten_http_connections ") == 0.0);
    assert_eq!(violations(), 0.0);
    assert_eq!(serving.ask("GET / HTTP/1.1\r\nno colon\r\n\r\n").status, 400);
    serving.until("it is counted", |_| violations() == 1.0);
}

#[test]
fn bytes_at_random_do_no_harm() {
    let serving = Serving::start(Duration::ZERO);
    // xorshift64, so that a failure can be repeated.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..200 {
        let mut bytes: Vec<u8> = (0..random() % 300).map(|_| random() as u8).collect();
        if random() % 2 == 0 {
            bytes.splice(0..0, *b"GET /metrics HTTP/1.1\r\n");
            bytes.extend(b"\r\n\r\n");
        }
        let mut stream = serving.connect();
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
    }
    scrape(&serving);
    serving.until("all are gone", |serving| serving.metric("teiten_http_connections ") == 0.0);
}

#[test]
fn a_head_byte_by_byte_and_an_answer_read_so_run_out_of_time() {
    let limits = Limits {
        head: Duration::from_millis(400),
        idle: Duration::from_secs(4),
        stall: Duration::from_millis(600),
        request: Duration::from_millis(1_500),
        ..Limits::default()
    };
    let serving = Serving::limited(limits);
    serving.exposition.update(large());
    let timeouts = || serving.metric("teiten_http_connections_closed_total{reason=\"timeout\"}");

    // Slowloris: a byte every 50 ms.
    let begun = Instant::now();
    let mut slow = serving.connect();
    for byte in b"GET / HTTP/1.1\r\nx: ".iter().chain(std::iter::repeat(&b'a')) {
        if slow.write_all(&[*byte]).is_err() || is_ended(&mut slow, Duration::from_millis(50)) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "still served");
    }
    assert!(begun.elapsed() >= limits.head);
    serving.until("the slow one is ended", |_| timeouts() == 1.0);

    // Reads nothing at all.
    let mut deaf = serving.connect();
    deaf.write_all(b"GET /metrics HTTP/1.1\r\nhost: s\r\n\r\n").unwrap();
    serving.until("the one that does not read is ended", |_| timeouts() == 2.0);

    // Reads a little now and then, so that there is always some progress.
    let begun = Instant::now();
    let mut trickle = serving.connect();
    trickle.write_all(b"GET /metrics HTTP/1.1\r\nhost: s\r\n\r\n").unwrap();
    let mut little = vec![0; 16 * 1024];
    while timeouts() < 3.0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "still served");
        let _ = trickle.read(&mut little);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(begun.elapsed() >= limits.stall);

    // Asks, and then stays silent for longer than a head may take, and still may come back.
    let mut idle = serving.connect();
    ask_again(&mut idle).unwrap();
    let mut half = serving.connect();
    half.write_all(b"GET").unwrap();
    serving.until("half a head is ended", |_| timeouts() == 4.0);
    ask_again(&mut idle).expect("it is still open");
    drop(half);
    serving.until("the idle one is ended", |_| timeouts() == 5.0);
    assert!(is_ended(&mut idle, Duration::from_mins(1)));
}

#[test]
fn a_body_is_not_waited_for() {
    let serving = Serving::start(Duration::ZERO);
    let mut stream = serving.connect();
    stream
        .write_all(b"GET /-/healthy HTTP/1.1\r\nhost: s\r\ncontent-length: 1000000000\r\n\r\nsome")
        .unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    scrape(&serving);
}
