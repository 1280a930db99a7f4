"""The playground's form: made from a catalog entry, with what was said so far filled in.

What goes together is never decided here: ``validation.normalise`` is asked, as submission does.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from calotype.domain.catalog import Catalog, Model, Parameter, Value
from calotype.domain.errors import InvalidParameter
from calotype.domain.ids import decode, encode
from calotype.domain.options import MAX_PAIRS
from calotype.domain.task import Task
from calotype.domain.validation import normalise

CHIPS: Final = 8
"""Up to so many values are shown side by side."""
PICKED: Final = "picked:"
"""Before the id of an image of the account that is to be a reference, in the name of a field."""
_SOMETHING: Final = "-"
"""A prompt while there is none yet."""
_MOST_UPLOADS: Final = 99
_LONGEST_NUMBER: Final = 18
"""Digits; every such number fits into 64 bits."""
_LABELS: Final = {"channel_id": "Channel", "deadline_seconds": "Deadline", "n": "Pictures"}
"""What stands beside fields that are no model's own."""
OURS: Final = "ask:"
"""Before the names of fields that are the form's own and no part of a request."""


class Said(msgspec.Struct, frozen=True):
    """What somebody put into the form, field by field as text; what they left empty is not here."""

    fields: dict[str, str]

    @classmethod
    def of(cls, fields: Mapping[str, object]) -> "Said":
        """From a form or a query; line ends become those that were typed."""
        texts = {name: str(value).replace("\r\n", "\n") for name, value in fields.items()}
        return cls({name: text for name, text in texts.items() if text.strip()})

    @classmethod
    def of_task(cls, task: Task) -> "Said":
        """As it would have to be filled in for the same task."""
        asked = task.request
        fields = {name: spelled(value) for name, value in asked.parameters.items()}
        fields |= {"model": task.model, "prompt": asked.prompt, "n": str(asked.n)}
        if asked.channel_id is not None:
            fields["channel_id"] = str(asked.channel_id)
        if asked.deadline_seconds is not None:
            fields["deadline_seconds"] = str(asked.deadline_seconds)
        if task.metadata:
            fields["metadata"] = "\n".join(f"{key}={text}" for key, text in task.metadata.items())
        urls = [each.url for each in task.references if each.url is not None]
        if urls:
            fields[OURS + "urls"] = "\n".join(urls)
        for each in task.references:
            if each.url is None and each.asset_id is not None:
                fields[PICKED + encode("asset", each.asset_id)] = "1"
        return cls(fields)

    def get(self, name: str, default: str = "") -> str:
        """A field; the default where it is empty."""
        return self.fields.get(name, default)

    def having(self, **fields: str) -> "Said":
        """The same with these fields."""
        return Said(self.fields | fields)

    @property
    def changes_model(self) -> bool:
        """Whether the settings that were shown are those of another model."""
        return self.get(OURS + "was") not in {"", self.get("model")}

    @property
    def picked(self) -> list[int]:
        """The images of the account that are to be references, in order."""
        words = [name.removeprefix(PICKED) for name in self.fields if name.startswith(PICKED)]
        return [each for word in words if (each := decode("asset", word)) is not None]

    @property
    def pictures(self) -> int:
        """How many images of the account are named as references, found or not."""
        return sum(name.startswith(PICKED) for name in self.fields)

    @property
    def shown_price(self) -> int | None:
        """Micro-USDC that the form showed as the price; None where it showed none."""
        return whole(self.get(OURS + "price"))

    @property
    def urls(self) -> list[str]:
        """References by URL, in order."""
        return self.get(OURS + "urls").split()

    @property
    def uploads(self) -> int:
        """How many files the browser holds, as its script tells."""
        return min(whole(self.get(OURS + "uploads")) or 0, _MOST_UPLOADS)

    @property
    def request(self) -> dict[str, object]:
        """The request's fields as submission takes them, references apart.

        Raises:
            errors.InvalidParameter: the metadata is not in lines.

        """
        fields: dict[str, object] = {
            name: text
            for name, text in self.fields.items()
            if not name.startswith((PICKED, OURS)) and name != "csrf"
        }
        if "metadata" in fields:
            fields["metadata"] = metadata_of(self.fields["metadata"])
        return fields


