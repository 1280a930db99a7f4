-- Most unfinished tasks of a key. NULL: no limit.
ALTER TABLE key_meters ADD COLUMN max_tasks INTEGER;
