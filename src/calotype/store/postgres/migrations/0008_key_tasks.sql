-- works from: 1
-- Most unfinished tasks of a key. NULL: no limit.
ALTER TABLE key_meters ADD COLUMN max_tasks BIGINT;

-- Unfinished tasks of a key with limits, counted when such a key submits.
CREATE INDEX tasks_of_meter ON tasks (key_id) WHERE completed_at IS NULL AND metered = 1;