class Choice(msgspec.Struct, frozen=True):
    """One value of a parameter."""

    value: str
    words: str
    off: bool = False
    """It does not go with what else is chosen."""


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter, as the form asks for it."""

    name: str
    label: str
    kind: Literal["chips", "select", "number", "text"]
    value: str
    hint: str
    error: str = ""
    choices: Sequence[Choice] = ()
    least: int | float | None = None
    most: int | float | None = None
    step: str = "1"
    max_length: int | None = None
    optional: bool = False


class Fitted(msgspec.Struct, frozen=True):
    """What was said, as far as it fits a model."""

    sent: dict[str, str]
    """Parameters that fit, as text."""
    parameters: dict[str, Value]
    """The same read, defaults filled in."""
    wrong: dict[str, str]
    """Parameters that do not fit and were left as they were typed: what is wrong with each."""
    notes: list[str]
    """What was put back to its default, and why."""


def fit(catalog: Catalog, model: Model, said: Said) -> Fitted:
    """Put what was said into a model's form.

    A choice that this model does not have, or not together with another, goes back to its
    default; what was typed stays, with what is wrong about it.
    """
    sent = {each.name: said.get(each.name) for each in model.parameters if said.get(each.name)}
    notes = _left_out(catalog, model, said)
    wrong: dict[str, str] = {}
    tried: set[str] = set()
    while True:
        try:
            normalised = normalise(catalog, _fields(model, sent), text=True)
        except InvalidParameter as error:
            parameter = next(each for each in model.parameters if each.name == error.param)
            name = parameter.name
            if name not in sent or name in tried:  # its default does not go with the others
                sent[name] = _first_that_fits(catalog, model, parameter, sent)
                continue
            tried.add(name)
            del sent[name]
            if parameter.enum or said.changes_model:
                notes.append(f"{label_of(name)} went back. {sentence(error.message, name)}")
            else:
                wrong[name] = sentence(error.message, name)
        else:
            return Fitted(sent, normalised.parameters, wrong, notes)


def form_fields(
    catalog: Catalog, model: Model, said: Said, fitted: Fitted, errors: Mapping[str, str]
) -> list[Field]:
    """The parameters of a model, as its form asks for them."""
    return [
        _field(
            catalog,
            model,
            each,
            said,
            fitted,
            error=errors.get(each.name) or fitted.wrong.get(each.name, ""),
        )
        for each in model.parameters
    ]


def metadata_of(text: str) -> dict[str, str]:
    """Metadata from lines of ``key = value``.

    Raises:
        errors.InvalidParameter: a line is none, a key comes twice, or there are too many.

    """
    pairs: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not key:
            raise InvalidParameter(
                f"Line {number} of the metadata is no key = value, such as order = 7391.",
                param="metadata",
            )
        if key in pairs:
            raise InvalidParameter(
                f"Line {number} of the metadata has the key of another line.", param="metadata"
            )
        if len(pairs) == MAX_PAIRS:
            raise InvalidParameter(
                f"Metadata may have at most {MAX_PAIRS} lines of key = value.", param="metadata"
            )
        pairs[key] = value
    return pairs


def whole(text: str) -> int | None:
    """A whole number, if a form has one there that is not too long to be meant."""
    good = len(text) <= _LONGEST_NUMBER and text.isascii() and text.isdecimal()
    return int(text) if good else None


def label_of(name: str) -> str:
    """A parameter's name for people: ``Aspect ratio``."""
    return _LABELS.get(name) or name.replace("_", " ").capitalize()


def sentence(message: str, param: str) -> str:
    """A message of the API about a field, with the field's name as the form spells it."""
    rest = message.removeprefix(f"{param} ")
    return message if rest == message else f"{label_of(param)} {rest}"


def spelled(value: Value) -> str:
    """A value as a form has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _fields(model: Model, sent: Mapping[str, str]) -> dict[str, object]:
    return {"model": model.id, "prompt": _SOMETHING, **sent}


def _left_out(catalog: Catalog, model: Model, said: Said) -> list[str]:
    """What was set for the model before that this one does not have."""
    before = catalog.models.get(said.get(OURS + "was"))
    if before is None or not said.changes_model:
        return []
    has = {each.name for each in model.parameters}
    gone = [
        label_of(each.name)
        for each in before.parameters
        if each.name not in has
        and said.get(each.name)
        and (each.default is None or said.get(each.name) != spelled(each.default))
    ]
    return [f"{model.name} has no {name.lower()}; it was left out." for name in gone]


def _first_that_fits(
    catalog: Catalog, model: Model, parameter: Parameter, sent: Mapping[str, str]
) -> str:
    values = [spelled(value) for value in parameter.enum]
    return next(each for each in values if not _is_off(catalog, model, parameter, sent, each))


def _is_off(
    catalog: Catalog, model: Model, parameter: Parameter, sent: Mapping[str, str], value: str
) -> bool:
    """Whether a value does not go with what else was sent."""
    try:
        normalise(catalog, _fields(model, {**sent, parameter.name: value}), text=True)
    except InvalidParameter as error:
        return error.param == parameter.name
    return False


def _field(
    catalog: Catalog, model: Model, parameter: Parameter, said: Said, fitted: Fitted, *, error: str
) -> Field:
    name, optional = parameter.name, parameter.default is None
    default = "" if parameter.default is None else spelled(parameter.default)
    value = said.get(name) if name in fitted.wrong else fitted.sent.get(name, default)
    values = parameter.enum or ((True, False) if parameter.type == "boolean" else ())
    choices = [
        Choice(each, _words(each, parameter), _is_off(catalog, model, parameter, fitted.sent, each))
        for each in map(spelled, values)
    ]
    if choices and optional:
        choices = [Choice("", "Not set"), *choices]
    kind: Literal["chips", "select", "number", "text"] = "text"
    if choices:
        kind = "chips" if len(choices) <= CHIPS else "select"
    elif parameter.type in {"integer", "number"}:
        kind = "number"
    return Field(
        name=name,
        label=label_of(name),
        kind=kind,
        value=value,
        hint=parameter.description,
        error=error,
        choices=choices,
        least=parameter.minimum,
        most=parameter.maximum,
        step="1" if parameter.type == "integer" else "any",
        max_length=parameter.max_length,
        optional=optional and not choices,
    )


def _words(value: str, parameter: Parameter) -> str:
    if parameter.type == "boolean":
        return "Yes" if value == "true" else "No"
    return value
