-- works from: 1
-- Times are milliseconds since 1970, money is micro-USDC.

CREATE TABLE accounts (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    balance    BIGINT NOT NULL DEFAULT 0 CHECK (balance >= 0),
    reserved   BIGINT NOT NULL DEFAULT 0 CHECK (reserved >= 0 AND reserved <= balance),
    unfinished BIGINT NOT NULL DEFAULT 0 CHECK (unfinished >= 0),
    created_at BIGINT NOT NULL
);

CREATE TABLE api_keys (
    id         BIGINT PRIMARY KEY,
    account_id BIGINT NOT NULL,
    name       TEXT NOT NULL,
    prefix     TEXT NOT NULL,
    digest     BYTEA NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT
);

-- Append only: the trigger below refuses anything else.
CREATE TABLE ledger (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id BIGINT NOT NULL,
    task_id    BIGINT,
    kind       TEXT NOT NULL CHECK (kind IN ('credit', 'adjust', 'reserve', 'commit', 'release')),
    amount     BIGINT NOT NULL CHECK (amount >= 0 OR kind = 'adjust'),
    note       TEXT NOT NULL DEFAULT '',
    created_at BIGINT NOT NULL
);

CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only';
END $$;

CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change();

CREATE TABLE tasks (
    id           BIGINT PRIMARY KEY,
    account_id   BIGINT NOT NULL,
    key_id       BIGINT NOT NULL,
    request_id   TEXT NOT NULL,
    state        TEXT NOT NULL
                 CHECK (state IN ('waiting', 'queuing', 'generating', 'success', 'fail')),
    progress     BIGINT NOT NULL CHECK (progress BETWEEN 0 AND 100),
    request      BYTEA NOT NULL,
    refs         BYTEA NOT NULL,
    channel_id   BIGINT NOT NULL,
    claim        BIGINT NOT NULL,
    seq          BIGINT NOT NULL,
    billing      TEXT NOT NULL CHECK (billing IN ('reserved', 'committed', 'released')),
    reserved     BIGINT NOT NULL CHECK (reserved >= 0),
    actual       BIGINT NOT NULL CHECK (actual >= 0),
    released     BIGINT NOT NULL CHECK (released >= 0),
    result       BYTEA,
    error        BYTEA,
    deadline_at  BIGINT NOT NULL,
    abandon_at   BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL,
    completed_at BIGINT,
    CHECK (completed_at IS NULL OR reserved = actual + released)
) WITH (fillfactor = 70);  -- room for updates in place

CREATE INDEX tasks_unfinished ON tasks (id) WHERE completed_at IS NULL;

CREATE TABLE events (
    task_id  BIGINT NOT NULL,
    seq      BIGINT NOT NULL,
    at       BIGINT NOT NULL,
    event    TEXT NOT NULL,
    state    TEXT NOT NULL,
    progress BIGINT NOT NULL,
    PRIMARY KEY (task_id, seq)
);

CREATE TABLE attempts (
    task_id         BIGINT NOT NULL,
    number          BIGINT NOT NULL,
    channel_id      BIGINT NOT NULL,
    state           TEXT NOT NULL,
    upstream_id     TEXT,
    detail          TEXT,
    cost_micro_usdc BIGINT,
    started_at      BIGINT NOT NULL,
    finished_at     BIGINT,
    PRIMARY KEY (task_id, number)
);

CREATE TABLE assets (
    id           BIGINT PRIMARY KEY,
    account_id   BIGINT NOT NULL,
    task_id      BIGINT NOT NULL,
    kind         TEXT NOT NULL CHECK (kind IN ('reference', 'result')),
    key          TEXT NOT NULL,
    content_type TEXT NOT NULL,
    bytes        BIGINT NOT NULL,
    width        BIGINT NOT NULL,
    height       BIGINT NOT NULL,
    created_at   BIGINT NOT NULL
);

CREATE TABLE idempotency_keys (
    account_id  BIGINT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    task_id     BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (account_id, key)
);

CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);
