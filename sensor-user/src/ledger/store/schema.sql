-- The ledger, version 1.
--
-- Days are local civil dates as numbers, 20260709. Instants are seconds since the epoch, or
-- nanoseconds where the name ends in _ns. A slot is a destination port: tcp 0-65535, udp from 65536,
-- sctp from 131072, icmp type from 196608, icmpv6 type from 196864, other protocol from 197120. A
-- label is a slot, or -1-t for the rest of transport t in that order. The views name them.

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
    -- Day whose detail began anew because the file was lost while the daemon ran.
    rebuilt_day INTEGER,
    -- Sum of CRC-32 over the series.
    checksum INTEGER NOT NULL
) STRICT;

-- The generations taken in last, one by one.
CREATE TABLE generation (number INTEGER PRIMARY KEY) STRICT;

-- The counters' values. What `first` and `second` are depends on the kind: packets and octets;
-- accesses and cumulative sources; or one number alone.
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
    metric TEXT NOT NULL,
    labels TEXT NOT NULL,
    PRIMARY KEY (metric, labels)
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

CREATE TABLE day (
    day INTEGER PRIMARY KEY,
    hosts INTEGER NOT NULL,
    overflow INTEGER NOT NULL,
    service_overflow INTEGER NOT NULL,
    set_overflow INTEGER NOT NULL,
    observed_ns INTEGER NOT NULL,
    first_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL
) STRICT;
CREATE TABLE day_class (
    day INTEGER NOT NULL,
    class TEXT NOT NULL,
    packets INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (day, class)
) STRICT, WITHOUT ROWID;
-- Every port, whether it has a series of its own or not.
CREATE TABLE day_port (
    day INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    accesses INTEGER NOT NULL,
    sources INTEGER NOT NULL,
    PRIMARY KEY (day, slot)
) STRICT, WITHOUT ROWID;
CREATE TABLE day_country (
    day INTEGER NOT NULL,
    country TEXT NOT NULL,
    accesses INTEGER NOT NULL,
    sources INTEGER NOT NULL,
    PRIMARY KEY (day, country)
) STRICT, WITHOUT ROWID;
-- Feature ports only.
CREATE TABLE day_port_country (
    day INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    country TEXT NOT NULL,
    accesses INTEGER NOT NULL,
    sources INTEGER NOT NULL,
    PRIMARY KEY (day, slot, country)
) STRICT, WITHOUT ROWID;
CREATE TABLE day_port_hour (
    day INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    label INTEGER NOT NULL,
    accesses INTEGER NOT NULL,
    PRIMARY KEY (day, hour, label)
) STRICT, WITHOUT ROWID;
CREATE TABLE day_group (
    day INTEGER NOT NULL,
    name TEXT NOT NULL,
    country TEXT NOT NULL,
    accesses INTEGER NOT NULL,
    sources INTEGER NOT NULL,
    PRIMARY KEY (day, name, country)
) STRICT, WITHOUT ROWID;
CREATE TABLE day_service (
    day INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    country TEXT NOT NULL,
    accesses INTEGER NOT NULL,
    sources INTEGER NOT NULL,
    PRIMARY KEY (day, slot, country)
) STRICT, WITHOUT ROWID;
CREATE TABLE day_tool (
    day INTEGER NOT NULL,
    tool TEXT NOT NULL,
    accesses INTEGER NOT NULL,
    PRIMARY KEY (day, tool)
) STRICT, WITHOUT ROWID;
-- Everything that answered, whether it has a series of its own or not.
CREATE TABLE day_backscatter (
    day INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    packets INTEGER NOT NULL,
    PRIMARY KEY (day, slot)
) STRICT, WITHOUT ROWID;

-- What the days that are no longer kept held, by kind of series.
CREATE TABLE carried (
    kind TEXT PRIMARY KEY,
    first INTEGER NOT NULL,
    second INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The source sets of the days used last, as deltas.
CREATE TABLE set_day (
    day INTEGER PRIMARY KEY,
    used INTEGER NOT NULL
) STRICT;
CREATE TABLE set_delta (
    id INTEGER PRIMARY KEY,
    day INTEGER NOT NULL,
    octets BLOB NOT NULL
) STRICT;
CREATE INDEX set_delta_by_day ON set_delta (day);

-- For people.
CREATE VIEW ports_by_day AS
SELECT printf('%04d-%02d-%02d', day / 10000, day / 100 % 100, day % 100) AS day,
       CASE WHEN slot < 65536 THEN 'tcp' WHEN slot < 131072 THEN 'udp' WHEN slot < 196608 THEN 'sctp'
            WHEN slot < 196864 THEN 'icmp' WHEN slot < 197120 THEN 'icmpv6' ELSE 'other' END AS transport,
       CASE WHEN slot < 196608 THEN slot & 65535 ELSE slot & 255 END AS port,
       accesses, sources
FROM day_port;
CREATE VIEW countries_by_day AS
SELECT printf('%04d-%02d-%02d', day / 10000, day / 100 % 100, day % 100) AS day, country, accesses, sources
FROM day_country;
CREATE VIEW port_countries_by_day AS
SELECT printf('%04d-%02d-%02d', day / 10000, day / 100 % 100, day % 100) AS day,
       CASE WHEN slot < 65536 THEN 'tcp' WHEN slot < 131072 THEN 'udp' WHEN slot < 196608 THEN 'sctp'
            WHEN slot < 196864 THEN 'icmp' WHEN slot < 197120 THEN 'icmpv6' ELSE 'other' END AS transport,
       CASE WHEN slot < 196608 THEN slot & 65535 ELSE slot & 255 END AS port,
       country, accesses, sources
FROM day_port_country;
