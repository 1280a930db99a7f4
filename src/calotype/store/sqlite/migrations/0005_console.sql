-- Keys with limits, usage by day, and what the operator's console keeps.

ALTER TABLE api_keys ADD COLUMN models TEXT;           -- JSON array of model ids; NULL: every one
ALTER TABLE api_keys ADD COLUMN channels TEXT;         -- JSON array of channel ids; NULL: every one
ALTER TABLE api_keys ADD COLUMN last_used_at INTEGER;

CREATE INDEX api_keys_of_account ON api_keys (account_id);

-- One row for each key that has a limit. What is spent counts what is reserved, too.
CREATE TABLE key_meters (
    key_id      INTEGER PRIMARY KEY,
    day_limit   INTEGER,                     -- micro-USDC in a UTC day
    month_limit INTEGER,                     -- and in a UTC month
    per_minute  INTEGER,                     -- submissions at once, and more with every minute
    day         INTEGER NOT NULL DEFAULT 0,  -- the last one in which it was used, since 1970
    day_spent   INTEGER NOT NULL DEFAULT 0,
    month       INTEGER NOT NULL DEFAULT 0,  -- year * 12 + month, January being 0
    month_spent INTEGER NOT NULL DEFAULT 0,
    free_at     INTEGER NOT NULL DEFAULT 0   -- when the bucket is full again, in microseconds
) STRICT;

-- Whether it was counted on its key's meter; the version before does not count.
ALTER TABLE tasks ADD COLUMN metered INTEGER NOT NULL DEFAULT 0;

-- Tasks by the UTC day of their end, since 1970; written by tasks_ended alone.
CREATE TABLE usage_days (
    account_id INTEGER NOT NULL,
    day        INTEGER NOT NULL,
    key_id     INTEGER NOT NULL,
    model      TEXT NOT NULL,
    channel_id INTEGER NOT NULL,             -- the last one whose turn it was
    succeeded  INTEGER NOT NULL,
    failed     INTEGER NOT NULL,
    images     INTEGER NOT NULL,
    spent      INTEGER NOT NULL,             -- what the client paid
    cost       INTEGER NOT NULL,             -- what upstreams said that they charged
    PRIMARY KEY (account_id, day, key_id, model, channel_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_days_day ON usage_days (day);

INSERT INTO usage_days
SELECT account_id, completed_at / 86400000, key_id, model, channel_id,
    SUM(result IS NOT NULL), SUM(result IS NULL),
    SUM(COALESCE(json_array_length(CAST(result AS TEXT)), 0)), SUM(actual),
    SUM((SELECT COALESCE(SUM(cost_micro_usdc), 0) FROM attempts WHERE task_id = tasks.id))
FROM tasks WHERE completed_at IS NOT NULL GROUP BY 1, 2, 3, 4, 5;

CREATE TRIGGER tasks_ended AFTER UPDATE OF completed_at ON tasks
WHEN OLD.completed_at IS NULL AND NEW.completed_at IS NOT NULL
BEGIN
    INSERT INTO usage_days VALUES (
        NEW.account_id, NEW.completed_at / 86400000, NEW.key_id, NEW.model, NEW.channel_id,
        NEW.result IS NOT NULL, NEW.result IS NULL,
        COALESCE(json_array_length(CAST(NEW.result AS TEXT)), 0), NEW.actual,
        (SELECT COALESCE(SUM(cost_micro_usdc), 0) FROM attempts WHERE task_id = NEW.id)
    ) ON CONFLICT DO UPDATE SET
        succeeded = succeeded + excluded.succeeded, failed = failed + excluded.failed,
        images = images + excluded.images, spent = spent + excluded.spent,
        cost = cost + excluded.cost;
    UPDATE key_meters SET
        day_spent = day_spent
            - CASE WHEN day = NEW.created_at / 86400000 THEN NEW.released ELSE 0 END,
        month_spent = month_spent
            - CASE WHEN month = strftime('%Y', NEW.created_at / 1000, 'unixepoch') * 12
                + strftime('%m', NEW.created_at / 1000, 'unixepoch') - 1
            THEN NEW.released ELSE 0 END
    WHERE key_id = NEW.key_id AND NEW.released > 0 AND NEW.metered;
END;

-- An account's entries, a page at a time.
CREATE INDEX ledger_of_account ON ledger (account_id);

ALTER TABLE attempts ADD COLUMN resolved_at INTEGER;   -- when the operator settled what is unknown
ALTER TABLE attempts ADD COLUMN resolution TEXT;       -- 'billed' or 'free'
CREATE INDEX attempts_unresolved ON attempts (finished_at)
    WHERE state = 'unknown' AND resolved_at IS NULL;
CREATE INDEX attempts_resolved ON attempts (finished_at)
    WHERE state = 'unknown' AND resolved_at IS NOT NULL;
CREATE INDEX attempts_of_channel ON attempts (channel_id, started_at);

-- The client wanted its images gone.
ALTER TABLE tasks ADD COLUMN deleted_at INTEGER;
ALTER TABLE assets ADD COLUMN deleted_at INTEGER;      -- its file may still be there; then the row goes
CREATE INDEX assets_deleted ON assets (id) WHERE deleted_at IS NOT NULL;

-- Channels that the operator has switched from the console: stronger than the configuration.
CREATE TABLE channel_switches (
    channel_id INTEGER PRIMARY KEY,
    enabled    INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    by         TEXT NOT NULL
) STRICT;

CREATE TABLE audit (
    id      INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    actor   TEXT NOT NULL,                   -- who: a person's way in, such as 'console' or 'cli'
    action  TEXT NOT NULL,                   -- what, such as 'key.create'
    subject TEXT NOT NULL,                   -- with whom or what
    detail  TEXT NOT NULL,
    outcome TEXT NOT NULL                    -- 'begun', 'done', or why it was refused
) STRICT;

CREATE INDEX audit_action ON audit (action);

-- Sessions that were begun before this are over; a subject is 'admin', 'account:<id>' or 'session:<id>'.
CREATE TABLE session_cutoffs (
    subject TEXT PRIMARY KEY,
    at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE spent_links (
    nonce      TEXT PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
