-- Version 5: stretches of time that captures have observed, so that what several of them cover counts
-- once (captures.rs). Under the seal of the state.
CREATE TABLE observed_span (
    begin_ns INTEGER PRIMARY KEY,
    end_ns INTEGER NOT NULL
) STRICT;
