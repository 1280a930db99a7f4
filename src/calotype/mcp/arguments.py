"""What each tool takes, and what it tells; the JSON schemas that agents see are made of these."""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

DEFAULT_WAIT: Final = 45
"""Seconds; many agents give up on a call after sixty."""
MAX_WAIT: Final = 600
MAX_REFERENCES: Final = 16
"""Of one call, whichever the model."""

Value = str | int | float | bool | None
State = Literal["waiting", "queuing", "generating", "success", "fail"]

_Task = Annotated[
    str, Meta(description="The id of a task, such as task_1k0v3m9d5b8qe.", min_length=1)
]
_Wait = Annotated[
    int,
    Meta(
        description="Seconds to wait for the image. When they are over, the task goes on and its "
        "id is returned, for get_task to wait again. Choose less than your own time limit.",
        ge=0,
        le=MAX_WAIT,
    ),
]


class _Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whatever is not named here is refused."""


class ListModels(_Arguments, frozen=True, kw_only=True):
    """Arguments of ``list_models``."""

    model: Annotated[str | None, Meta(description="Tell of this model only, and all of it.")] = None


class GenerateImage(_Arguments, frozen=True, kw_only=True):
    """Arguments of ``generate_image``."""

    prompt: Annotated[str, Meta(description="What the image shows.", min_length=1)]
    model: Annotated[str, Meta(description="A model id from list_models.", min_length=1)]
    parameters: Annotated[
        dict[str, Value],
        Meta(
            description="Parameters that list_models tells of this model, such as "
            '{"aspect_ratio": "16:9", "resolution": "2K"}. Those left out have their defaults.'
        ),
    ] = {}
    n: Annotated[
        int, Meta(description="How many images; most models make only one at a time.", ge=1)
    ] = 1
    wait_seconds: _Wait = DEFAULT_WAIT
    idempotency_key: Annotated[
        Annotated[str, Meta(min_length=1, max_length=255, pattern="^[ -~]+$")] | None,
        Meta(
            description="Any text of your choice, in printable ASCII characters. A second call "
            "with the same key and the same arguments gives the same task, and buys nothing."
        ),
    ] = None


class EditImage(GenerateImage, frozen=True, kw_only=True):
    """Arguments of ``edit_image``."""

    references: Annotated[
        list[str],
        Meta(
            description="The images to work from, in order.",
            min_length=1,
            max_length=MAX_REFERENCES,
        ),
    ]


class GetTask(_Arguments, frozen=True, kw_only=True):
    """Arguments of ``get_task``."""

    task_id: _Task
    wait_seconds: _Wait = DEFAULT_WAIT


class CancelTask(_Arguments, frozen=True, kw_only=True):
    """Arguments of ``cancel_task``."""

    task_id: _Task


class ListTasks(_Arguments, frozen=True, kw_only=True):
    """Arguments of ``list_tasks``."""

    state: Annotated[State | None, Meta(description="Only tasks in this state.")] = None
    model: Annotated[str | None, Meta(description="Only tasks of this model.")] = None
    limit: Annotated[int, Meta(description="How many tasks at most.", ge=1, le=50)] = 10


class ImageShown(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A finished image."""

    url: Annotated[str, Meta(description="Signed: needs no key, and expires.")]
    expires_at: Annotated[int, Meta(description="Unix seconds.")] | None = None
    width: int | None = None
    height: int | None = None
    content_type: str | None = None
    bytes: int | None = None


class FailureShown(msgspec.Struct, frozen=True, kw_only=True):
    """Why a task failed."""

    code: str
    message: str
    retryable: Annotated[bool, Meta(description="Whether the same request anew can help.")]


class TaskShown(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task as the tools tell of it."""

    task_id: str
    state: Annotated[
        str, Meta(description="waiting, queuing, generating; success and fail are final.")
    ]
    progress: Annotated[int, Meta(description="Percent.")]
    model: str
    prompt: Annotated[str, Meta(description="Its beginning, where it is long.")]
    charged_micro_usdc: Annotated[int, Meta(description="1 000 000 is 1 USDC; 0 until final.")]
    images: list[ImageShown] = []
    error: FailureShown | None = None


class TasksShown(msgspec.Struct, frozen=True, kw_only=True):
    """What ``list_tasks`` tells."""

    tasks: list[TaskShown]


class ModelsShown(msgspec.Struct, frozen=True, kw_only=True):
    """What ``list_models`` tells."""

    models: Annotated[
        list[dict[str, Any]],
        Meta(
            description="id, name, prices, parameters with their allowed values and defaults, "
            "and how many references and images a request may have."
        ),
    ]


def schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON schema of an object, with whatever else it needs under ``$defs``."""
    (root,), definitions = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    own = definitions.pop(root["$ref"].rpartition("/")[2])
    own.pop("description", None)  # our docstring, which tells an agent nothing
    own.pop("title", None)
    return {**own, "$defs": definitions} if definitions else own
