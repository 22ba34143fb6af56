-- Version 2: when the first observation began. Of a ledger from before it is the first one that is
-- still kept.
ALTER TABLE state ADD COLUMN since_ns INTEGER;
UPDATE state SET since_ns = (SELECT min(first_ns) FROM day);
