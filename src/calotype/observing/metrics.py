"""The figures that this process counts, whether anybody asks for them or not.

They are plain numbers in dictionaries, so that counting costs next to nothing and takes no
library; ``api/metrics.py`` shows them to Prometheus. Labels are few words of ours: models,
channels (by id; shown by slug), outcomes. Never accounts, tasks or anything that a client wrote.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec

from calotype.domain.outcomes import (
    Done,
    Failed,
    PollOutcome,
    Refused,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from calotype.domain.task import Task
from calotype.domain.webhooks import DeliveryState

Labels = tuple[str | int, ...]


class Count:
    """A number for each combination of labels.

    Args:
        name: without ``calotype_``.
        text: what it is, in one sentence.
        labels: their names.
        goes_down: whether it is what there is now, and no sum.
        known: the values of its one label, where they are known before anything was counted.

    """

    def __init__(
        self,
        name: str,
        text: str,
        *labels: str,
        goes_down: bool = False,
        known: Sequence[str] = (),
    ) -> None:
        self.name = f"calotype_{name}"
        self.text = text
        self.labels = labels
        self.goes_down = goes_down
        self.values: defaultdict[Labels, int] = defaultdict(int)
        if not labels:
            self.values[()] = 0
        self.values |= {(word,): 0 for word in known}

    def add(self, *labels: str | int, by: int = 1) -> None:
        """Count."""
        self.values[labels] += by

    @contextmanager
    def during(self, *labels: str | int) -> Iterator[None]:
        """Count one while entered."""
        self.values[labels] += 1
        try:
            yield
        finally:
            self.values[labels] -= 1


class Spread(msgspec.Struct):
    """How the values of one combination of labels are spread."""

    counts: list[int]
    """By bucket, the last one for what is above all bounds; not summed up."""
    total: float = 0.0


class Durations:
    """How long something took, for each combination of labels.

    Args:
        name: without ``calotype_`` and the unit.
        text: what it is, in one sentence.
        labels: their names.
        bounds: the buckets' upper ends in seconds, ascending.

    """

    def __init__(self, name: str, text: str, *labels: str, bounds: Sequence[float]) -> None:
        self.name = f"calotype_{name}_seconds"
        self.text = text
        self.labels = labels
        self.bounds = bounds
        self.spreads: dict[Labels, Spread] = {}

    def note(self, seconds: float, *labels: str | int) -> None:
        """Take in one duration."""
        spread = self.spreads.get(labels)
        if spread is None:
            spread = self.spreads[labels] = Spread([0] * (len(self.bounds) + 1))
        spread.counts[bisect_left(self.bounds, seconds)] += 1
        spread.total += seconds


_SHORT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_LONG: Final = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)

REQUESTS: Final = Count("http_requests_total", "Answered requests.", "method", "route", "status")
CUT: Final = Count(
    "http_cut_connections_total",
    "Connections that were ended for what their clients did: the code of the refusal, or why.",
    *("reason",),
    known=(
        *("answer_not_taken", "head_too_large", "malformed_body", "nothing_asked"),
        *("request_timeout", "service_unavailable"),
    ),
)
HELD: Final = Count(
    "http_held_requests",
    "Requests that wait for news: long-polls, and streams of events.",
    *("kind",),
    goes_down=True,
    known=("poll", "stream"),
)
ACCEPTED: Final = Count("tasks_accepted_total", "Tasks that were accepted.", "channel", "model")
ENDED: Final = Count(
    "tasks_ended_total",
    "Tasks that ended: success, or the code of the failure.",
    *("channel", "model", "outcome"),
)
RUNNING: Final = Count("tasks_running", "Tasks that are being developed.", goes_down=True)
UPSTREAM: Final = Count(
    "upstream_outcomes_total",
    "What came of sends and of jobs that had been accepted, and where the fault lay.",
    *("channel", "model", "outcome", "fault"),
)
CHARGED: Final = Count(
    "charged_micro_usdc_total", "What clients paid for tasks.", "channel", "model"
)
COST: Final = Count(
    "upstream_cost_micro_usdc_total",
    "What upstreams charged, as far as is known.",
    *("channel", "model"),
)
STORED_BYTES: Final = Count(
    "image_stored_bytes_total",
    "Bytes of images that were stored.",
    *("kind",),
    known=("reference", "result"),
)
SERVED_BYTES: Final = Count("image_served_bytes_total", "Bytes of images that clients asked for.")
WEBHOOKS: Final = Count(
    "webhook_tries_total",
    "Tries to deliver a webhook, by the state after it.",
    *("outcome",),
    known=tuple(state for state in DeliveryState if state is not DeliveryState.WAITING),
)
RECONCILED: Final = Count(
    "reconciled_total",
    "Jobs and tasks that reconciliation had to put right.",
    *("action",),
    known=("enqueued", "dropped", "ended"),
)

QUEUE_SECONDS: Final = Durations(
    "task_queue", "From the acceptance of a task to its first send.", "channel", bounds=_LONG
)
UPSTREAM_SECONDS: Final = Durations(
    "upstream",
    "From the send of a request to what came of it at the upstream.",
    *("channel", "model", "outcome"),
    bounds=_LONG,
)
IMAGE_SECONDS: Final = Durations(
    "image_store", "Reading, cleaning and storing one result.", bounds=_LONG
)
TASK_SECONDS: Final = Durations(
    "task",
    "From the acceptance of a task to its end.",
    *("channel", "model", "outcome"),
    bounds=_LONG,
)
DATABASE_SECONDS: Final = Durations(
    "database", "Writes to the database, until they are durable.", "operation", bounds=_SHORT
)

COUNTS: Final = (
    *(REQUESTS, CUT, HELD, ACCEPTED, ENDED, RUNNING, UPSTREAM, CHARGED, COST),
    *(STORED_BYTES, SERVED_BYTES, WEBHOOKS, RECONCILED),
)
DURATIONS: Final = (QUEUE_SECONDS, UPSTREAM_SECONDS, IMAGE_SECONDS, TASK_SECONDS, DATABASE_SECONDS)

SUCCESS: Final = "success"
_WORDS: Final = {
    Done: "done",
    Failed: "failed",
    Refused: "refused",
    TryLater: "try_later",
    Unknown: "unknown",
}


def task_ended(task: Task, outcome: str, *, now: int) -> None:
    """Take in the end of a task: ``SUCCESS`` or the code of its failure."""
    ENDED.add(task.channel_id, task.model, outcome)
    # The codes are many and each failure is rare: how long they took is told in one.
    told = outcome if outcome == SUCCESS else "fail"
    TASK_SECONDS.note((now - task.created_at) / 1000, task.channel_id, task.model, told)


def upstream_answered(
    channel_id: int, model: str, outcome: SubmitOutcome | PollOutcome, *, milliseconds: int
) -> None:
    """Take in what came of a send, or of a job that had been accepted."""
    told = _WORDS.get(type(outcome))
    if told is None:  # it goes on
        return
    fault = getattr(outcome, "fault", None)
    UPSTREAM.add(channel_id, model, told, "" if fault is None else str(fault))
    UPSTREAM_SECONDS.note(milliseconds / 1000, channel_id, model, told)
