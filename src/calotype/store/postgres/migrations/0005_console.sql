-- works from: 1
-- Keys with limits, usage by day, and what the operator's console keeps.

-- In the order in which all statements do; and no task ends between count and trigger.
LOCK TABLE tasks, attempts, assets IN ACCESS EXCLUSIVE MODE;

ALTER TABLE api_keys
    ADD COLUMN models TEXT,           -- JSON array of model ids; NULL: every one
    ADD COLUMN channels TEXT,         -- JSON array of channel ids; NULL: every one
    ADD COLUMN last_used_at BIGINT;

CREATE INDEX api_keys_of_account ON api_keys (account_id);

-- One row for each key that has a limit. What is spent counts what is reserved, too.
CREATE TABLE key_meters (
    key_id      BIGINT PRIMARY KEY,
    day_limit   BIGINT,                     -- micro-USDC in a UTC day
    month_limit BIGINT,                     -- and in a UTC month
    per_minute  BIGINT,                     -- submissions at once, and more with every minute
    day         BIGINT NOT NULL DEFAULT 0,  -- the last one in which it was used, since 1970
    day_spent   BIGINT NOT NULL DEFAULT 0,
    month       BIGINT NOT NULL DEFAULT 0,  -- year * 12 + month, January being 0
    month_spent BIGINT NOT NULL DEFAULT 0,
    free_at     BIGINT NOT NULL DEFAULT 0   -- when the bucket is full again, in microseconds
);

-- 1: it was counted on its key's meter; the version before does not count.
ALTER TABLE tasks ADD COLUMN metered SMALLINT NOT NULL DEFAULT 0;

-- Tasks by the UTC day of their end, since 1970; written by tasks_ended alone.
CREATE TABLE usage_days (
    account_id BIGINT NOT NULL,
    day        BIGINT NOT NULL,
    key_id     BIGINT NOT NULL,
    model      TEXT NOT NULL,
    channel_id BIGINT NOT NULL,             -- the last one whose turn it was
    succeeded  BIGINT NOT NULL,
    failed     BIGINT NOT NULL,
    images     BIGINT NOT NULL,
    spent      BIGINT NOT NULL,             -- what the client paid
    cost       BIGINT NOT NULL,             -- what upstreams said that they charged
    PRIMARY KEY (account_id, day, key_id, model, channel_id)
);

CREATE INDEX usage_days_day ON usage_days (day);

CREATE FUNCTION number_of_images(result BYTEA) RETURNS BIGINT LANGUAGE sql IMMUTABLE
AS $$ SELECT COALESCE(jsonb_array_length(convert_from(result, 'UTF8')::jsonb), 0)::bigint $$;

INSERT INTO usage_days
SELECT account_id, completed_at / 86400000, key_id, task_model(request), channel_id,
    COUNT(*) FILTER (WHERE result IS NOT NULL), COUNT(*) FILTER (WHERE result IS NULL),
    SUM(number_of_images(result)), SUM(actual), SUM(COALESCE(charged, 0))
FROM tasks LEFT JOIN (
    SELECT task_id, SUM(cost_micro_usdc) AS charged FROM attempts GROUP BY task_id
) AS costs ON costs.task_id = tasks.id
WHERE completed_at IS NOT NULL GROUP BY 1, 2, 3, 4, 5;

CREATE FUNCTION task_ended() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_days AS so_far VALUES (
        NEW.account_id, NEW.completed_at / 86400000, NEW.key_id, task_model(NEW.request),
        NEW.channel_id, (NEW.result IS NOT NULL)::int, (NEW.result IS NULL)::int,
        number_of_images(NEW.result), NEW.actual,
        (SELECT COALESCE(SUM(cost_micro_usdc), 0) FROM attempts WHERE task_id = NEW.id)
    ) ON CONFLICT (account_id, day, key_id, model, channel_id) DO UPDATE SET
        succeeded = so_far.succeeded + excluded.succeeded, failed = so_far.failed + excluded.failed,
        images = so_far.images + excluded.images, spent = so_far.spent + excluded.spent,
        cost = so_far.cost + excluded.cost;
    IF NEW.released > 0 AND NEW.metered = 1 THEN
        UPDATE key_meters SET
            day_spent = day_spent
                - CASE WHEN day = NEW.created_at / 86400000 THEN NEW.released ELSE 0 END,
            month_spent = month_spent - CASE WHEN month = month_of(NEW.created_at)
                THEN NEW.released ELSE 0 END
        WHERE key_id = NEW.key_id;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION month_of(at BIGINT) RETURNS BIGINT LANGUAGE sql IMMUTABLE AS $$
    SELECT (extract(year FROM moment) * 12 + extract(month FROM moment) - 1)::bigint
    FROM (SELECT to_timestamp(at / 1000) AT TIME ZONE 'UTC' AS moment) AS m
$$;

CREATE TRIGGER tasks_ended AFTER UPDATE OF completed_at ON tasks FOR EACH ROW
WHEN (OLD.completed_at IS NULL AND NEW.completed_at IS NOT NULL) EXECUTE FUNCTION task_ended();

-- An account's entries, a page at a time.
CREATE INDEX ledger_of_account ON ledger (account_id, (id + 0));

ALTER TABLE attempts
    ADD COLUMN resolved_at BIGINT,   -- when the operator settled what is unknown
    ADD COLUMN resolution TEXT;      -- 'billed' or 'free'
CREATE INDEX attempts_unresolved ON attempts (unknown_at)
    WHERE unknown_at IS NOT NULL AND resolved_at IS NULL;
CREATE INDEX attempts_resolved ON attempts (unknown_at)
    WHERE unknown_at IS NOT NULL AND resolved_at IS NOT NULL;
CREATE INDEX attempts_of_channel ON attempts (channel_id, started_at);

-- The client wanted its images gone.
ALTER TABLE tasks ADD COLUMN deleted_at BIGINT;
ALTER TABLE assets ADD COLUMN deleted_at BIGINT;   -- its file may still be there; then the row goes
CREATE INDEX assets_deleted ON assets (id) WHERE deleted_at IS NOT NULL;

-- Channels that the operator has switched from the console: stronger than the configuration.
CREATE TABLE channel_switches (
    channel_id BIGINT PRIMARY KEY,
    enabled    SMALLINT NOT NULL,
    at         BIGINT NOT NULL,
    by         TEXT NOT NULL
);

CREATE TABLE audit (
    id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      BIGINT NOT NULL,
    actor   TEXT NOT NULL,              -- who: a person's way in, such as 'console' or 'cli'
    action  TEXT NOT NULL,              -- what, such as 'key.create'
    subject TEXT NOT NULL,              -- with whom or what
    detail  TEXT NOT NULL,
    outcome TEXT NOT NULL               -- 'begun', 'done', or why it was refused
);

CREATE INDEX audit_action ON audit (action, id);

-- Sessions that were begun before this are over; a subject is 'admin', 'account:<id>' or 'session:<id>'.
CREATE TABLE session_cutoffs (
    subject TEXT PRIMARY KEY,
    at      BIGINT NOT NULL
);

CREATE TABLE spent_links (
    nonce      TEXT PRIMARY KEY,
    expires_at BIGINT NOT NULL
);
