"""What the ``[[channels]]`` tables of ``calotype.toml`` say, judged by themselves.

Whether there is such a provider or model is for ``judging`` to see.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from calotype.domain.channel import Channel, base_url_fault
from calotype.domain.secret import Secret
from calotype.tables import explain, joined, unknown

RESERVED_IDS: Final = 9
_LARGEST_ID: Final = 2**53 - 1
"""What every reader of JSON takes as an integer."""
_SLUG: Final = re.compile(r"[a-z0-9-]{1,63}")
_SECRETS: Final = ("api_key", "callback_secret")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USUAL_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
"""What is surely the name of a variable, and no key pasted in its place: a message repeats it."""
_KEY_TEXT: Final = re.compile(r"[ -~]+")
"""What a header can hold."""
_ID_TEXT: Final = re.compile(r"\S(.*\S)?")


class ChannelFault(Exception):
    """What is wrong with a channel: the key in its table, and a sentence with the cure.

    Args:
        key: empty where it is the whole table.
        fault: what is wrong, and what would be right.

    """

    def __init__(self, key: str, fault: str) -> None:
        super().__init__(f".{key}: {fault}" if key else f": {fault}")


class Sources(NamedTuple):
    """Where secrets come from that a table only names."""

    variable: Callable[[str], str | None]
    """The value of an environment variable; None when it is not set."""
    text: Callable[[str], str]
    """What stands in a file; ``ValueError`` says why it cannot be read, and not what it is."""


def keys() -> list[str]:
    """The keys that a table may have."""
    names = (field.name for field in msgspec.structs.fields(Channel))
    return [
        key
        for name in names
        for key in ((f"{name}_env", f"{name}_file") if name in _SECRETS else (name,))
    ]


def variables(tables: Any) -> Iterator[str]:
    """The environment variables that tables name, whatever else they hold."""
    for table in tables if isinstance(tables, list) else ():
        for name in _SECRETS:
            named = table.get(f"{name}_env") if isinstance(table, dict) else None
            if isinstance(named, str):
                yield named


def read_channel(table: Any, sources: Sources) -> Channel:
    """The channel of one table.

    Raises:
        ChannelFault: something is unknown, malformed, out of bounds or cannot be read.

    """
    if not isinstance(table, dict):
        raise ChannelFault("", "write each channel as a [[channels]] table.")
    raw = dict(table)
    for key in raw:
        if key in _SECRETS:
            raise ChannelFault(
                key,
                "a secret has no place in this file; "
                f"name a variable as {key}_env, or a file as {key}_file.",
            )
        if key not in keys():
            raise ChannelFault(key, f"{unknown(key, keys())}.")
    secrets = {name: _secret(raw, name, sources) for name in _SECRETS}
    if "models" in raw:
        raw["models"] = _models(raw["models"])
    try:
        channel = msgspec.convert(raw, Channel)
    except msgspec.ValidationError as error:
        key, _, fault = explain(raw, error, Channel).partition(": ")
        raise ChannelFault(key, f"{fault}.") from None
    _check(channel)
    return msgspec.structs.replace(channel, **secrets)


def check_together(channels: Sequence[Channel]) -> None:
    """What the channels of one file must not share.

    Raises:
        ChannelFault: two have the same id or slug; its key is that of the table.

    """
    for name in ("id", "slug"):
        seen = [getattr(channel, name) for channel in channels]
        for one in seen:
            if seen.count(one) > 1:
                raise ChannelFault("", f"{name} {one!r} is used twice; give each channel its own.")


def _secret(raw: dict[str, Any], name: str, sources: Sources) -> Secret | None:
    """What a variable or a file holds that is named for a secret, taken out of the table."""
    variable, file = raw.pop(f"{name}_env", None), raw.pop(f"{name}_file", None)
    if variable is not None and file is not None:
        raise ChannelFault(f"{name}_env", f"{name}_file is there too; take one of the two out.")
    if variable is not None:
        key, value = f"{name}_env", _variable(f"{name}_env", variable, sources)
    elif file is not None:
        key, value = f"{name}_file", _content(f"{name}_file", file, sources)
    else:
        return None
    if not value:
        raise ChannelFault(key, "it is empty; put the secret in, or take this line out.")
    if value != value.strip():
        raise ChannelFault(key, "there is white space around the secret; take it away.")
    if not _KEY_TEXT.fullmatch(value):
        raise ChannelFault(
            key, "the secret holds a line end or a letter that no secret has; copy it anew."
        )
    return Secret(value)


def _variable(key: str, name: Any, sources: Sources) -> str:
    if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
        raise ChannelFault(
            key, "this is no name of a variable; write its name here, and the secret into it."
        )
    value = sources.variable(name)
    if value is None:
        shown = name if _USUAL_VARIABLE.fullmatch(name) else "named here"
        raise ChannelFault(key, f"the variable {shown} is not set; set it where Calotype starts.")
    return value


def _content(key: str, name: Any, sources: Sources) -> str:
    if not isinstance(name, str) or not name or "\0" in name:
        raise ChannelFault(key, "this is no path of a file; write where the file is.")
    try:
        return sources.text(name)
    except ValueError as error:
        raise ChannelFault(key, f"{error}.") from None


def _models(models: Any) -> Any:
    """The three ways of writing ``models``, as the one that ``Channel`` has."""
    if isinstance(models, list):
        for place, name in enumerate(models):
            if not isinstance(name, str):
                raise ChannelFault(f"models[{place}]", "this is no id of a model; write one.")
        models = dict.fromkeys(models, "")
    if not isinstance(models, dict):
        raise ChannelFault(
            "models", 'write a list of models, ["a"], or a table, { a = "the upstream\'s id" }.'
        )
    if not models:
        raise ChannelFault("models", "is empty; name a model, or take the line out.")
    read = {}
    for name, said in models.items():
        key = joined("models", name)
        served = {"id": said} if isinstance(said, str) else said
        if not isinstance(served, dict):
            raise ChannelFault(
                key, "write the upstream's id, or a table { id, edit, price, cost }."
            )
        _check_money(key, served)
        read[name] = served
    return read


def _check_money(key: str, served: Mapping[str, Any]) -> None:
    """Tell who wrote 0.05 for five cents what unit it is."""
    for name in ("price", "cost"):
        said = served.get(name)
        tiers = said if isinstance(said, dict) else {"": said}
        for tier, amount in tiers.items():
            if isinstance(amount, float) and abs(amount) < 1e6:  # noqa: PLR2004 -- a million USDC
                where = joined(joined(key, name), tier) if tier else joined(key, name)
                raise ChannelFault(
                    where,
                    "money is counted in millionths of a USDC, in whole numbers; "
                    f"{amount:g} USDC is {round(amount * 1e6)}.",
                )


def _check(channel: Channel) -> None:
    """What no type can say."""
    if not RESERVED_IDS < channel.id <= _LARGEST_ID:
        raise ChannelFault(
            "id",
            f"1 to {RESERVED_IDS} are the built-in channels'; take {RESERVED_IDS + 1} or more.",
        )
    if not _SLUG.fullmatch(channel.slug):
        raise ChannelFault(
            "slug", "a slug has lower-case letters, digits and hyphens; write one like openai-main."
        )
    if not channel.name.strip():
        raise ChannelFault("name", "is empty; write what people call the channel.")
    if channel.base_url and (fault := base_url_fault(channel.base_url)):
        raise ChannelFault("base_url", f"{fault}.")
    for name, served in (channel.models or {}).items():
        for said in (served.id, served.edit):
            if said and not (_ID_TEXT.fullmatch(said) and said.isprintable()):
                raise ChannelFault(
                    joined("models", name), "this is no id; take the white space around it away."
                )
