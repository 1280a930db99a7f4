"""Schemas of what streams carry: one server-sent event, as a parser gives it."""

from calotype.api.openapi.shapes import UNIX, Schema, record, reference, text, whole
from calotype.domain.task import State


def event_schemas() -> dict[str, Schema]:
    """The schemas by component name."""
    return {"TaskEvent": _event(), "TaskEventData": _data()}


def _event() -> Schema:
    return record(
        "One event of a stream; the fields of its lines.",
        {
            "id": text("Send it as `Last-Event-ID` to go on after this event."),
            "event": text("What happened.", enum=[f"task.{state.value}" for state in State]),
            "data": text(
                "JSON.",
                contentMediaType="application/json",
                contentSchema=reference("TaskEventData"),
            ),
        },
    )


def _data() -> Schema:
    return record(
        "What happened to which task.",
        {
            "task_id": text("Id of the task.", examples=["task_1k0v3m8a0qz4e"]),
            "event": whole("Number of the event in the task, from 1."),
            "state": text("The task's state since then.", enum=[state.value for state in State]),
            "progress": whole("Percent.", maximum=100),
            "at": whole(f"{UNIX}."),
            "task": reference("Task"),
        },
        optional=("task",),
    )
