-- works from: 1
-- What routing, failover and rate limits have to remember of channels.

-- The index stands on a column of its own, because one that names 'state' would make every update
-- of an attempt write to all indexes.
ALTER TABLE attempts
    ADD COLUMN code TEXT,
    ADD COLUMN fault TEXT,
    ADD COLUMN unknown_at BIGINT
        GENERATED ALWAYS AS (CASE WHEN state = 'unknown' THEN finished_at END) STORED;

CREATE INDEX attempts_unknown ON attempts (unknown_at) WHERE unknown_at IS NOT NULL;

CREATE TABLE channel_slots (
    channel_id BIGINT PRIMARY KEY,
    slots      TEXT NOT NULL,    -- the newest times given out, ascending, with spaces between
    not_before BIGINT NOT NULL,  -- a minute after the newest time that was forgotten
    answer     BIGINT            -- what the last one who asked was told
) WITH (fillfactor = 50);

-- A row without opened_at says that all is well since updated_at.
CREATE TABLE channel_health (
    channel_id BIGINT NOT NULL,
    model      TEXT NOT NULL,    -- '' is the whole channel
    fault      TEXT NOT NULL,
    until      BIGINT NOT NULL,
    strikes    BIGINT NOT NULL,
    opened_at  BIGINT,
    updated_at BIGINT NOT NULL,
    detail     TEXT NOT NULL,
    event      TEXT,             -- what the last write changed
    PRIMARY KEY (channel_id, model)
);

CREATE TABLE channel_events (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel_id BIGINT NOT NULL,
    model      TEXT NOT NULL,
    event      TEXT NOT NULL CHECK (event IN ('opened', 'half-open', 'closed')),
    fault      TEXT NOT NULL,
    detail     TEXT NOT NULL,
    at         BIGINT NOT NULL
);

CREATE INDEX channel_events_age ON channel_events (at);
