//! Reading a sensor's HTTP endpoints from outside: a request without any help from the sensor's code,
//! and Prometheus' text format as its documentation defines it.

use crate::netns::Netns;
use crate::wait::PATIENCE;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Why an endpoint could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// No one answered, or not in time.
    #[error("get http://{address}{path}: {source}")]
    Connection {
        /// Of whom.
        address: SocketAddr,
        /// Path of the request.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The answer was not HTTP.
    #[error("get {path}: the answer begins with {begin:?}, not with an HTTP status")]
    NotHttp {
        /// What was asked for.
        path: String,
        /// Its first characters.
        begin: String,
    },
    /// A line that is no sample.
    #[error("line {number} is not in Prometheus' text format: {line}")]
    Line {
        /// From 1.
        number: usize,
        /// The line.
        line: String,
    },
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `200` and the like.
    pub status: u16,
    /// What came after the header.
    pub body: String,
}

/// Gets `path` from the server at `address`, connecting from inside `netns`.
///
/// # Errors
///
/// [`ScrapeError::Connection`], [`ScrapeError::NotHttp`]; a status other than 200 is no error here.
pub fn get(netns: &Netns, address: SocketAddr, path: &str) -> Result<Answer, ScrapeError> {
    ask(netns.connect(address, PATIENCE), address, path)
}

/// As [`get`], from the network of this process.
///
/// # Errors
///
/// As [`get`].
pub fn get_here(address: SocketAddr, path: &str) -> Result<Answer, ScrapeError> {
    ask(TcpStream::connect_timeout(&address, PATIENCE), address, path)
}

fn ask(stream: io::Result<TcpStream>, address: SocketAddr, path: &str) -> Result<Answer, ScrapeError> {
    let failed = |source| ScrapeError::Connection { address, path: path.to_owned(), source };
    let mut stream = stream.map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    // HTTP/1.0: the body ends with the connection, and is not sent in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: */*\r\n\r\n").map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    parse_answer(&answer).ok_or_else(|| ScrapeError::NotHttp {
        path: path.to_owned(),
        begin: answer.chars().take(40).collect(),
    })
}

fn parse_answer(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

/// Label names and values.
pub type Labels = BTreeMap<String, String>;

/// The samples of one scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    families: BTreeMap<String, Vec<(Labels, f64)>>,
}

impl Samples {
    /// Reads Prometheus' text format, version 0.0.4.
    ///
    /// # Errors
    ///
    /// [`ScrapeError::Line`].
    pub fn parse(text: &str) -> Result<Self, ScrapeError> {
        let mut samples = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, labels, value) =
                sample(line).ok_or_else(|| ScrapeError::Line { number: index + 1, line: line.to_owned() })?;
            samples.families.entry(name).or_default().push((labels, value));
        }
        Ok(samples)
    }

    /// The series of `metric`.
    pub fn series(&self, metric: &str) -> &[(Labels, f64)] {
        self.families.get(metric).map_or(&[], Vec::as_slice)
    }

    /// The value of the series of `metric` that has these labels (and perhaps more).
    pub fn value(&self, metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |series: &Labels| {
            labels.iter().all(|(name, value)| series.get(*name).is_some_and(|found| found == value))
        };
        self.series(metric).iter().find(|(series, _)| has(series)).map(|(_, value)| *value)
    }

    /// The counter of `metric` that has these labels (and perhaps more).
    pub fn counter(&self, metric: &str, labels: &[(&str, &str)]) -> Option<u64> {
        self.value(metric, labels).map(|value| value as u64)
    }

    /// The sum over all series of the counter `metric`.
    pub fn sum(&self, metric: &str) -> u64 {
        self.series(metric).iter().map(|(_, value)| *value as u64).sum()
    }

    /// A counter by the values of `labels`, in their order.
    pub fn by<const N: usize>(&self, metric: &str, labels: [&str; N]) -> BTreeMap<[String; N], u64> {
        let mut sums = BTreeMap::new();
        for (series, value) in self.series(metric) {
            let key = labels.map(|label| series.get(label).cloned().unwrap_or_default());
            *sums.entry(key).or_default() += *value as u64;
        }
        sums
    }

    /// The identities (docs/classification.md) that do not hold in this scrape, as sentences.
    pub fn broken_identities(&self) -> Vec<String> {
        let accesses = self.sum("teiten_accesses_total");
        let of_class = |class| self.counter("teiten_packets_total", &[("class", class)]).unwrap_or(0);
        let by_class = of_class("access");
        let by_country = self.sum("teiten_country_accesses_total")
            + self.sum("teiten_source_table_overflow_packets_total");
        let sources = self.sum("teiten_sources_total");
        let sources_by_country = self.sum("teiten_country_sources_total");
        let pairs = [
            ("accesses by port, class access", accesses, by_class),
            ("accesses by port, by country and overflow", accesses, by_country),
            ("sources by port, by country", sources, sources_by_country),
            (
                "accesses by port, by source list and overflow",
                accesses,
                self.sum("teiten_list_accesses_total")
                    + self.sum("teiten_source_table_overflow_packets_total"),
            ),
            ("sources by port, by source list", sources, self.sum("teiten_list_sources_total")),
            (
                "accesses by port, by network and overflow",
                accesses,
                self.sum("teiten_asn_accesses_total")
                    + self.sum("teiten_source_table_overflow_packets_total"),
            ),
            ("sources by port, by network", sources, self.sum("teiten_asn_sources_total")),
            ("hosts, by source list", self.sum("teiten_hosts_total"), self.sum("teiten_list_hosts_total")),
            ("unread frames, class non_ip", self.sum("teiten_unread_frames_total"), of_class("non_ip")),
            (
                "malformed by reason, class malformed",
                self.sum("teiten_malformed_packets_total"),
                of_class("malformed"),
            ),
        ];
        pairs
            .into_iter()
            .filter(|(_, left, right)| left != right)
            .map(|(what, left, right)| format!("{what}: {left} and {right}"))
            .collect()
    }
}

