//! What others on the line notice: a TCP stream into the sensor's host, and a conversation of one byte
//! each way, with and without Teiten on the interface.
//!
//! A virtual cable passes whole buffers of 64 KiB by reference, and gives that up for any XDP program.
//! A network card has frames, so segmentation and receive offloads are off on both ends throughout.
//! What remains of XDP's own price on a virtual cable, which copies each frame for it, an empty program
//! pays too: the difference to it is Teiten's.

use super::figures::{Bound, Results, Rounds, Table, Unit};
use super::programs::loaded;
use super::{Context, frames};
use anyhow::{Context as _, Result};
use aya::programs::XdpMode;
use aya::{Ebpf, EbpfLoader};
use lab::command;
use lab::netns::{Interface, Netns};
use lab::sensor::{ADDRESSES, Daemon, INTERFACE, Lab, WIRE};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Ports that are served.
const STREAM: u16 = 5001;
const ECHO: u16 = 5002;
/// Bytes that are written at once.
const PIECE: usize = 128 << 10;
const PATIENCE: Duration = Duration::from_secs(10);

/// A lab whose two ends talk to each other.
struct Line {
    lab: Lab,
    _attached: Option<Ebpf>,
    _daemon: Option<Daemon>,
}

fn line() -> Result<Lab> {
    let lab = Lab::without_link(1500)?;
    let wire = Interface::new(WIRE).address("198.18.0.2/24".parse().context("read an address")?);
    let mut eth0 = Interface::new(INTERFACE);
    for address in ADDRESSES {
        eth0 = eth0.address(address.parse().context("read an address")?);
    }
    lab.internet.join(&wire, &lab.sensor, &eth0)?;
    for (netns, interface) in [(&lab.internet, WIRE), (&lab.sensor, INTERFACE)] {
        command::output(
            netns.command("ethtool").args(["-K", interface, "tso", "off", "gso", "off", "gro", "off"]),
        )?;
    }
    serve(&lab.sensor)?;
    Ok(lab)
}

/// Serves both ports in `netns`, as long as this process lives.
fn serve(netns: &Netns) -> Result<()> {
    let listen = |port| netns.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
    let (stream, echo) = (listen(STREAM)??, listen(ECHO)??);
    std::thread::spawn(move || {
        let mut bytes = vec![0; PIECE];
        for mut taken in stream.incoming().flatten() {
            while taken.read(&mut bytes).is_ok_and(|bytes| bytes > 0) {}
            // The sender learns that all of it has come.
            let _ = taken.write_all(&[1]);
        }
    });
    std::thread::spawn(move || {
        let mut byte = [0];
        for mut taken in echo.incoming().flatten() {
            let _ = taken.set_nodelay(true);
            while taken.read_exact(&mut byte).is_ok() && taken.write_all(&byte).is_ok() {}
        }
    });
    Ok(())
}

impl Line {
    fn connect(&self, port: u16) -> Result<TcpStream> {
        let address = SocketAddr::new(Ipv4Addr::from(frames::LOCAL_V4).into(), port);
        let stream = self.lab.internet.connect(address, PATIENCE).context("connect to the sensor's host")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Bytes per second of one connection.
    fn stream(&self, time: Duration) -> Result<f64> {
        let mut stream = self.connect(STREAM)?;
        let bytes = vec![0; PIECE];
        let begin = Instant::now();
        let mut sent = 0_u64;
        while begin.elapsed() < time {
            stream.write_all(&bytes)?;
            sent += bytes.len() as u64;
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.read_exact(&mut [0])?;
        Ok(sent as f64 / begin.elapsed().as_secs_f64())
    }

    /// Questions and answers per second of one connection.
    fn echo(&self, time: Duration) -> Result<f64> {
        let mut stream = self.connect(ECHO)?;
        let mut byte = [7];
        let begin = Instant::now();
        let mut answered = 0_u64;
        while begin.elapsed() < time {
            stream.write_all(&byte)?;
            stream.read_exact(&mut byte)?;
            answered += 1;
        }
        Ok(answered as f64 / begin.elapsed().as_secs_f64())
    }
}

/// Measures.
pub(super) fn run(context: &Context, results: &mut Results) -> Result<()> {
    let plain = || Ok::<_, anyhow::Error>(Line { lab: line()?, _attached: None, _daemon: None });
    let with_empty = || {
        let lab = line()?;
        let mut ebpf = EbpfLoader::new().load_file(&context.bench_object)?;
        lab.sensor.run(|| -> Result<()> {
            loaded(&mut ebpf, "empty_pass")?.attach(INTERFACE, XdpMode::Driver)?;
            Ok(())
        })??;
        Ok::<_, anyhow::Error>(Line { lab, _attached: Some(ebpf), _daemon: None })
    };
    let with_teiten = || {
        let lab = line()?;
        let daemon = lab.start(&context.teiten, &["--interface", INTERFACE, "--timezone", "UTC"])?;
        Ok::<_, anyhow::Error>(Line { lab, _attached: None, _daemon: Some(daemon) })
    };
    let lines = [("nothing", plain()?), ("empty XDP program", with_empty()?), ("Teiten", with_teiten()?)];
    let mut rounds = vec![[Unit::BytesPerSecond, Unit::PerSecond].map(Rounds::new); lines.len()];
    for nth in 0..=context.rounds {
        for ((_, line), [stream, echo]) in lines.iter().zip(&mut rounds) {
            let measured = [line.stream(context.scale.talk)?, line.echo(context.scale.talk)?];
            // The first round fills tables and caches.
            if nth > 0 {
                stream.push(measured[0]);
                echo.push(measured[1]);
            }
        }
    }
    let mut table = Table::new(
        "Bystanders: a TCP connection into the sensor's host",
        "A stream in one direction, and one byte back and forth, over a veth pair with offloads off. XDP \
         copies each frame on a virtual cable, which network cards do not: an empty program shows what that \
         costs.",
        &[
            "on the interface",
            "stream",
            "of an empty program's",
            "of nothing's",
            "round trips",
            "of an empty program's",
            "of nothing's",
        ],
    );
    for ((name, _), [stream, echo]) in lines.iter().zip(&rounds) {
        table.row([
            (*name).into(),
            stream.clone().into(),
            stream.per(&rounds[1][0]).into(),
            stream.per(&rounds[0][0]).into(),
            echo.clone().into(),
            echo.per(&rounds[1][1]).into(),
            echo.per(&rounds[0][1]).into(),
        ]);
    }
    results.tables.push(table);
    for (at, what) in [
        (0, "bystanders: stream, Teiten / empty program"),
        (1, "bystanders: round trips, Teiten / empty program"),
    ] {
        results.target(what, Bound::AtLeast(0.97), rounds[2][at].per(&rounds[1][at]));
    }
    for (at, what) in
        [(0, "bystanders: stream, Teiten / nothing"), (1, "bystanders: round trips, Teiten / nothing")]
    {
        results.target(what, Bound::AtLeast(0.97), rounds[2][at].per(&rounds[0][at]));
    }
    Ok(())
}
