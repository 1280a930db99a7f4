"""What the server knows of jobs: by their own route, or by its queue and its history.

Older servers have the latter alone. An id that none of them knows is lost: a restart forgets all.
"""

from typing import Any, Final
from urllib.parse import quote

import msgspec

from calotype.domain.outcomes import TryLater
from calotype.net.client import Answer
from calotype.providers.line import Line
from calotype.providers.local import fields, items, text

_OK: Final = 200
_NO_ROUTE: Final = frozenset({404, 405})
"""Of a server that is older than the question; 404 of a newer one: it has no such job."""
_READ_BYTES: Final = 64 * 1024 * 1024
"""Of an answer about jobs: the graphs of all of them are in it."""
_PAIR: Final = 2


class Seen(msgspec.Struct, frozen=True):
    """What the server tells of a job."""

    state: str
    """One of the table ``states``' values."""
    strange: str = ""
    """The server's own word, where the table does not have it."""
    outputs: dict[str, Any] = {}
    error: str = ""


class Jobs:
    """Asks one server.

    Args:
        line: to it.

    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._lists_jobs = True

    async def cancel(self, prompt_id: str) -> bool:
        """Take a job out of the queue, or interrupt it; whether the server does so."""
        path = f"api/jobs/{quote(prompt_id, safe='')}/cancel"
        answer = await self._line.ask(path, method="POST", body={})
        if isinstance(answer, TryLater):
            return False
        if answer.status in _NO_ROUTE:
            return await self._cancel_by_queue(prompt_id)
        return answer.status == _OK and fields(answer.document).get("cancelled") is True

    async def find(self, prompt_id: str) -> Seen | TryLater | None:
        """What the server tells of a job; None when it knows nothing of it."""
        if self._lists_jobs:
            answer = await self._read(f"api/jobs/{quote(prompt_id, safe='')}")
            if not isinstance(answer, Answer):
                return answer
            if answer.status == _OK:
                job = fields(answer.document)
                error = self._line.said(answer, _exception(job.get("execution_error")))
                return self._seen(text(job, "status"), job.get("outputs"), error)
            self._lists_jobs = answer.document is not None
        return await self._find_by_queue(prompt_id)

    async def _find_by_queue(self, prompt_id: str) -> Seen | TryLater | None:
        """The same by the queue and then the history: what has left the one is in the other."""
        answer = await self._read("queue")
        if not isinstance(answer, Answer):
            return answer
        for state in ("running", "pending"):
            if prompt_id in _listed(answer.document, f"queue_{state}"):
                return self._seen(state, {}, "")
        answer = await self._read(f"history/{quote(prompt_id, safe='')}")
        if not isinstance(answer, Answer):
            return answer
        entry = fields(answer.document).get(prompt_id)
        if not isinstance(entry, dict):
            return None
        status = fields(entry.get("status"))
        events = {
            event[0]: event[1]
            for event in items(status.get("messages"))
            if isinstance(event, list) and len(event) == _PAIR and isinstance(event[0], str)
        }
        state = text(status, "status_str") or "success"
        if "execution_interrupted" in events:
            state = "cancelled"
        error = self._line.said(answer, _exception(events.get("execution_error")))
        return self._seen(state, entry.get("outputs"), error)

    def _seen(self, state: str, outputs: object, error: str) -> Seen:
        known = self._line.upstream.states.get(state, "running")
        return Seen(known, self._line.strange(state), fields(outputs), error)

    async def _read(self, path: str) -> Answer | TryLater:
        """An answer that tells something: 200, or 404 of the jobs' own route."""
        answer = await self._line.ask(path, max_bytes=_READ_BYTES)
        if isinstance(answer, TryLater):
            return answer
        if answer.status == _OK and isinstance(answer.document, dict):
            return answer
        if answer.status in _NO_ROUTE and path.startswith("api/jobs/"):
            return answer
        said = self._line.said(answer, said_in(answer.document))
        return TryLater("upstream_unavailable", f"The upstream said: {said}", answer.retry_after)

    async def _cancel_by_queue(self, prompt_id: str) -> bool:
        """An older server interrupts whatever runs: it is asked to only while ours does."""
        queue = await self._read("queue")
        if not isinstance(queue, Answer):
            return False
        body: dict[str, Any]
        if prompt_id in _listed(queue.document, "queue_pending"):
            path, body = "queue", {"delete": [prompt_id]}
        elif prompt_id in _listed(queue.document, "queue_running"):
            path, body = "interrupt", {"prompt_id": prompt_id}
        else:
            return False
        answer = await self._line.ask(path, method="POST", body=body)
        return isinstance(answer, Answer) and answer.status == _OK


def _listed(document: object, queue: str) -> set[str]:
    """The ids in one of the queues: the second place of each entry."""
    entries = items(fields(document).get(queue))
    ids = (entry[1] for entry in entries if isinstance(entry, list) and len(entry) > 1)
    return {each for each in ids if isinstance(each, str)}


def said_in(document: object) -> str:
    """What an error document says: a word, or an object with a message."""
    error = fields(document).get("error")
    if isinstance(error, str):
        return error
    return ": ".join(each for name in ("message", "details") if (each := text(error, name)))


def _exception(error: object) -> str:
    """What a node that failed says."""
    names = ("node_type", "exception_type", "exception_message")
    return ": ".join(each for name in names if (each := text(error, name)))
