-- Tasks found by metadata, state and model, and all events as one log.

-- The model stands first in a request: {"model":"...",
ALTER TABLE tasks ADD COLUMN metadata BLOB;
ALTER TABLE tasks ADD COLUMN model TEXT
    AS (CAST(substr(request, 11, instr(substr(request, 11, 200), x'22') - 1) AS TEXT)) VIRTUAL;

-- Each task is in one of these; they end with the id, which is the rowid.
CREATE INDEX tasks_open ON tasks (account_id) WHERE completed_at IS NULL;
CREATE INDEX tasks_succeeded ON tasks (account_id, model) WHERE result IS NOT NULL;
CREATE INDEX tasks_failed ON tasks (account_id, model) WHERE error IS NOT NULL;

CREATE TABLE task_metadata (
    account_id INTEGER NOT NULL,
    key        TEXT NOT NULL,
    value      TEXT NOT NULL,
    task_id    INTEGER NOT NULL,
    PRIMARY KEY (account_id, key, value, task_id)
) STRICT, WITHOUT ROWID;

-- One writer, so places are in the order of commits. The newest row must stay, or its place would
-- be given again.
CREATE TABLE event_log (
    place      INTEGER PRIMARY KEY,
    account_id INTEGER,
    task_id    INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    event      TEXT NOT NULL,
    state      TEXT NOT NULL,
    progress   INTEGER NOT NULL
) STRICT;

-- By time, but those of one task never out of turn, whatever the clocks were.
INSERT INTO event_log (account_id, task_id, seq, at, event, state, progress)
SELECT tasks.account_id, task_id, old.seq, at, event, old.state, old.progress
FROM (SELECT *, MAX(at) OVER (PARTITION BY task_id ORDER BY seq) AS told FROM events) AS old
LEFT JOIN tasks ON tasks.id = task_id
ORDER BY told, task_id, old.seq;

DROP TABLE events;
ALTER TABLE event_log RENAME TO events;

CREATE UNIQUE INDEX events_of_task ON events (task_id, seq);
CREATE INDEX events_of_account ON events (account_id);
-- The version before does not say whose an event is; these are few and must be found too.
CREATE INDEX events_unowned ON events (place) WHERE account_id IS NULL;
