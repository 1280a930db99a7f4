-- Times are milliseconds since 1970, money is micro-USDC.

CREATE TABLE accounts (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    balance    INTEGER NOT NULL DEFAULT 0 CHECK (balance >= 0),
    reserved   INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0 AND reserved <= balance),
    unfinished INTEGER NOT NULL DEFAULT 0 CHECK (unfinished >= 0),
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE api_keys (
    id         INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL,
    name       TEXT NOT NULL,
    prefix     TEXT NOT NULL,
    digest     BLOB NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT;

-- Append only: the two triggers below refuse anything else.
CREATE TABLE ledger (
    id         INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL,
    task_id    INTEGER,
    kind       TEXT NOT NULL CHECK (kind IN ('credit', 'adjust', 'reserve', 'commit', 'release')),
    amount     INTEGER NOT NULL CHECK (amount >= 0 OR kind = 'adjust'),
    note       TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL
) STRICT;

CREATE TRIGGER ledger_is_append_only_update BEFORE UPDATE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

CREATE TRIGGER ledger_is_append_only_delete BEFORE DELETE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

CREATE TABLE tasks (
    id           INTEGER PRIMARY KEY,
    account_id   INTEGER NOT NULL,
    key_id       INTEGER NOT NULL,
    request_id   TEXT NOT NULL,
    state        TEXT NOT NULL
                 CHECK (state IN ('waiting', 'queuing', 'generating', 'success', 'fail')),
    progress     INTEGER NOT NULL CHECK (progress BETWEEN 0 AND 100),
    request      BLOB NOT NULL,
    refs         BLOB NOT NULL,
    channel_id   INTEGER NOT NULL,
    claim        INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    billing      TEXT NOT NULL CHECK (billing IN ('reserved', 'committed', 'released')),
    reserved     INTEGER NOT NULL CHECK (reserved >= 0),
    actual       INTEGER NOT NULL CHECK (actual >= 0),
    released     INTEGER NOT NULL CHECK (released >= 0),
    result       BLOB,
    error        BLOB,
    deadline_at  INTEGER NOT NULL,
    abandon_at   INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    completed_at INTEGER,
    CHECK (completed_at IS NULL OR reserved = actual + released)
) STRICT;

CREATE INDEX tasks_unfinished ON tasks (id) WHERE completed_at IS NULL;

CREATE TABLE events (
    task_id  INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    event    TEXT NOT NULL,
    state    TEXT NOT NULL,
    progress INTEGER NOT NULL,
    PRIMARY KEY (task_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts (
    task_id         INTEGER NOT NULL,
    number          INTEGER NOT NULL,
    channel_id      INTEGER NOT NULL,
    state           TEXT NOT NULL,
    upstream_id     TEXT,
    detail          TEXT,
    cost_micro_usdc INTEGER,
    started_at      INTEGER NOT NULL,
    finished_at     INTEGER,
    PRIMARY KEY (task_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE assets (
    id           INTEGER PRIMARY KEY,
    account_id   INTEGER NOT NULL,
    task_id      INTEGER NOT NULL,
    kind         TEXT NOT NULL CHECK (kind IN ('reference', 'result')),
    key          TEXT NOT NULL,
    content_type TEXT NOT NULL,
    bytes        INTEGER NOT NULL,
    width        INTEGER NOT NULL,
    height       INTEGER NOT NULL,
    created_at   INTEGER NOT NULL
) STRICT;

CREATE TABLE idempotency_keys (
    account_id  INTEGER NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    task_id     INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (account_id, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);
