"""Tasks and their pictures as lists show them."""

from collections.abc import Sequence

import msgspec

from calotype.domain.ids import encode, time_of
from calotype.domain.task import Task


class TaskLine(msgspec.Struct, frozen=True):
    """One task of a list; each list adds what it shows besides."""

    task: Task
    now: int

    @property
    def word(self) -> str:
        """Its public id."""
        return encode("task", self.task.id)

    @property
    def image(self) -> str:
        """Its first picture, as a URL without the width; empty where it has none."""
        images = () if self.gone else self.task.result or self.task.arrived
        return image_path(images[0].asset_id) if images else ""

    @property
    def gone(self) -> str:
        """What became of its pictures, in a word; empty where they can be shown."""
        return what_became(self.task, now=self.now)

    @property
    def took(self) -> int | None:
        """From submission to its end, in milliseconds; None before that."""
        ended = self.task.completed_at
        return None if ended is None else ended - self.task.created_at


def what_became(task: Task, *, now: int) -> str:
    """What became of a task's pictures, in a word; empty where they can be shown."""
    if task.deleted_at is not None:
        return "deleted"
    return "" if task.has_images(now=now) else "expired"


def image_path(asset_id: int) -> str:
    """Where the small copies of an image are, without the width."""
    return f"/console/images/{encode('asset', asset_id)}"


def searched_to(tasks: Sequence[Task], go_on: int | None, limit: int) -> int | None:
    """The time down to which nothing else was found, where the search for a page broke off."""
    return time_of(go_on) if go_on is not None and len(tasks) < limit else None
