"""What the server answers, typed: thin views over its documents, which stay at hand as ``raw``."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, Literal, TypeVar, cast

import msgspec

from calotype.client.errors import TaskFailed, WaitTimeout, unexpected
from calotype.client.sse import Received

State = Literal["waiting", "queuing", "generating", "success", "fail"]
FINAL: Final = ("success", "fail")
_OK: Final = 200
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")

S = TypeVar("S")
T = TypeVar("T")
V = TypeVar("V", bound="TaskView")


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """One picture of a task."""

    url: str
    """Signed: whoever has it can fetch the image, without a key, until it expires."""
    expires_at: int | None = None
    """Unix seconds; reading the task again gives a fresh URL."""
    width: int | None = None
    height: int | None = None
    content_type: str | None = None
    bytes: int | None = None


class TaskError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a task failed."""

    code: str = ""
    message: str = ""
    type: str = ""
    retryable: bool = False
    """Whether submitting the same request anew can help."""


class Billing(msgspec.Struct, frozen=True, kw_only=True):
    """What a task costs, in micro-USDC: 1 000 000 is 1 USDC."""

    status: str
    reserve_amount_micro_usdc: int = 0
    actual_amount_micro_usdc: int = 0
    released_amount_micro_usdc: int = 0


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """What the account has, in micro-USDC."""

    balance_micro_usdc: int
    reserved_micro_usdc: int = 0
    available_micro_usdc: int = 0


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model as discovery shows it; the API reference says what stands in its parts."""

    id: str
    name: str = ""
    description: str = ""
    owned_by: str = ""
    upstream_id: str = ""
    enabled: bool = True
    capabilities: dict[str, Any] = {}
    """Parameters, pricing, reference input, limits."""
    available_channels: list[dict[str, Any]] = []


class File(msgspec.Struct, frozen=True, kw_only=True):
    """An image that was uploaded once, to be a reference of many tasks."""

    id: str
    reference: str
    """``asset://…``: names it in a request; the file itself does so, too."""
    url: str = ""
    """Signed, to look at it."""
    content_type: str | None = None
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    created_at: int | None = None
    expires_at: int | None = None
    """Unix seconds; each use moves it on."""


class WebhookSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that webhooks are signed with."""

    secret: str
    created_at: int | None = None
    expires_at: int | None = None
    """Unix seconds; None for the one that stays."""

    def __repr__(self) -> str:
        return f"WebhookSecret(created_at={self.created_at}, expires_at={self.expires_at})"


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the account's webhooks go, and what they are signed with."""

    url: str | None = None
    secrets: list[WebhookSecret] = []
    """The newest first; during a rotation there are two."""
    disabled_urls: list[str] = []


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TaskView:
    """A task as it was when it was read; it does not change."""

    raw: dict[str, Any]
    """The server's document."""

    @property
    def id(self) -> str:
        """Such as ``task_1k0v3m8a0qz4e``."""
        return cast("str", self.raw["task_id"])

    @property
    def state(self) -> State:
        """``success`` and ``fail`` are final."""
        return cast("State", str(self.raw["state"]).lower())

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more."""
        return self.state in FINAL

    @property
    def progress(self) -> int:
        """0 to 100."""
        return int(self.raw.get("progress") or 0)

    @property
    def last_event(self) -> int:
        """Number of the last event that this view knows of; 0 right after submission."""
        return int(self.raw.get("last_event") or 0)

    @property
    def model(self) -> str:
        """Id of the model."""
        return cast("str", self.raw.get("model", ""))

    @property
    def request(self) -> dict[str, Any]:
        """The request as accepted; empty right after submission."""
        return cast("dict[str, Any]", self.raw.get("request") or {})

    @property
    def result(self) -> list[Image]:
        """The images that are stored; empty until success, and once they are gone."""
        return images_of(self.raw)

    @property
    def partial_result(self) -> list[Image]:
        """The images that are there already, of a task that makes several and goes on."""
        return images_of(self.raw, "partial_result")

    @property
    def reference_changes(self) -> list[dict[str, Any]]:
        """Copies of references that were made to fit an upstream."""
        return cast("list[dict[str, Any]]", self.raw.get("reference_changes") or [])

    @property
    def error(self) -> TaskError | None:
        """Why it failed; None unless it did."""
        error = self.raw.get("error")
        return struct(error, TaskError) if error else None

    @property
    def billing(self) -> Billing | None:
        """What it costs; None right after submission."""
        billing = self.raw.get("billing")
        return struct(billing, Billing) if billing else None

    @property
    def metadata(self) -> dict[str, str]:
        """What the client gave along."""
        return cast("dict[str, str]", self.raw.get("metadata") or {})

    @property
    def created_at(self) -> int:
        """Unix seconds."""
        return int(self.raw.get("created_at") or 0)

    @property
    def completed_at(self) -> int | None:
        """Unix seconds; None until it is final."""
        return cast("int | None", self.raw.get("completed_at"))

    @property
    def expires_at(self) -> int | None:
        """When its images go, in Unix seconds; None: it has none, or they are kept."""
        return cast("int | None", self.raw.get("expires_at"))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.state} {self.progress} %>"


@dataclasses.dataclass(frozen=True)
class TaskEvent(Generic[T]):
    """A step of a task."""

    id: str
    """For ``last_event_id``."""
    task_id: str
    state: State
    progress: int
    at: int
    """Unix seconds."""
    task: T | None
    """The whole task, with its last event."""


def task_document(document: Any) -> dict[str, Any]:
    """A document that is a task, with an id that can stand in a path and name a file.

    Raises:
        APIError: it is none, an ``unexpected_response``.

    """
    if isinstance(document, dict):
        found = cast("dict[str, Any]", document)
        word = found.get("task_id")
        if isinstance(word, str) and _ID.fullmatch(word) and isinstance(found.get("state"), str):
            return found
    raise unexpected(_OK, "The server answered with something that is no task; check base_url")


def struct(document: Any, kind: type[S]) -> S:
    """A document as a struct; unknown fields are ignored.

    Raises:
        APIError: it has not this form, an ``unexpected_response``.

    """
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        message = f"The server's {kind.__name__} is not understood: {error}; check base_url"
        raise unexpected(_OK, message) from error


def settled(task: V, timeout: type[WaitTimeout]) -> V:
    """A task that succeeded.

    Args:
        task: whichever it is.
        timeout: is raised when it is not final.

    Raises:
        TaskFailed: it failed.

    """
    if task.state == "fail":
        raise TaskFailed(task)
    if not task.is_final:
        raise timeout(task)
    return task


def images_of(document: Mapping[str, Any], field: str = "result") -> list[Image]:
    """The images of a task's document that are still stored."""
    data: Any = (document.get(field) or {}).get("data") or []
    kept = [one for one in data if not is_expired(one)] if isinstance(data, list) else data
    return struct(kept, list[Image])


def is_expired(image: Any) -> bool:
    """Whether an image of a document is no longer stored."""
    return isinstance(image, dict) and image.get("expired") is True


def task_event(event: Received, task_of: Callable[[dict[str, Any]], T]) -> TaskEvent[T]:
    """An event of a stream.

    Raises:
        APIError: it is none of a task, an ``unexpected_response``.

    """
    data = task_document(event.data)
    state, task = cast("State", data["state"].lower()), data.get("task")
    return TaskEvent(
        event.id,
        data["task_id"],
        state,
        int(data.get("progress") or 0),
        int(data.get("at") or 0),
        None if task is None else task_of(task_document(task)),
    )


def models_of(document: Mapping[str, Any]) -> list[Model]:
    """The models of a list."""
    return struct(document.get("data"), list[Model])


def is_object(document: Any) -> Mapping[str, Any] | None:
    """A JSON object, or None."""
    return document if isinstance(document, dict) else None
