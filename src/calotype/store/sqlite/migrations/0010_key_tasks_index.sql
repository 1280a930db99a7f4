-- The unfinished tasks of a key that has limits, which each submission by it counts.
CREATE INDEX tasks_of_key ON tasks (key_id) WHERE completed_at IS NULL AND metered = 1;
