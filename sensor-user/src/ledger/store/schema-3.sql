-- Version 3: whose generations are whose.

-- Random, of 64 bits: tells the generations that this ledger numbered from those of another; 0 until
-- the next fold gives one.
ALTER TABLE state ADD COLUMN identity INTEGER NOT NULL DEFAULT 0;
-- The generations taken in that another ledger had numbered: one or two for each change of ledger.
CREATE TABLE foreign_generation (
    ledger INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (ledger, number)
) STRICT, WITHOUT ROWID;
