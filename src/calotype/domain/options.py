"""What a client may ask of a task beyond its image: where to be told, words of its own, a limit.

The same for every model, so the catalog says nothing of it.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from calotype.domain.catalog import quoted
from calotype.domain.errors import InvalidParameter
from calotype.domain.validation import integer_of, storable, unstorable

MAX_PAIRS: Final = 16
MAX_KEY: Final = 64
"""Characters of a key of metadata."""
MAX_VALUE: Final = 512
"""Characters of a value of metadata. With its key it stays below what databases can index."""
MAX_DEADLINE_SECONDS: Final = 86_400

_decode = msgspec.json.Decoder().decode


class Options(msgspec.Struct, frozen=True):
    """What was asked for, judged."""

    callback_url: str | None = None
    """Where the client is told of the end."""
    metadata: dict[str, str] = {}
    """The client's own words about the task."""
    deadline_seconds: int | None = None
    """How long after it was accepted the task may still be sent to an upstream."""


NO_OPTIONS: Final = Options()
"""Of a request that has none of ``catalog.OPTION_FIELDS``."""


def read_options(
    fields: Mapping[str, object], *, text: bool, judge_url: Callable[[object], str]
) -> Options:
    """The options that these fields make; ``None`` (JSON null) counts as absent.

    Args:
        fields: the JSON object or the form's text fields; others than the options' are left alone.
        text: True for a form, where the deadline and the metadata come as text.
        judge_url: returns the callback's URL or raises ``errors.InvalidParameter``.

    Raises:
        errors.InvalidParameter: a value that cannot be.

    """
    callback_url = fields.get("callback_url")
    metadata = fields.get("metadata")
    deadline = fields.get("deadline_seconds")
    if text and isinstance(metadata, str):
        metadata = parsed_metadata(metadata)
    return Options(
        callback_url=None if callback_url is None else judge_url(callback_url),
        metadata={} if metadata is None else check_metadata(metadata),
        deadline_seconds=None
        if deadline is None
        else integer_of(deadline, "deadline_seconds", maximum=MAX_DEADLINE_SECONDS, text=text),
    )


def check_metadata(metadata: object, *, param: str = "metadata") -> dict[str, str]:
    """The metadata, where a task can have it or be looked for by it.

    Raises:
        errors.InvalidParameter: no object of strings, too much of it, or text that no database
            takes.

    """
    if not isinstance(metadata, dict):
        raise InvalidParameter(
            'metadata must be an object of strings, such as {"order": "7391"}, not '
            f"{quoted(metadata)}.",
            param=param,
        )
    if len(metadata) > MAX_PAIRS:
        raise InvalidParameter(
            f"metadata may have at most {MAX_PAIRS} pairs; this has {len(metadata)}.", param=param
        )
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise InvalidParameter(
                f"metadata may hold strings only; {quoted(key)} is {quoted(value)}.", param=param
            )
        if not 1 <= len(key) <= MAX_KEY:
            raise InvalidParameter(
                f"A key of metadata must have 1 to {MAX_KEY} characters; {quoted(key)} has "
                f"{len(key)}.",
                param=param,
            )
        if len(value) > MAX_VALUE:
            raise InvalidParameter(
                f"A value of metadata may have at most {MAX_VALUE} characters; that of "
                f"{quoted(key)} has {len(value)}.",
                param=param,
            )
        if not storable(key) or not storable(value):
            raise unstorable(param)
    return metadata


def parsed_metadata(metadata: str) -> object:
    """What a form's text says.

    Raises:
        errors.InvalidParameter: it is no JSON.

    """
    try:
        return _decode(metadata)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise InvalidParameter(
            'In a form, metadata must be a JSON object as text, such as {"order": "7391"}.',
            param="metadata",
        ) from None
