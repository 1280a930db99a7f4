-- works from: 1
-- Cancelling, images that come one by one, and webhooks.

ALTER TABLE tasks
    ADD COLUMN cancel_at BIGINT,       -- when the client first asked
    ADD COLUMN cancel_free SMALLINT,   -- 1: whatever the upstream does, it costs nothing
    ADD COLUMN arrived BYTEA,          -- images that are stored before the end
    ADD COLUMN has_webhook SMALLINT NOT NULL DEFAULT 0;   -- a row in webhooks

CREATE TABLE webhook_settings (
    account_id     BIGINT PRIMARY KEY,
    url            TEXT,              -- for tasks without a callback_url of their own
    receiver       TEXT,              -- the account, and the url's host and port
    version        BIGINT NOT NULL,   -- of the secret, which is derived and never stored
    version_at     BIGINT NOT NULL,
    previous_at    BIGINT,
    previous_until BIGINT             -- so long the version before signs, too
);

CREATE TABLE webhook_disabled (
    account_id BIGINT NOT NULL,
    url        TEXT NOT NULL,
    at         BIGINT NOT NULL,
    enabled_at BIGINT,            -- when it was switched on again; NULL: it is off
    PRIMARY KEY (account_id, url)
);

-- The outbox: written in the transaction that ends the task.
CREATE TABLE webhooks (
    task_id     BIGINT PRIMARY KEY,
    account_id  BIGINT NOT NULL,
    url         TEXT NOT NULL,
    receiver    TEXT NOT NULL,               -- the same of this one: they take turns
    event       TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'failed', 'disabled')),
    attempts    BIGINT NOT NULL DEFAULT 0,   -- tries that were begun
    tries       BIGINT NOT NULL DEFAULT 0,   -- that came to an end in this round
    last_status BIGINT,
    next_at     BIGINT,                      -- when it is due, while pending; 0: whatever the clock
    round_at    BIGINT NOT NULL,             -- when this round began
    created_at  BIGINT NOT NULL
);

CREATE INDEX webhooks_next ON webhooks (next_at) WHERE state = 'pending';
CREATE INDEX webhooks_due ON webhooks (receiver, next_at, task_id) WHERE state = 'pending';
CREATE INDEX webhooks_of_account ON webhooks (account_id, state, task_id);

CREATE TABLE webhook_attempts (
    task_id      BIGINT NOT NULL,
    number       BIGINT NOT NULL,
    at           BIGINT NOT NULL,
    milliseconds BIGINT NOT NULL,
    status       BIGINT,
    error        TEXT,
    reply        TEXT,
    PRIMARY KEY (task_id, number)
);
