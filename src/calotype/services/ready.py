"""Documents of tasks as they were last sent, for whoever reads the same task again.

One is good while the store says that nothing in it has changed, so that a read is never older than
the last transition; and not for long, as it also tells of time: how long the
task may still take, and until when its images may be fetched.
"""

from typing import Final

import msgspec

from calotype.domain.channel import Channel
from calotype.domain.task import Task

MAX_BYTES: Final = 8 * 1024 * 1024
"""Of all documents: some 4,000 of them, or 60 with the longest prompts."""
KEPT_MS: Final = 1000
"""By so much may a hint be behind the clock."""


class Ready(msgspec.Struct, frozen=True):
    """A document, and what it holds good for."""

    body: bytes
    account_id: int
    mark: int
    """Of what was read, as the store gave it."""
    channel_id: int
    channel: Channel | None
    """As it was called, whoever develops the task."""
    since: int
    until: int


class ReadyDocuments:
    """The documents that were made last, by task and by what stands before their URLs."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Ready] = {}
        self._bytes = 0

    def get(self, task_word: str, base_url: str, *, now: int) -> Ready | None:
        """One whose time is not over."""
        kept = self._kept.get((task_word, base_url))
        return kept if kept is not None and kept.since <= now < kept.until else None

    def keep(
        self,
        task_word: str,
        base_url: str,
        task: Task,
        body: bytes,
        *,
        mark: int,
        channel: Channel | None,
        now: int,
    ) -> None:
        """Keep one; those that were made longest ago go for it."""
        until = now + KEPT_MS
        if task.expires_at is not None and task.expires_at > now:
            until = min(until, task.expires_at)
        self._forget((task_word, base_url))
        self._kept[task_word, base_url] = Ready(
            body, task.account_id, mark, task.channel_id, channel, now, until
        )
        self._bytes += len(body)
        while self._bytes > MAX_BYTES:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: tuple[str, str]) -> None:
        if (gone := self._kept.pop(key, None)) is not None:
            self._bytes -= len(gone.body)
