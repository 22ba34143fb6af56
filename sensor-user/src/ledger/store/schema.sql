-- The ledger, version 1.
--
-- Days are local civil dates as numbers, 20260709. Instants are seconds since the epoch, or
-- nanoseconds where the name ends in _ns. A slot is a destination port: tcp 0-65535, udp from 65536,
-- sctp from 131072, icmp type from 196608, icmpv6 type from 196864, other protocol from 197120. The views name
-- them.

-- One row.
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    sensor TEXT NOT NULL,
    timezone TEXT NOT NULL,
    -- Highest generation taken in, and how many folds are in.
    generation INTEGER NOT NULL,
    commits INTEGER NOT NULL,
    -- Instant of the last observation.
    heartbeat_ns INTEGER,
    -- Day whose detail began again because the file was lost while the daemon ran.
    rebuilt_day INTEGER,
    -- Sum of CRC-32 over the series.
    checksum INTEGER NOT NULL,
    -- When the first observation began.
    since_ns INTEGER,
    -- Random, of 64 bits: tells the generations that this ledger numbered from those of another.
    identity INTEGER NOT NULL,
    -- Seal over what series there are, which may be shown, and what networks are called.
    names INTEGER NOT NULL,
    -- Seal over this row, the generations, the days that have source sets, and the observed spans.
    seal INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The generations taken in last, one by one.
CREATE TABLE generation (number INTEGER PRIMARY KEY) STRICT;
-- The generations taken in that another ledger had numbered: one or two for each change of ledger.
CREATE TABLE foreign_generation (
    ledger INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (ledger, number)
) STRICT, WITHOUT ROWID;

-- The counters' values. What `first` and `second` are depends on the kind, see docs/metrics.md. The ids of
-- a kind lie in blocks of 256, so that within an hour the rows of a kind are together.
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    labels TEXT NOT NULL,
    -- Begin of the hour in which the series came to be.
    born INTEGER NOT NULL,
    first INTEGER NOT NULL,
    second INTEGER NOT NULL
) STRICT;

-- Series whose value may be shown (the series-hold).
CREATE TABLE released (
    kind TEXT NOT NULL,
    labels TEXT NOT NULL,
    PRIMARY KEY (kind, labels)
) STRICT, WITHOUT ROWID;

-- Local hours that were observed, and what each series grew by in them.
CREATE TABLE hour (
    start INTEGER PRIMARY KEY,
    stop INTEGER NOT NULL,
    day INTEGER NOT NULL,
    hour INTEGER NOT NULL
) STRICT;
CREATE INDEX hour_by_day ON hour (day);
CREATE TABLE hour_series (
    hour INTEGER NOT NULL,
    series INTEGER NOT NULL,
    first INTEGER NOT NULL,
    second INTEGER NOT NULL,
    PRIMARY KEY (hour, series)
) STRICT, WITHOUT ROWID;

-- Local days that were observed.
CREATE TABLE day (
    day INTEGER PRIMARY KEY,
    first_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL,
    -- Over this row and all rows of the tables by day and by hour (seal.rs).
    seal INTEGER NOT NULL DEFAULT 0
) STRICT;
-- Every port, whether it has a series of its own or not.
CREATE TABLE day_port (
    day INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    accesses INTEGER NOT NULL,
    sources INTEGER NOT NULL,
    PRIMARY KEY (day, slot)
) STRICT, WITHOUT ROWID;
-- Everything that answered, whether it has a series of its own or not.
CREATE TABLE day_backscatter (
    day INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    packets INTEGER NOT NULL,
    PRIMARY KEY (day, slot)
) STRICT, WITHOUT ROWID;

