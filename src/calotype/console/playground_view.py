"""What the playground shows: the form, its price, the money there is, the request as code."""

import secrets
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec
from starlette.requests import Request

from calotype.console.access import Visitor
from calotype.console.code_samples import Wanted, samples
from calotype.console.context import Console
from calotype.console.live import server_url
from calotype.console.playground_form import (
    OURS,
    PICKED,
    Field,
    Fitted,
    Said,
    fit,
    form_fields,
    metadata_of,
    sentence,
    whole,
)
from calotype.console.task_lines import image_path
from calotype.domain.catalog import Model
from calotype.domain.channel import Channel, Served
from calotype.domain.errors import (
    BillingError,
    CalotypeError,
    RateLimitReached,
    ServerFault,
    UnknownModel,
)
from calotype.domain.ids import encode
from calotype.domain.keys import ApiKey
from calotype.domain.money import format_usd
from calotype.domain.options import check_metadata
from calotype.domain.pricing import price
from calotype.domain.task import Asset, Reference
from calotype.domain.validation import check_reference_count
from calotype.imaging.foreign import converted_types
from calotype.services.assets import Kept
from calotype.services.incoming import EXTENSIONS
from calotype.services.scopes import check_model

TOKEN_LENGTH: Final = 22
_TOKEN_BYTES: Final = 16
_REFERENCES: Final = "references"
_PROMPTLESS: Final = "-"
_NAMES: Final[Mapping[str, str]] = {"image": _REFERENCES, "image_input": _REFERENCES}
"""What the API calls a field → what stands beside it here."""
_EVERYWHERE: Final = ("model", "prompt", "n", "channel_id", "metadata", "deadline_seconds")


class Card(msgspec.Struct, frozen=True):
    """A model to choose."""

    id: str
    name: str
    brand: str
    description: str
    least: int
    """What an image costs at least."""


class Picked(msgspec.Struct, frozen=True):
    """An image of the account that is to be a reference."""

    field: str
    path: str
    file: str
    """What it is called where it was downloaded."""


class Problem(msgspec.Struct, frozen=True):
    """Why something is refused: in the API's words, and beside which field."""

    message: str
    field: str = ""
    status: int = 422
    """Of HTTP: the API's own where nothing in the form is wrong."""
    retry_after: int | None = None
    """Seconds after which trying again makes sense."""

    @classmethod
    def of(cls, error: CalotypeError) -> "Problem":
        """The problem that an error of the API tells of."""
        param = error.param or ""
        field = _NAMES.get(param, param)
        message = sentence(error.message, param)
        return cls(message, field, _status(error), error.retry_after)


class Studio(msgspec.Struct, frozen=True, kw_only=True):
    """All of the form."""

    said: Said
    model: Model
    brands: Sequence[tuple[str, Sequence[Card]]]
    fields: Sequence[Field]
    notes: Sequence[str]
    errors: Mapping[str, str]
    """What is wrong, by field."""
    refused: str
    """Why the last request was not accepted; empty when it was not sent."""
    token: str
    """Under which it is bought once."""
    picked: Sequence[Picked]
    channels: Sequence[Channel]
    price: int | None
    """Micro-USDC that would be reserved; None when the request cannot be sent as it is."""
    trouble: str
    """Why there is no price."""
    available: int
    left: int | None
    """Micro-USDC that the key may still spend; None: no limit but the account's."""
    codes: Sequence[tuple[str, str]]

    @property
    def count(self) -> int:
        """How many images are asked for."""
        return whole(self.said.get("n")) or 1

    @property
    def converted(self) -> tuple[str, ...]:
        """The content types of references that are taken and converted."""
        return converted_types()

    @property
    def card(self) -> Card:
        """The chosen model's."""
        return next(each for _, cards in self.brands for each in cards if each.id == self.model.id)

    @property
    def warning(self) -> str:
        """Why the money will not do."""
        if self.price is None:
            return ""
        if self.price > self.available:
            return f"Your account has {format_usd(self.available)} USDC left: not enough for this."
        if self.left is not None and self.price > self.left:
            return f"This key may spend {format_usd(self.left)} USDC more: not enough for this."
        return ""


