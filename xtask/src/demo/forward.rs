//! Brings a server inside a namespace to a port of this host.

use lab::netns::Netns;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A server that does not take a connection for so long is not there.
const PATIENCE: Duration = Duration::from_secs(5);

/// Forwards connections to `port` of this host's loopback address (or to a free port when that one is
/// taken) to `server` inside `netns`, until the process ends. Returns where it listens.
///
/// # Errors
///
/// When no port of the loopback address can be had.
pub(super) fn forward(port: u16, netns: &Netns, server: SocketAddr) -> io::Result<SocketAddr> {
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        }
        result => result?,
    };
    let address = listener.local_addr()?;
    let netns = netns.clone();
    std::thread::Builder::new().name("forward".to_owned()).spawn(move || {
        for outside in listener.incoming().flatten() {
            // A connection that cannot be forwarded is closed, which tells the one who made it.
            if let Ok(inside) = netns.connect(server, PATIENCE) {
                let _ = join(outside, inside);
            }
        }
    })?;
    Ok(address)
}

/// Copies in both directions until each side has ended.
fn join(outside: TcpStream, inside: TcpStream) -> io::Result<()> {
    let (outside_again, inside_again) = (outside.try_clone()?, inside.try_clone()?);
    for (mut from, mut to) in [(outside, inside), (inside_again, outside_again)] {
        std::thread::Builder::new().name("copy".to_owned()).spawn(move || {
            // Either way it is over; the other side must hear of it.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn both_directions_reach_the_namespace_and_end() {
        if !lab::netns::is_root() {
            println!("skipped: makes network namespaces, which needs root");
            return;
        }
        let netns = Netns::new().unwrap();
        let inside = netns.run(|| TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let server = inside.local_addr().unwrap();
        let echo = std::thread::spawn(move || {
            let (mut stream, _) = inside.accept().unwrap();
            let mut asked = String::new();
            stream.read_to_string(&mut asked).unwrap();
            stream.write_all(asked.to_uppercase().as_bytes()).unwrap();
        });
        let address = forward(0, &netns, server).unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"question").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "QUESTION");
        echo.join().unwrap();
    }
}