-- What packets to chosen ports held, see docs/samples.md.
CREATE TABLE day_sample (
    day INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    -- Hash over the content without numbers, case and hosts.
    content INTEGER NOT NULL,
    -- Of the packets that had it.
    first_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL,
    packets INTEGER NOT NULL,
    sources INTEGER NOT NULL,
    -- How many contents there were, byte by byte.
    variants INTEGER NOT NULL,
    -- CRC-32 over the columns below.
    checksum INTEGER NOT NULL,
    -- JSON: packets by country, source list and tool.
    origins TEXT NOT NULL,
    -- The smallest hashes of sources and variants, 8 bytes each, ascending.
    source_hashes BLOB NOT NULL,
    variant_hashes BLOB NOT NULL,
    -- The first packet, from its IP header on; where its content begins in it, and the content's bytes on the wire.
    packet BLOB NOT NULL,
    begin INTEGER NOT NULL,
    length INTEGER NOT NULL,
    PRIMARY KEY (day, slot, content)
) STRICT;
-- Packets to chosen ports whose content is not kept.
CREATE TABLE day_sample_rest (
    day INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    packets INTEGER NOT NULL,
    PRIMARY KEY (day, slot)
) STRICT, WITHOUT ROWID;
-- Every network, whether it has a series of its own or not; 0 is none.
CREATE TABLE day_asn (
    day INTEGER NOT NULL,
    asn INTEGER NOT NULL,
    accesses INTEGER NOT NULL,
    sources INTEGER NOT NULL,
    PRIMARY KEY (day, asn)
) STRICT, WITHOUT ROWID;
-- Unique hosts, and what they sent, by how many ports they had reached: 1, 2 to 9, 10 to 29, 30 and more; 0 for
-- sources that the full source sets do not remember.
CREATE TABLE day_breadth (
    day INTEGER NOT NULL,
    ports INTEGER NOT NULL,
    hosts INTEGER NOT NULL,
    accesses INTEGER NOT NULL,
    PRIMARY KEY (day, ports)
) STRICT, WITHOUT ROWID;
-- What networks are called: the name that each had when it was first seen.
CREATE TABLE network (
    asn INTEGER PRIMARY KEY,
    name TEXT NOT NULL
) STRICT;

-- What the days that are no longer kept held, by kind of series.
CREATE TABLE carried (
    kind TEXT PRIMARY KEY,
    first INTEGER NOT NULL,
    second INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The source sets of the days used last, as deltas.
CREATE TABLE set_day (
    day INTEGER PRIMARY KEY,
    used INTEGER NOT NULL,
    -- Over the deltas.
    seal INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE set_delta (
    id INTEGER PRIMARY KEY,
    day INTEGER NOT NULL,
    bytes BLOB NOT NULL
) STRICT;
CREATE INDEX set_delta_by_day ON set_delta (day);

-- Stretches of time that captures have observed, so that what several of them cover counts once.
CREATE TABLE observed_span (
    begin_ns INTEGER PRIMARY KEY,
    end_ns INTEGER NOT NULL
) STRICT;

-- What each series grew by on each day.
CREATE VIEW day_series AS
SELECT hour.day AS day, series.kind AS kind, series.labels AS labels,
       sum(hour_series.first) AS first, sum(hour_series.second) AS second
FROM hour JOIN hour_series ON hour_series.hour = hour.start JOIN series ON series.id = hour_series.series
GROUP BY hour.day, series.id;

-- For people.
CREATE VIEW ports_by_day AS
SELECT printf('%04d-%02d-%02d', day / 10000, day / 100 % 100, day % 100) AS day,
       CASE WHEN slot < 65536 THEN 'tcp' WHEN slot < 131072 THEN 'udp' WHEN slot < 196608 THEN 'sctp'
            WHEN slot < 196864 THEN 'icmp' WHEN slot < 197120 THEN 'icmpv6' ELSE 'other' END AS transport,
       CASE WHEN slot < 196608 THEN slot & 65535 ELSE slot & 255 END AS port,
       accesses, sources
FROM day_port;
CREATE VIEW countries_by_day AS
SELECT printf('%04d-%02d-%02d', day / 10000, day / 100 % 100, day % 100) AS day,
       labels AS country, first AS accesses, second AS sources
FROM day_series WHERE kind = 'country';
-- Feature ports only. Labels are like `tcp,445,JP`.
CREATE VIEW port_countries_by_day AS
SELECT printf('%04d-%02d-%02d', day / 10000, day / 100 % 100, day % 100) AS day, transport,
       CAST(substr(rest, 1, instr(rest, ',') - 1) AS INTEGER) AS port,
       substr(rest, instr(rest, ',') + 1) AS country, accesses, sources
FROM (SELECT day, substr(labels, 1, instr(labels, ',') - 1) AS transport,
             substr(labels, instr(labels, ',') + 1) AS rest, first AS accesses, second AS sources
      FROM day_series WHERE kind = 'port_country');
CREATE VIEW networks_by_day AS
SELECT printf('%04d-%02d-%02d', day / 10000, day / 100 % 100, day % 100) AS day, asn,
       CASE WHEN asn = 0 THEN 'none' ELSE (SELECT name FROM network WHERE network.asn = day_asn.asn) END AS name,
       accesses, sources
FROM day_asn;
