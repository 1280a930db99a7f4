-- works from: 1
-- Tasks found by metadata, state and model, and all events as one log.

LOCK TABLE tasks, events IN ACCESS EXCLUSIVE MODE;  -- in the order in which all statements do

ALTER TABLE tasks ADD COLUMN metadata BYTEA;

-- The model stands first in a request: {"model":"…",…
CREATE FUNCTION task_model(request BYTEA) RETURNS TEXT
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$ SELECT split_part(encode(substring(request FROM 1 FOR 211), 'escape'), '"', 4) $$;

-- Each task is in one of these. None names what changes while a task runs, so that those updates
-- stay in place.
-- (id + 0) is an order that the primary key does not have: led by old statistics, the planner
-- would walk everybody's tasks along it to find the few of one account.
CREATE INDEX tasks_open ON tasks (account_id, (id + 0)) WHERE completed_at IS NULL;
CREATE INDEX tasks_succeeded ON tasks (account_id, task_model(request), (id + 0))
    WHERE result IS NOT NULL;
CREATE INDEX tasks_failed ON tasks (account_id, task_model(request), (id + 0))
    WHERE error IS NOT NULL;

CREATE TABLE task_metadata (
    account_id BIGINT NOT NULL,
    key        TEXT NOT NULL,
    value      TEXT NOT NULL,
    task_id    BIGINT NOT NULL,
    PRIMARY KEY (account_id, key, value, task_id)
);

-- An event's place is its transaction's id and event_base(): below the oldest transaction that
-- is open nothing can come any more, so who reads only there misses nothing. The base grows when
-- the rows come from another cluster, whose transaction ids may be higher (store/postgres/log.py).
CREATE FUNCTION event_base() RETURNS BIGINT LANGUAGE sql STABLE AS $$ SELECT 0::bigint $$;

-- By time, but those of one task never out of turn, whatever the clocks were. Written anew, which
-- takes half as long as an update of every row and leaves no dead ones.
CREATE TEMPORARY TABLE events_before ON COMMIT DROP AS
SELECT events.*, tasks.account_id,
    MAX(at) OVER (PARTITION BY task_id ORDER BY events.seq) AS told
FROM events LEFT JOIN tasks ON tasks.id = task_id;

TRUNCATE events;
ALTER TABLE events ADD COLUMN account_id BIGINT, ADD COLUMN place BIGINT;

INSERT INTO events (account_id, place, task_id, seq, at, event, state, progress)
SELECT account_id, ROW_NUMBER() OVER (ORDER BY told, task_id, seq), task_id, seq, at, event, state,
    progress
FROM events_before
ORDER BY told, task_id, seq;

DO $$
BEGIN
    EXECUTE format(
        'CREATE OR REPLACE FUNCTION event_base() RETURNS BIGINT LANGUAGE sql STABLE '
        'AS ''SELECT %s::bigint''',
        (SELECT COALESCE(MAX(place), 0) FROM events)
    );
END $$;

ALTER TABLE events
    ALTER COLUMN place SET DEFAULT pg_current_xact_id()::text::bigint + event_base(),
    ALTER COLUMN place SET NOT NULL;

CREATE INDEX events_log ON events (place, task_id, seq);
CREATE INDEX events_of_account ON events (account_id, (place + 0), task_id, seq);

-- For the version before, which does not say whose an event is.
CREATE FUNCTION fill_event_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE events SET account_id = tasks.account_id FROM tasks
    WHERE tasks.id = NEW.task_id AND events.task_id = NEW.task_id AND events.seq = NEW.seq;
    RETURN NULL;
END $$;

CREATE TRIGGER events_account AFTER INSERT ON events FOR EACH ROW WHEN (NEW.account_id IS NULL)
EXECUTE FUNCTION fill_event_account();
