-- Cancelling, images that come one by one, and webhooks.

ALTER TABLE tasks ADD COLUMN cancel_at INTEGER;     -- when the client first asked
ALTER TABLE tasks ADD COLUMN cancel_free INTEGER;   -- 1: whatever the upstream does, it costs nothing
ALTER TABLE tasks ADD COLUMN arrived BLOB;          -- images that are stored before the end
ALTER TABLE tasks ADD COLUMN has_webhook INTEGER NOT NULL DEFAULT 0;   -- a row in webhooks

CREATE TABLE webhook_settings (
    account_id     INTEGER PRIMARY KEY,
    url            TEXT,               -- for tasks without a callback_url of their own
    receiver       TEXT,               -- the account, and the url's host and port
    version        INTEGER NOT NULL,   -- of the secret, which is derived and never stored
    version_at     INTEGER NOT NULL,
    previous_at    INTEGER,
    previous_until INTEGER             -- so long the version before signs, too
) STRICT;

CREATE TABLE webhook_disabled (
    account_id INTEGER NOT NULL,
    url        TEXT NOT NULL,
    at         INTEGER NOT NULL,
    enabled_at INTEGER,            -- when it was switched on again; NULL: it is off
    PRIMARY KEY (account_id, url)
) STRICT, WITHOUT ROWID;

-- The outbox: written in the transaction that ends the task.
CREATE TABLE webhooks (
    task_id     INTEGER PRIMARY KEY,
    account_id  INTEGER NOT NULL,
    url         TEXT NOT NULL,
    receiver    TEXT NOT NULL,               -- the same of this one: they take turns
    event       TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'failed', 'disabled')),
    attempts    INTEGER NOT NULL DEFAULT 0,   -- tries that were begun
    tries       INTEGER NOT NULL DEFAULT 0,   -- that came to an end in this round
    last_status INTEGER,
    next_at     INTEGER,                      -- when it is due, while pending; 0: whatever the clock
    round_at    INTEGER NOT NULL,             -- when this round began
    created_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX webhooks_next ON webhooks (next_at) WHERE state = 'pending';
CREATE INDEX webhooks_due ON webhooks (receiver, next_at, task_id) WHERE state = 'pending';
CREATE INDEX webhooks_of_account ON webhooks (account_id, state, task_id);

CREATE TABLE webhook_attempts (
    task_id      INTEGER NOT NULL,
    number       INTEGER NOT NULL,
    at           INTEGER NOT NULL,
    milliseconds INTEGER NOT NULL,
    status       INTEGER,
    error        TEXT,
    reply        TEXT,
    PRIMARY KEY (task_id, number)
) STRICT, WITHOUT ROWID;
