"""How an upstream takes a model: the form of ``catalog/upstreams/<provider>.toml``, key for key.

One table turns a normalised request into the fields that go out, and says whether it can: what a
channel cannot express is never dropped, the channel is no candidate for that request.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Protocol

import msgspec
from msgspec import Meta

from calotype.domain.catalog import (
    ASPECT_RATIO,
    AUTO,
    OUTPUT_FORMAT,
    RESOLUTION,
    Model,
    Value,
    pixel_size,
)
from calotype.domain.fitting import Limits

ANY_MODEL: Final = "*"
"""The entry of ``models`` for every model that has none of its own."""

CREATE: Final = frozenset(
    {"request", "policy", "key", "account", "model", "busy", "unknown", "failed"}
)
"""Verdicts on the answer to a send. All but ``unknown`` and ``failed`` say: nothing accepted."""
READ: Final = frozenset({"again", "failed", "policy", "cancelled", "lost"})
"""Verdicts on the answer about an accepted job; ``again`` asks on, ``lost`` is known no more."""
STATES: Final = frozenset({"queued", "running", "done", "failed", "policy", "cancelled"})
"""What the upstream's word for a job's state can mean."""

SHAPE: Final = frozenset({ASPECT_RATIO, RESOLUTION})
"""The parameters that ``Size`` says together."""

_Count = Annotated[int, Meta(ge=0)]


class Asked(Protocol):
    """As much of a request as decides how it goes out: ``task.Request``, or one just normalised."""

    @property
    def prompt(self) -> str:
        """What the image shows."""
        ...

    @property
    def n(self) -> int:
        """How many images."""
        ...

    @property
    def parameters(self) -> Mapping[str, Value]:
        """As ``validation.normalise`` returns them, defaults filled in."""
        ...


class Field(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one parameter is written.

    Args:
        field: its name upstream; dots lead into objects (``imageConfig.aspectRatio``).
        values: our value → theirs; values not named go out as they are. Values are written as
            TOML writes them: ``true``, ``7``, ``1K``.
        edit_values: the same when there are references; before ``omit`` and ``values``.
        omit: values that are said by leaving the field out.
        enum: the values that can be said; none named: all.

    """

    field: Annotated[str, Meta(min_length=1)]
    values: dict[str, Value] = {}
    edit_values: dict[str, Value] = {}
    omit: tuple[Value, ...] = ()
    enum: tuple[Value, ...] = ()

    def said(self, value: Value, *, editing: bool) -> Value | None:
        """What goes out for a value; None when the field is left out."""
        key = spelled(value)
        if editing and key in self.edit_values:
            return self.edit_values[key]
        if value in self.omit:
            return None
        return self.values.get(key, value)


