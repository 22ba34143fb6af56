//! Metrics that are no counters of the ledger: the sensor's own state.

/// What Prometheus takes a metric for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bounds.
    Histogram,
}

/// One metric.
pub struct Other {
    /// Its name.
    pub name: &'static str,
    /// What Prometheus takes it for.
    pub kind: Kind,
    /// Its labels, in their order.
    pub labels: &'static [&'static str],
    /// What it means, for `# HELP`.
    pub help: &'static str,
}

/// All of them.
pub static OTHERS: &[Other] = &[
    Other {
        name: "teiten_up",
        kind: Kind::Gauge,
        labels: &[],
        help: "1 while the sensor can see its line: the XDP program is attached, the drain is current, and no reason of teiten_blind but silence holds.",
    },
    Other {
        name: "teiten_blind",
        kind: Kind::Gauge,
        labels: &["reason"],
        help: "1 while the sensor does not see its line for this reason.",
    },
    Other {
        name: "teiten_last_drain_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "When the last drain was committed, seconds since the epoch.",
    },
    Other {
        name: "teiten_geoip_build_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "When the GeoIP database in use was built, seconds since the epoch.",
    },
    Other {
        name: "teiten_geoip_info",
        kind: Kind::Gauge,
        labels: &["source"],
        help: "1; whether the GeoIP database in use is the embedded one or a file (--geoip).",
    },
    Other {
        name: "teiten_source_list_prefixes",
        kind: Kind::Gauge,
        labels: &["list"],
        help: "Addresses and prefixes in a source list in use (--source-list).",
    },
    Other {
        name: "teiten_source_list_modified_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &["list"],
        help: "When the file of a source list in use was changed last, seconds since the epoch.",
    },
    Other {
        name: "teiten_archive_failing",
        kind: Kind::Gauge,
        labels: &[],
        help: "1 while what is drained cannot be written into the archive (--archive-dir); the ledger continues.",
    },
    Other {
        name: "teiten_archive_files",
        kind: Kind::Gauge,
        labels: &[],
        help: "Files that the archive has of this sensor.",
    },
    Other {
        name: "teiten_archive_bytes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Bytes of the files that the archive has of this sensor.",
    },
    Other {
        name: "teiten_archive_dropped_files_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Files that the bounds of the archive (--archive-keep) have dropped since the ledger began.",
    },
    Other {
        name: "teiten_archive_dropped_bytes_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Bytes of the files that the bounds of the archive have dropped since the ledger began.",
    },
    Other {
        name: "teiten_archive_dropped_packets_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Packets in the files that the bounds of the archive have dropped since the ledger began.",
    },
    Other {
        name: "teiten_asn_build_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "When the ASN database in use (--asn) was built, seconds since the epoch; absent without one.",
    },
    Other {
        name: "teiten_day_hosts",
        kind: Kind::Gauge,
        labels: &["ports"],
        help: "Unique hosts of the running local day by how many ports they have reached on it: 1, 2-9, 10-29, 30+; back to 0 with each day.",
    },
    Other {
        name: "teiten_day_accesses",
        kind: Kind::Gauge,
        labels: &["ports"],
        help: "Accesses of the running local day by how many ports their source has reached on it; unknown for sources beyond the bound of the day's sets.",
    },
    Other {
        name: "teiten_drain_duration_seconds",
        kind: Kind::Histogram,
        labels: &[],
        help: "Duration of a drain, from the swap of the generation to the commit.",
    },
    Other {
        name: "teiten_drain_failures_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Drains that could not be committed; their generation is kept and tried again.",
    },
    Other {
        name: "teiten_reload_failures_total",
        kind: Kind::Counter,
        labels: &["what"],
        help: "Files that could not be reloaded, so that the ones read before stay in use.",
    },
    Other {
        name: "teiten_monitored_addresses",
        kind: Kind::Gauge,
        labels: &["family"],
        help: "Size of the observed address space.",
    },
    Other {
        name: "teiten_sensor_info",
        kind: Kind::Gauge,
        labels: &["sensor", "timezone", "interface", "xdp_mode"],
        help: "The sensor, its observation time zone and how each interface is observed; always 1. In generic mode packets that were merged (GRO, LRO) or came unsegmented over a virtual link count as one.",
    },
    Other {
        name: "teiten_ledger_info",
        kind: Kind::Gauge,
        labels: &["ledger"],
        help: "Identity of the ledger: the same as long as the state directory lives, and another on every machine; always 1.",
    },
    Other {
        name: "teiten_build_info",
        kind: Kind::Gauge,
        labels: &["version", "revision"],
        help: "The version of teiten and the revision it was built from; always 1.",
    },
    Other {
        name: "teiten_port_info",
        kind: Kind::Gauge,
        labels: &["transport", "port", "name", "description"],
        help: "What a port is known for; always 1.",
    },
    Other {
        name: "teiten_ledger_damaged",
        kind: Kind::Gauge,
        labels: &[],
        help: "1 while the ledger is known to be damaged or to lack commits; the status says what.",
    },
    Other {
        name: "teiten_flow_tracking",
        kind: Kind::Gauge,
        labels: &["interface", "method"],
        help: "How the sensor sees what it sends itself, which distinguishes answers from accesses: by tcx, by clsact, or not at all (none); always 1.",
    },
    Other {
        name: "teiten_flows",
        kind: Kind::Gauge,
        labels: &[],
        help: "Conversations of the sensor itself that are kept.",
    },
    Other {
        name: "teiten_flows_accepted",
        kind: Kind::Gauge,
        labels: &[],
        help: "Conversations among teiten_flows that remote hosts began.",
    },
    Other {
        name: "teiten_flows_created_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Conversations that the sensor itself started or accepted.",
    },
    Other {
        name: "teiten_flow_failures_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Conversations that the sensor itself started and that were not kept because there were too many; their answers count as backscatter or accesses.",
    },
    Other {
        name: "teiten_flow_replies_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Datagrams that the sensor sent and that start no conversation, since they reply to a remote host that spoke first.",
    },
    Other {
        name: "teiten_flow_replies_unsure_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Datagrams among teiten_flow_replies_total that were taken for a reply because the note of who spoke first may have been displaced.",
    },
    Other {
        name: "teiten_flow_notes_displaced_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Notes of who spoke first that were displaced within their time by a flood of datagrams.",
    },
    Other {
        name: "teiten_series_held",
        kind: Kind::Gauge,
        labels: &[],
        help: "Series that show 0 until a scrape has shown it and --series-hold has passed.",
    },
    Other {
        name: "teiten_render_seconds_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Time spent on rendering /metrics.",
    },
    Other {
        name: "teiten_http_requests_total",
        kind: Kind::Counter,
        labels: &["handler", "code"],
        help: "HTTP requests by handler and status code.",
    },
    Other {
        name: "teiten_http_connections",
        kind: Kind::Gauge,
        labels: &[],
        help: "HTTP connections that are open.",
    },
    Other {
        name: "teiten_http_connections_closed_total",
        kind: Kind::Counter,
        labels: &["reason"],
        help: "HTTP connections that the server ended: evicted for newer ones, past a time limit, without a TLS handshake, or because what the client sent is not HTTP.",
    },
];
