"""The keys of an account as pages show, make and revoke them."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from calotype.console.access import Visitor
from calotype.console.context import Console
from calotype.console.errors import PageError
from calotype.console.forms import Form, sentence
from calotype.console.query import Notices
from calotype.console.resubmission import is_first
from calotype.domain.errors import InvalidParameter
from calotype.domain.ids import decode, encode
from calotype.domain.keys import ApiKey, name_of
from calotype.domain.limits import Meter
from calotype.domain.money import parse_usd

LIFETIMES: Final = (
    ("", "Never"),
    ("1", "After a day"),
    ("7", "After 7 days"),
    ("30", "After 30 days"),
    ("90", "After 90 days"),
    ("365", "After a year"),
)
"""Days after which a key expires, and in words."""
MAX_ENDED: Final = 50
"""Keys that are over and still shown, the newest ones."""
_SENT_BEFORE: Final = (
    "This form was sent before, and the key that it made was shown then, and only then. If nobody "
    "kept it, revoke it and make another one."
)
NOTICES: Final[Notices] = {
    "made": ("warn", _SENT_BEFORE),
    "revoked": ("good", "The key is revoked: it opens nothing any more."),
}
_DAY_SECONDS: Final = 86_400
_LABELS: Final = {
    "day_limit": "The limit per day",
    "month_limit": "the limit per month",
    "per_minute": "Tasks per minute",
    "max_tasks": "Unfinished tasks",
}
"""What people see of the arguments of ``create_key``."""


class KeyLine(msgspec.Struct, frozen=True):
    """A key in the list."""

    key: ApiKey
    state: str
    """``active``, ``expired`` or ``revoked``."""
    channels: tuple[str, ...]
    """The slugs of those that it is limited to."""
    day_spent: int
    month_spent: int
    unfinished: int


class Keys(msgspec.Struct, frozen=True):
    """The keys of an account, newest first."""

    able: Sequence[KeyLine]
    ended: Sequence[KeyLine]
    """Those expired or revoked."""
    more_ended: int
    """How many of those are not shown."""


class KeyForm(msgspec.Struct, frozen=True):
    """What was typed into the form of a new key, and what is wrong with it, by field."""

    name: str = ""
    models: Sequence[str] = ()
    channels: Sequence[str] = ()
    day_limit: str = ""
    month_limit: str = ""
    per_minute: str = ""
    max_tasks: str = ""
    expires: str = ""
    wrong: Mapping[str, str] = MappingProxyType({})

    @classmethod
    def of(cls, form: Form) -> "KeyForm":
        """What was sent."""
        return cls(
            name=form.get("name"),
            models=form.all("models"),
            channels=form.all("channels"),
            day_limit=form.get("day_limit"),
            month_limit=form.get("month_limit"),
            per_minute=form.get("per_minute"),
            max_tasks=form.get("max_tasks"),
            expires=form.get("expires"),
        )


class Wanted(msgspec.Struct, frozen=True):
    """A form that can be read, as ``Accounts.create_key`` takes it."""

    name: str
    models: Sequence[str] | None
    channels: Sequence[int] | None
    day_limit: int | None
    month_limit: int | None
    per_minute: int | None
    max_tasks: int | None
    expires_in_seconds: int | None


class Keyring:
    """Shows, makes and revokes keys, for their account or for the operator."""

    def __init__(self, console: Console) -> None:
        self._console = console

    async def keys(self, account_id: int) -> Keys:
        """The keys of an account."""
        store, now = self._console.store, self._console.clock()
        meters = {meter.key_id: meter.at(now) for meter in await store.usage.meters(account_id)}
        found = [
            self._line(key, meters.get(key.id), now)
            for key in await store.keys(account_id=account_id)
        ]
        ended = [line for line in found if line.state != "active"]
        return Keys(
            [line for line in found if line.state == "active"],
            ended[:MAX_ENDED],
            max(0, len(ended) - MAX_ENDED),
        )

    def _line(self, key: ApiKey, meter: Meter | None, now: int) -> KeyLine:
        state = "active" if key.expires_at is None or key.expires_at > now else "expired"
        router = self._console.router
        known = [(number, router.get(number)) for number in key.channels or ()]
        return KeyLine(
            key,
            state if key.revoked_at is None else "revoked",
            tuple(channel.slug if channel else f"channel {number}" for number, channel in known),
            meter.day_spent if meter else 0,
            meter.month_spent if meter else 0,
            meter.unfinished if meter else 0,
        )

    def choices(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """What the form of a new key lets choose from: values with their words."""
        models = [each for each in self._console.catalog.models.values() if each.enabled]
        return {
            "models": [(model.id, model.name) for model in models],
            "channels": [(str(each.id), each.slug) for each in self._console.router.channels],
            "lifetimes": LIFETIMES,
        }

    async def create(self, visitor: Visitor, account: str) -> tuple[str, ApiKey] | KeyForm | None:
        """What comes of the form of a new key: the key and what stands for it in the list.

        Or the form with what is wrong with it; or None where it was sent before.
        """
        form = KeyForm.of(visitor.form)
        wanted = _wanted_of(form)
        if isinstance(wanted, KeyForm):
            return wanted
        if not await is_first(self._console, visitor):
            return None
        audit, accounts = self._console.audit, self._console.accounts
        try:
            async with audit.action(
                visitor.actor, "key.create", f"account {account}", f"key '{wanted.name}'"
            ) as noting:
                arguments = msgspec.structs.asdict(wanted)
                secret, key = await accounts.create_key(
                    arguments.pop("name"), account=account, **arguments
                )
                noting.detail += f", {encode('key', key.id)}"
        except InvalidParameter as error:
            return msgspec.structs.replace(form, wrong={error.param or "name": _said(error)})
        return secret, key

    async def revoke(self, visitor: Visitor, word: str, *, account_id: int) -> None:
        """Revoke a key of an account for good.

        Raises:
            PageError: the account has none of this id.

        """
        number = decode("key", word)
        key = None if number is None else await self._console.store.key(number)
        if key is None or key.account_id != account_id:
            raise PageError(404, "There is no such key, or it belongs to someone else.")
        described = f"{word} '{key.name}' of account '{key.account}'"
        async with self._console.audit.action(
            visitor.actor, "key.revoke", word, described
        ) as noting:
            if not await self._console.accounts.revoke(key):
                noting.detail += ", which was revoked already"


def _wanted_of(form: KeyForm) -> Wanted | KeyForm:
    """What a form asks for; the form with what is wrong where it cannot be read."""
    wrong: dict[str, str] = {}
    try:
        name = name_of(form.name)
    except ValueError as error:
        name, wrong["name"] = "", sentence(str(error))
    limits = {
        field: _amount(field, getattr(form, field), wrong) for field in ("day_limit", "month_limit")
    }
    per_minute = _number("per_minute", form.per_minute, wrong, "a whole number such as 60")
    max_tasks = _number("max_tasks", form.max_tasks, wrong, "a whole number such as 20")
    channels = [_number("channels", each, wrong, "one of the list") for each in form.channels]
    if form.expires not in dict(LIFETIMES):
        wrong["expires"] = "Choose one of the list."
    if wrong:
        return msgspec.structs.replace(form, wrong=wrong)
    return Wanted(
        name=name,
        models=form.models or None,
        channels=[each for each in channels if each is not None] or None,
        per_minute=per_minute,
        max_tasks=max_tasks,
        expires_in_seconds=int(form.expires) * _DAY_SECONDS if form.expires else None,
        **limits,
    )


def _amount(field: str, text: str, wrong: dict[str, str]) -> int | None:
    """Micro-USDC; None where nothing was typed, or it is noted as wrong."""
    if not text:
        return None
    try:
        return parse_usd(text)
    except ValueError as error:
        wrong[field] = sentence(str(error))
        return None


def _number(field: str, text: str, wrong: dict[str, str], right: str) -> int | None:
    if text.isascii() and text.isdecimal() and len(text) <= len(str(2**62)):
        return int(text)
    if text:
        wrong[field] = f"Write {right}."
    return None


def _said(error: InvalidParameter) -> str:
    """The same in the words of the form."""
    words = error.message
    for name, label in _LABELS.items():
        words = words.replace(name, label)
    return sentence(words)
