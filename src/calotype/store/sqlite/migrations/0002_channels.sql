-- What routing, failover and rate limits have to remember of channels.

ALTER TABLE attempts ADD COLUMN code TEXT;
ALTER TABLE attempts ADD COLUMN fault TEXT;

CREATE INDEX attempts_unknown ON attempts (finished_at) WHERE state = 'unknown';

CREATE TABLE channel_slots (
    channel_id INTEGER PRIMARY KEY,
    slots      TEXT NOT NULL,     -- the newest times given out, ascending, with spaces between
    not_before INTEGER NOT NULL   -- a minute after the newest time that was forgotten
) STRICT;

-- A row without opened_at says that all is well since updated_at.
CREATE TABLE channel_health (
    channel_id INTEGER NOT NULL,
    model      TEXT NOT NULL,     -- '' is the whole channel
    fault      TEXT NOT NULL,
    until      INTEGER NOT NULL,
    strikes    INTEGER NOT NULL,
    opened_at  INTEGER,
    updated_at INTEGER NOT NULL,
    detail     TEXT NOT NULL,
    event      TEXT,              -- what the last write changed
    PRIMARY KEY (channel_id, model)
) STRICT, WITHOUT ROWID;

CREATE TABLE channel_events (
    id         INTEGER PRIMARY KEY,
    channel_id INTEGER NOT NULL,
    model      TEXT NOT NULL,
    event      TEXT NOT NULL CHECK (event IN ('opened', 'half-open', 'closed')),
    fault      TEXT NOT NULL,
    detail     TEXT NOT NULL,
    at         INTEGER NOT NULL
) STRICT;

CREATE INDEX channel_events_age ON channel_events (at);
