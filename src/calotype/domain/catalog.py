"""What a model takes, costs and draws: the one source for discovery, validation and pricing.

The structs are the form of ``catalog/<model>.toml``, key for key. Whoever builds them
(``calotype.catalog.load_catalog``) has proved what the types cannot say: defaults lie within
their enums, every combination of values has one price and one size.
"""

import math
from collections.abc import Collection, Mapping
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta

from calotype.domain.errors import UnknownModel

if TYPE_CHECKING:  # it is written in the terms of this module
    from calotype.domain.wire import Upstream

Value = str | int | float | bool
"""What a parameter can hold."""

ParameterType = Literal["string", "integer", "number", "boolean"]
PricingMode = Literal["fixed", "resolution", "parameter"]
OutputFormat = Literal["png", "jpg", "webp"]

AUTO: Final = "auto"
"""The aspect ratio that leaves the choice to the references or the model."""

ASPECT_RATIO: Final = "aspect_ratio"
RESOLUTION: Final = "resolution"
OUTPUT_FORMAT: Final = "output_format"

NO_CHOICE: Final = "default"
"""The key of ``sizes`` for a model without the parameter."""

OPTION_FIELDS: Final = ("callback_url", "metadata", "deadline_seconds")
"""Those of ``COMMON_FIELDS`` that ask nothing of the model; ``options`` reads them."""

COMMON_FIELDS: Final = (
    *("model", "prompt", "n", "response_format", "channel_id", "async"),
    *OPTION_FIELDS,
)
"""The fields that a request has for every model, references apart."""

RESERVED: Final = frozenset({*COMMON_FIELDS, "image", "image_input"})
"""Names that no parameter may have: they mean the same for every model."""

_QUOTED: Final = 60
"""Characters of a client's text that a message repeats."""
_QUOTED_BITS: Final = 128
"""Beyond it Python takes quadratic time to write an integer out, or refuses."""

MAX_DAYS: Final = 36_500
"""A hundred years."""
RESULT_DAYS: Final = 30
REFERENCE_DAYS: Final = 2

Days = Annotated[int, Meta(ge=0, le=MAX_DAYS)]
"""How long images are kept; 0: until they are deleted."""
_Positive = Annotated[int, Meta(ge=1)]
_Moment = Annotated[datetime, Meta(tz=True)]
_Text = Annotated[str, Meta(min_length=1)]


class PromptLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long a prompt may be, in characters."""

    max_length: _Positive


class CountLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many images one task may ask for."""

    maximum: _Positive = 1


class Cancellation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What it costs to cancel a task too late: when the upstream finished it all the same."""

    percent: Annotated[int, Meta(ge=0, le=100)] = 100
    """Of the price of the images that the upstream says it made."""


class Retention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many days images are kept; None: as the settings say; 0: until they are deleted."""

    result_days: Days | None = None
    """From the end of their task."""
    reference_days: Days | None = None
    """From when their task is over at the latest."""


class Parameter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """One field of a request that this model declares.

    An ``enum``, or else bounds, say which values there are; without a ``default`` the field is
    left out of the normalised request when the client leaves it out.
    """

    name: str
    type: ParameterType
    description: _Text
    enum: tuple[Value, ...] = ()
    minimum: int | float | None = None
    maximum: int | float | None = None
    max_length: _Positive | None = None
    """Characters of a string that has no ``enum``."""
    default: Value | None = None
    depends_on: dict[str, dict[str, tuple[Value, ...]]] = {}
    """Another parameter → its value → what of this one goes with it; values not listed: all."""

    @cached_property
    def choices(self) -> frozenset[Value]:
        """The ``enum``, to look values up in."""
        return frozenset(self.enum)


