//! A scrape target that always serves the same metrics.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};

/// Answers every request on a loopback port of its own with `metrics`, until the test ends.
pub fn serve(metrics: String) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            if stream.read(&mut request).is_ok() {
                // A scraper that went away asks again.
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{metrics}",
                    metrics.len()
                );
            }
        }
    });
    port
}
