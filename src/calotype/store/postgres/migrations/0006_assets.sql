-- works from: 1
-- How long images are kept, and files that are uploaded once for many tasks.

ALTER TABLE accounts ADD COLUMN result_days BIGINT;      -- NULL: as the model or the settings say
ALTER TABLE accounts ADD COLUMN reference_days BIGINT;

-- From then on its images are gone. NULL: it has none yet, or they are kept until they are deleted,
-- as those of tasks that ended before this.
ALTER TABLE tasks ADD COLUMN expires_at BIGINT;

-- A file has task_id 0 and the SHA-256 of what was uploaded.
ALTER TABLE assets ADD COLUMN expires_at BIGINT;
ALTER TABLE assets ADD COLUMN digest BYTEA;
CREATE INDEX assets_expiring ON assets (expires_at, id)
    WHERE expires_at IS NOT NULL AND deleted_at IS NULL;
CREATE UNIQUE INDEX assets_files ON assets (account_id, digest)
    WHERE digest IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX assets_files_of_account ON assets (account_id, id)
    WHERE task_id = 0 AND deleted_at IS NULL;

-- When the oldest unfinished task of an account was created, in one look-up.
CREATE INDEX tasks_oldest ON tasks (account_id, created_at) WHERE completed_at IS NULL;
