"""What the current work belongs to; each log line of it says so."""

from contextvars import ContextVar
from typing import Final

REQUEST: Final = ContextVar("request_id", default="")
"""The id of the request, or of the one that made the task."""
TASK: Final = ContextVar("task_id", default="")
ACCOUNT: Final = ContextVar("account_id", default=0)


def bound() -> dict[str, str | int]:
    """What is known of the current work, by name."""
    return {each.name: value for each in (REQUEST, TASK, ACCOUNT) if (value := each.get())}