class Studios:
    """Makes them."""

    def __init__(self, console: Console) -> None:
        self._console = console

    async def of(
        self, request: Request, visitor: Visitor, said: Said, *, problem: Problem | None = None
    ) -> Studio:
        """The form with what was said in it; ``problem`` is why a request was refused."""
        key = visitor.key
        model, unknown = self._model(key, said)
        channels = self._channels(key, model)
        said, notes = _tidied(said, model, channels)
        fitted = fit(self._console.catalog, model, said)
        said = said.having(model=model.id)
        uploads = await self.own(visitor, said.picked)
        if problem is None and (gone := said.pictures - len(uploads)):
            notes.append(told_gone(gone))
        amount, trouble = await self._quote(key, said, fitted, uploads)
        errors = _errors(model, [problem, trouble, unknown])
        return Studio(
            said=said,
            model=model,
            brands=self._brands(key, model),
            fields=form_fields(self._console.catalog, model, said, fitted, errors),
            notes=[*notes, *fitted.notes],
            errors=errors,
            refused="" if problem is None else problem.message,
            token=_token(said),
            picked=[self._picked(asset) for asset in uploads],
            channels=channels,
            price=amount,
            trouble="" if trouble is None or trouble.field in errors else trouble.message,
            available=(await self._console.store.balance(key.account_id)).available,
            left=await self._left(key),
            codes=samples(self._wanted(request, said, fitted, uploads)),
        )

    def may_use(self, visitor: Visitor, model: str) -> bool:
        """Whether there is such a model for this key."""
        return any(each.id == model for each in self._offered(visitor.key))

    async def own(self, visitor: Visitor, asset_ids: Sequence[int]) -> list[Asset]:
        """Images of the account that can be shown, in this order; others are left out."""
        if not asset_ids:
            return []
        found = {each.id: each for each in await self._console.store.assets(asset_ids)}
        assets = [found[each] for each in asset_ids if each in found]
        account_id, now = visitor.account_id, self._console.clock()
        return [each for each in assets if each.account_id == account_id and each.is_shown(now=now)]

    # Models

    def _model(self, key: ApiKey, said: Said) -> tuple[Model, Problem | None]:
        """The model that was said, or one that can be had and what is wrong with that one."""
        name, catalog = said.get("model"), self._console.catalog
        wrong: Problem | None = None
        if name:
            try:
                check_model(key, catalog, name)
                model = catalog.get(name)
                if model.enabled:
                    return model, None
                wrong = Problem.of(catalog.unknown(name))
            except CalotypeError as error:
                wrong = Problem.of(error)
        return self._offered(key)[0], wrong

    def _offered(self, key: ApiKey) -> list[Model]:
        """The models that a key may use, those first that can be had right now."""
        models = [
            each
            for each in self._console.catalog.models.values()
            if each.enabled and (key.models is None or each.id in key.models)
        ]
        if not models:
            raise UnknownModel("This key may use no model that is switched on; use another key.")
        return sorted(models, key=lambda each: not self._channels(key, each))

    def _channels(self, key: ApiKey, model: Model) -> list[Channel]:
        serving = self._console.router.serving(model.id)
        return [each for each in serving if key.channels is None or each.id in key.channels]

    def _brands(self, key: ApiKey, chosen: Model) -> list[tuple[str, list[Card]]]:
        models = [
            each for each in self._offered(key) if self._channels(key, each) or each is chosen
        ]
        models.sort(key=lambda each: each.brand)
        return [
            (_brand_name(brand), [self._card(key, each) for each in group])
            for brand, group in groupby(models, lambda each: each.brand)
        ]

    def _card(self, key: ApiKey, model: Model) -> Card:
        channels = self._channels(key, model)
        served: list[Served | None] = [channel.served(model.id) for channel in channels]
        examples = [
            {name: values[0] for name, values in tier.when.items()} for tier in model.pricing.tiers
        ]
        least = min(
            max(price(model, each, 1, one) for one in served or [None]) for each in examples
        )
        return Card(model.id, model.name, model.brand, model.description, least)

    # Money

    async def _quote(
        self, key: ApiKey, said: Said, fitted: Fitted, uploads: Sequence[Asset]
    ) -> tuple[int | None, Problem | None]:
        """What the request costs as it stands, or why it would be refused.

        A prompt is not asked for before it is sent.
        """
        fields: dict[str, object] = {
            "model": said.get("model"),
            "prompt": said.get("prompt") or _PROMPTLESS,
            **fitted.sent,
        }
        fields |= {name: said.get(name) for name in ("n", "channel_id") if said.get(name)}
        try:
            urls, model = said.urls, self._console.catalog.get(said.get("model"))
            check_reference_count(model, len(uploads) + said.uploads + len(urls))
            references: list[Reference | Kept] = [Kept(asset, b"") for asset in uploads]
            references += [Reference()] * said.uploads
            references += self._console.references.judge(urls)
            quoted = await self._console.submission.quote(
                key, fields, references=references, text=True
            )
        except CalotypeError as error:
            return None, Problem.of(error)
        return (None if fitted.wrong else quoted), None

    async def _left(self, key: ApiKey) -> int | None:
        """Micro-USDC that a key may spend now."""
        if key.day_limit is None and key.month_limit is None:
            return None
        meter = await self._console.store.meter(key.id)
        if meter is None:
            return None
        now = meter.at(self._console.clock())
        limits = ((now.day_limit, now.day_spent), (now.month_limit, now.month_spent))
        return max(0, min(limit - spent for limit, spent in limits if limit is not None))

    # References and code

    @staticmethod
    def _picked(asset: Asset) -> Picked:
        word = encode("asset", asset.id)
        return Picked(PICKED + word, f"{image_path(asset.id)}/160.webp", _file_of(asset))

    def _wanted(
        self, request: Request, said: Said, fitted: Fitted, uploads: Sequence[Asset]
    ) -> Wanted:
        model = self._console.catalog.get(said.get("model"))
        defaults = {each.name: each.default for each in model.parameters}
        prompt = said.get("prompt", "A lighthouse")[: model.prompt.max_length]
        fields: dict[str, Any] = {"model": model.id, "prompt": prompt}
        if (n := whole(said.get("n")) or 1) > 1:
            fields["n"] = n
        chosen = fitted.parameters.items()
        fields |= {name: value for name, value in chosen if value != defaults[name]}
        for name in ("channel_id", "deadline_seconds"):
            if number := whole(said.get(name)):
                fields[name] = number
        try:
            metadata = check_metadata(metadata_of(said.get("metadata")))
        except CalotypeError:  # it is told beside the field when the request is sent
            metadata = {}
        if metadata:
            fields["metadata"] = metadata
        most = model.references.max_items
        files = [_file_of(asset) for asset in uploads]
        files += [f"reference-{number}.png" for number in range(1, said.uploads + 1)]
        urls = said.urls[: max(0, most - len(files))]
        return Wanted(server_url(self._console, request), fields, files[:most], urls)


