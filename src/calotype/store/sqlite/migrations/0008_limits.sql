-- Limits of an account that are its own. NULL: as the settings say; 0: no limit.
ALTER TABLE accounts ADD COLUMN max_tasks INTEGER;
ALTER TABLE accounts ADD COLUMN tasks_per_minute INTEGER;

-- When the bucket of its rate is full again, in microseconds since 1970.
ALTER TABLE accounts ADD COLUMN rate_free_at INTEGER NOT NULL DEFAULT 0;
