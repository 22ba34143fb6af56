-- Version 4: every value is under a seal, a sum that changes with it (seal.rs).

-- Over the day's row and all rows of the tables by day and by hour.
ALTER TABLE day ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
-- Over the deltas of the day's source sets.
ALTER TABLE set_day ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
-- Over what series there are and which may be shown.
ALTER TABLE state ADD COLUMN names INTEGER NOT NULL DEFAULT 0;
-- Over the row itself, the generations and the days that have source sets.
ALTER TABLE state ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