def told_gone(count: int) -> str:
    """What is to be said of chosen references that are not there."""
    chosen = "A reference that was" if count == 1 else f"{count} references that were"
    return f"{chosen} chosen cannot be had any more: deleted, or not this account's."


def _status(error: CalotypeError) -> int:
    """What a form that is refused so is answered with."""
    match error:
        case BillingError():
            return 402
        case RateLimitReached():
            return 429
        case ServerFault():
            return 503
    return 422


def _tidied(said: Said, model: Model, channels: Sequence[Channel]) -> tuple[Said, list[str]]:
    """What was said without what this model never has, and what was left out so."""
    fields, notes = dict(said.fields), []
    if said.changes_model and model.n.maximum == 1 and fields.pop("n", "1") != "1":
        notes.append(f"{model.name} makes one picture at a time.")
    pinned = said.get("channel_id")
    if said.changes_model and pinned and pinned not in {str(each.id) for each in channels}:
        del fields["channel_id"]
        notes.append(f"The channel that was chosen does not serve {model.name}.")
    return Said(fields), notes


def _errors(model: Model, problems: Sequence[Problem | None]) -> dict[str, str]:
    """What stands beside fields of this form; the first word on each is kept."""
    shown = {*_EVERYWHERE, _REFERENCES, *(each.name for each in model.parameters)}
    errors: dict[str, str] = {}
    for each in problems:
        if each is not None and each.field in shown:
            errors.setdefault(each.field, each.message)
    return errors


def _token(said: Said) -> str:
    given = said.get(f"{OURS}token")
    good = len(given) == TOKEN_LENGTH and given.isascii() and given.isprintable()
    return given if good else secrets.token_urlsafe(_TOKEN_BYTES)


def _file_of(asset: Asset) -> str:
    return f"{encode('asset', asset.id)}.{EXTENSIONS[asset.content_type]}"


def _brand_name(brand: str) -> str:
    """``black-forest-labs`` as people write it."""
    known = {"openai": "OpenAI", "bytedance": "ByteDance"}
    return known.get(brand) or " ".join(word.capitalize() for word in brand.split("-"))