/// `name{label="value",…} value [timestamp]`
fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' ', '\t'])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches([',', ' ']);
            if let Some(behind) = rest.strip_prefix('}') {
                rest = behind;
                break;
            }
            let (label, behind) = rest.split_once("=\"")?;
            let (value, behind) = quoted(behind)?;
            labels.insert(label.trim().to_owned(), value);
            rest = behind;
        }
    }
    let value = match rest.split_ascii_whitespace().next()? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().ok()?,
    };
    (!name.is_empty()).then(|| (name.to_owned(), labels, value))
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[index + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_escapes_infinities_and_timestamps() {
        let samples = Samples::parse(
            "# HELP a_total \"x\"\n\
             # TYPE a_total counter\n\
             a_total{port=\"23\",text=\"a \\\"b\\\\\\n,}\"} 5\n\
             a_total{port=\"80\",text=\"\"} 7 1700000000000\n\
             b_bucket{le=\"+Inf\",} +Inf\n\
             c 1.5e3\n",
        )
        .unwrap();
        assert_eq!(samples.series("a_total")[0].0["text"], "a \"b\\\n,}");
        assert_eq!(samples.value("a_total", &[("port", "80")]), Some(7.0));
        assert_eq!(samples.sum("a_total"), 12);
        assert_eq!(samples.value("b_bucket", &[("le", "+Inf")]), Some(f64::INFINITY));
        assert_eq!(samples.value("c", &[]), Some(1500.0));
        assert_eq!(samples.by("a_total", ["port"])[&["23".to_owned()]], 5);
    }

    #[test]
    fn a_line_that_is_no_sample_is_named() {
        let error = Samples::parse("a 1\nb{x=\"1} 2\n").unwrap_err().to_string();
        assert_eq!(error, "line 2 is not in Prometheus' text format: b{x=\"1} 2");
    }

    #[test]
    fn broken_identities_are_told_with_both_sides() {
        let whole = "teiten_packets_total{class=\"access\"} 5\n\
                     teiten_accesses_total{transport=\"tcp\",port=\"23\"} 5\n\
                     teiten_country_accesses_total{country=\"JP\"} 4\n\
                     teiten_list_accesses_total{list=\"none\"} 4\n\
                     teiten_list_sources_total{list=\"none\"} 2\n\
                     teiten_asn_accesses_total{asn=\"none\",name=\"none\"} 4\n\
                     teiten_asn_sources_total{asn=\"none\",name=\"none\"} 2\n\
                     teiten_source_table_overflow_packets_total 1\n\
                     teiten_sources_total{transport=\"tcp\",port=\"23\"} 2\n";
        let samples = Samples::parse(whole).unwrap();
        assert_eq!(samples.broken_identities(), ["sources by port, by country: 2 and 0"]);
    }

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = parse_answer("HTTP/1.0 503 Service Unavailable\r\na: b\r\n\r\nnot yet\n").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "not yet\n"));
        assert_eq!(parse_answer("SSH-2.0-x\r\n\r\n"), None);
    }
}
