"""The store on SQLite: one file, one writer thread, reads straight from the event loop."""

from calotype.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
