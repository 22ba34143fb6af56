-- Version 6: what is counted besides class and port. Of what was counted before, frames that are not of IP
-- are of kind "other", and malformed packets are so for a reason "unknown".

CREATE TABLE day_detail (
    day INTEGER NOT NULL,
    kind TEXT NOT NULL,
    label TEXT NOT NULL,
    packets INTEGER NOT NULL,
    PRIMARY KEY (day, kind, label)
) STRICT, WITHOUT ROWID;

CREATE TEMP TABLE detail_of_class (class TEXT NOT NULL, kind TEXT NOT NULL, label TEXT NOT NULL);
INSERT INTO detail_of_class VALUES ('non_ip', 'unread', 'other'), ('malformed', 'malformed', 'unknown');

INSERT INTO series (kind, labels, born, first, second)
SELECT detail.kind, detail.label, born, first, 0 FROM series
JOIN detail_of_class AS detail ON series.kind = 'packets' AND labels = class WHERE first > 0;

INSERT INTO hour_series (hour, series, first, second)
SELECT hour, new.id, hour_series.first, 0 FROM hour_series
JOIN series AS old ON old.id = hour_series.series AND old.kind = 'packets'
JOIN detail_of_class AS detail ON old.labels = class
JOIN series AS new ON new.kind = detail.kind AND new.labels = detail.label
WHERE hour_series.first > 0;

INSERT INTO day_detail (day, kind, label, packets)
SELECT day, kind, label, packets FROM day_class JOIN detail_of_class USING (class) WHERE packets > 0;

INSERT INTO carried (kind, first, second)
SELECT series.kind, first - (SELECT coalesce(sum(packets), 0) FROM day_detail WHERE day_detail.kind = series.kind), 0
FROM series WHERE kind IN ('unread', 'malformed') AND EXISTS (SELECT 1 FROM carried);

DROP TABLE detail_of_class;
