"""Where images lie: one port, one file per kind of store."""