class Size(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How ratio and resolution are written where the upstream takes pixels (the model's ``sizes``).

    Args:
        field: one field for both, written by ``form``.
        form: such as ``{width}x{height}``.
        width: or a field of its own for the width, an integer,
        height: and one for the height.
        auto: what ``field`` holds for the ratio ``auto``; empty leaves the size out; None sends
            the model's size nearest to the first reference. Only for models that draw ``auto``
            at one resolution, as the word says none; for others that nearest size is sent.

    """

    field: str = ""
    form: str = "{width}x{height}"
    width: str = ""
    height: str = ""
    auto: str | None = None


class Wire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one model is taken.

    Args:
        id: the upstream's id of the model; empty: the channel says it, which it must but for the
            entry ``*``, where the catalog's own id is the last resort.
        edit: its id when there are references, ``{id}`` standing for ``id``; empty is ``id``.
        parameters: the catalog's name of a parameter → how it is written.
        size: how ``aspect_ratio`` and ``resolution`` are written where they are no parameters.
        constants: fields that always go out, nested as they are; of one that a parameter writes
            too, this is the value while the parameter is not set.
        edit_constants: more of them when there are references.
        max_references: how many references can be given.
        reference_bytes: most bytes of one reference; 0 is no limit of its own.
        reference_types: content types that it takes.
        reference_pixels: most pixels of one reference; 0 is no limit of its own.
        formats: what may come back where ``output_format`` is no field; it is converted then.
        without: parameters of the model that this upstream does not have; a request that sets one
            goes elsewhere.
        prompt_length: most characters of a prompt; 0 is no limit of its own.
        max_images: most images of one send.

    """

    id: str = ""
    edit: str = ""
    parameters: dict[str, Field] = {}
    size: Size | None = None
    constants: dict[str, Any] = {}
    edit_constants: dict[str, Any] = {}
    max_references: _Count = 0
    reference_bytes: _Count = 0
    reference_types: tuple[str, ...] = ("image/jpeg", "image/png", "image/webp")
    reference_pixels: _Count = 0
    formats: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    prompt_length: _Count = 0
    max_images: Annotated[int, Meta(ge=1)] = 1

    def unable(self, request: Asked, *, references: int) -> str | None:
        """Why a request cannot be honoured in full, or None when it can."""
        if references > self.max_references:
            least = f"at most {self.max_references}" if self.max_references else "no"
            return f"it takes {least} reference images"
        if request.n > self.max_images:
            return f"it makes at most {self.max_images} images at a time"
        if self.prompt_length and len(request.prompt) > self.prompt_length:
            return f"it takes prompts of at most {self.prompt_length} characters"
        for name, value in request.parameters.items():
            if fault := self._unable_to_say(name, value):
                return fault
        return None

    @property
    def limits(self) -> Limits:
        """What it takes of one reference."""
        return Limits(
            types=self.reference_types,
            bytes=self.reference_bytes,
            pixels=self.reference_pixels,
        )

    def _unable_to_say(self, name: str, value: Value) -> str | None:
        written = self.parameters.get(name)
        if written is not None:
            if written.enum and value not in written.enum:
                return f"it cannot be asked for {name} {spelled(value)}"
            return None
        return None if self.covers(name) else f"it has no {name}"

    def covers(self, name: str) -> bool:
        """Whether a parameter is honoured without a field of its own."""
        if name in SHAPE:
            return self.size is not None
        return name == OUTPUT_FORMAT and bool(self.formats)

    def hopeless(self, model: Model) -> str | None:
        """A parameter that every request for a model sets, by its default, and that cannot go out.

        Where there is one, ``unable`` refuses every request.
        """
        for parameter in model.parameters:
            name = parameter.name
            if parameter.default is not None and not (name in self.parameters or self.covers(name)):
                return name
        return None

    def model_id(self, own: str, own_edit: str, *, references: int) -> str:
        """The upstream's id, the operator's ``own`` ones first."""
        plain = own or self.id
        if not references:
            return plain
        return (own_edit or self.edit or "{id}").replace("{id}", plain)

    def fields(
        self, model: Model, request: Asked, *, reference_sizes: Sequence[tuple[int, int]]
    ) -> dict[str, Any]:
        """The fields that go out, prompt, model id and references apart; a fresh document.

        Args:
            model: the catalog's entry.
            request: one that the channel is not ``unable`` to honour.
            reference_sizes: width and height in pixels of each reference, in their order.

        """
        editing = bool(reference_sizes)
        document: dict[str, Any] = copy.deepcopy(self.constants)
        if editing:
            _merge(document, copy.deepcopy(self.edit_constants))
        for name, value in request.parameters.items():
            written = self.parameters.get(name)
            said = None if written is None else written.said(value, editing=editing)
            if written is not None and said is not None:
                put(document, written.field, said)
        if self.size is not None:
            _put_size(document, self.size, model, request.parameters, reference_sizes)
        return document


class Upstream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider's file.

    Args:
        base_url: where the upstream usually is; empty: every channel says so itself.
        create: the answer to a send, ``status code`` → one of ``CREATE``; the most specific entry
            of ``"429 insufficient_quota"``, ``"429"``, ``"4xx"`` and ``"*"`` holds.
        read: the same, of ``READ``, for every later question about a job.
        states: the upstream's word for a job's state → one of ``STATES``.
        protocol: whatever else the provider's own file reads.
        models: catalog model → how it is taken; ``*`` is for every other one.

    """

    base_url: str = ""
    create: dict[str, str] = {}
    read: dict[str, str] = {}
    states: dict[str, str] = {}
    protocol: dict[str, Any] = {}
    models: dict[str, Wire] = {}

    def wire(self, model: str) -> Wire | None:
        """How a model is taken; None when it is not."""
        return self.models.get(model) or self.models.get(ANY_MODEL)


def spelled(value: Value) -> str:
    """A value as TOML writes it for a key: ``true``, ``7``, ``1.5``, ``1K``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def auto_resolutions(model: Model) -> tuple[Value, ...]:
    """The resolutions that a client can choose from with the ratio ``auto``; () for no choice."""
    for parameter in model.parameters:
        if parameter.name == RESOLUTION:
            return parameter.depends_on.get(ASPECT_RATIO, {}).get(AUTO, parameter.enum)
    return ()


def put(document: dict[str, Any], path: str, value: object) -> None:
    """Set a field of a nested document; dots lead into objects, made where there are none."""
    *parents, name = path.split(".")
    for parent in parents:
        document = document.setdefault(parent, {})
    document[name] = value


def _put_size(
    document: dict[str, Any],
    size: Size,
    model: Model,
    parameters: Mapping[str, Value],
    reference_sizes: Sequence[tuple[int, int]],
) -> None:
    chosen = parameters.get(ASPECT_RATIO)
    if chosen == AUTO and size.auto is not None and len(auto_resolutions(model)) <= 1:
        if size.auto and size.field:
            put(document, size.field, size.auto)
        return
    first = reference_sizes[0] if reference_sizes else None
    width, height = pixel_size(model, parameters, reference_size=first)
    if size.field:
        put(document, size.field, size.form.format(width=width, height=height))
    if size.width:
        put(document, size.width, width)
        put(document, size.height, height)


def _merge(document: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(document.get(name), dict):
            _merge(document[name], value)
        else:
            document[name] = value