class References(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reference images that a model takes."""

    max_items: Annotated[int, Meta(ge=0)] = 0
    max_bytes: _Positive = 31_457_280
    """Of one file."""
    content_types: tuple[_Text, ...] = ("image/jpeg", "image/png", "image/webp")


class Tier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One price, and the parameter values for which it holds (none named: for all)."""

    id: _Text
    label: _Text
    unit: Literal["image"] = "image"
    price_micro_usdc: Annotated[int, Meta(ge=0, le=10**12)]
    when: dict[str, tuple[Value, ...]] = {}

    def holds(self, parameters: Mapping[str, Value]) -> bool:
        """Whether this is the price for these values."""
        for name, values in self.when.items():  # noqa: SIM110 -- all() takes twice the time
            if parameters.get(name) not in values:
                return False
        return True


class Pricing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an image costs; for each combination of values exactly one tier holds."""

    mode: PricingMode
    tiers: Annotated[tuple[Tier, ...], Meta(min_length=1)]


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """One entry of the catalog."""

    id: _Text
    name: _Text
    description: _Text
    brand: _Text
    upstream_id: _Text
    released_at: _Moment | None = None
    created_at: _Moment
    updated_at: _Moment
    enabled: bool = True
    needs_channel: bool = False
    """Offered only where a configured channel names it; the sandbox does not take its place."""
    eta_seconds: _Positive
    """How long an image usually takes."""
    deadline_seconds: _Positive = 600
    """After this nothing new is sent to an upstream."""
    grace_seconds: Annotated[int, Meta(ge=0)] = 3600
    """How much longer a job that an upstream has accepted is waited for."""
    output_format: OutputFormat = "png"
    """What comes where ``output_format`` is no parameter."""
    auto_ratio: str = "1:1"
    """What the aspect ratio ``auto`` means without a reference."""
    prompt: PromptLimit
    n: CountLimit = CountLimit()
    parameters: tuple[Parameter, ...] = ()
    references: References = References()
    pricing: Pricing
    cancellation: Cancellation = Cancellation()
    retention: Retention = Retention()
    sizes: dict[str, dict[str, tuple[int, int]]]
    """Aspect ratio → resolution → width and height in pixels."""

    @cached_property
    def fields(self) -> frozenset[str]:
        """Every field that a request for this model may have, references apart."""
        return frozenset(COMMON_FIELDS).union(parameter.name for parameter in self.parameters)


class Catalog(msgspec.Struct, frozen=True):
    """Every model by its id, and the mark (SVG) of every brand among them.

    ``upstreams`` says by the provider's name how each upstream takes the models; ``files`` names
    by its id the operator's file of each model that is not the shipped one. ``unoffered`` are the
    models that need a channel and have none.
    """

    models: Mapping[str, Model]
    marks: Mapping[str, bytes]
    upstreams: Mapping[str, "Upstream"] = MappingProxyType({})
    files: Mapping[str, str] = MappingProxyType({})
    unoffered: frozenset[str] = frozenset()
    result_days: int = RESULT_DAYS
    """How long results are kept of models that say nothing; 0: until they are deleted."""
    reference_days: int = REFERENCE_DAYS
    """The same of reference images."""

    def offered(self, named: Collection[str]) -> "Catalog":
        """The catalog without the models that need a channel, but for those ``named`` by one."""
        left_out = {
            model.id
            for model in self.models.values()
            if model.needs_channel and model.id not in named
        }
        models = {id_: each for id_, each in self.models.items() if id_ not in left_out}
        return msgspec.structs.replace(self, models=models, unoffered=frozenset(left_out))

    def result_days_of(self, model_id: str) -> int:
        """How many days results of a model are kept, where their account says nothing."""
        model = self.models.get(model_id)
        days = None if model is None else model.retention.result_days
        return self.result_days if days is None else days

    def reference_days_of(self, model_id: str) -> int:
        """The same of the reference images of its tasks."""
        model = self.models.get(model_id)
        days = None if model is None else model.retention.reference_days
        return self.reference_days if days is None else days

    def get(self, model_id: str) -> Model:
        """The model of this id, whether enabled or not.

        Raises:
            errors.UnknownModel: there is none; the message lists those there are.

        """
        model = self.models.get(model_id)
        if model is None:
            raise self.unknown(model_id)
        return model

    def unknown(self, model_id: str) -> UnknownModel:
        """The error for an id that cannot be used, listing those that can."""
        known = ", ".join(each.id for each in self.models.values() if each.enabled)
        return UnknownModel(
            f"There is no model {quoted(model_id)}; the models are {known or 'none yet'}.",
            param="model",
        )


def quoted(value: object) -> str:
    """A value as a message may repeat it: short, printable, whatever it was."""
    if isinstance(value, str):
        return repr(value if len(value) <= _QUOTED else f"{value[:_QUOTED]}…")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        short = isinstance(value, float) or value.bit_length() <= _QUOTED_BITS
        return str(value) if short else "a number of very many digits"
    if value is None:
        return "null"
    kinds = ((list | tuple, "a list"), (Mapping, "an object"))
    return next((word for kind, word in kinds if isinstance(value, kind)), "a value of that type")


def pixel_size(
    model: Model, parameters: Mapping[str, Value], *, reference_size: tuple[int, int] | None
) -> tuple[int, int]:
    """Width and height in pixels of what a normalised request asks for.

    The ratio ``auto`` is the one that the model has at this resolution nearest to the first
    reference (``reference_size``, in pixels), without a reference the model's ``auto_ratio``.
    """
    ratio = str(parameters.get(ASPECT_RATIO, NO_CHOICE))
    resolution = str(parameters.get(RESOLUTION, NO_CHOICE))
    if ratio != AUTO:
        return model.sizes[ratio][resolution]
    if reference_size is None or min(reference_size) < 1:
        return model.sizes[model.auto_ratio][resolution]
    wanted = math.log(reference_size[0] / reference_size[1])
    candidates = (row[resolution] for row in model.sizes.values() if resolution in row)
    return min(candidates, key=lambda size: abs(math.log(size[0] / size[1]) - wanted))
