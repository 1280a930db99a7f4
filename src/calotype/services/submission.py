"""Accepting a request: validate, price, route, reserve, write; then a 202 may be sent."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Final

import msgspec

from calotype.domain.catalog import OPTION_FIELDS, Catalog, Model
from calotype.domain.clock import Clock
from calotype.domain.errors import (
    CalotypeError,
    InternalError,
    InvalidParameter,
    Unavailable,
)
from calotype.domain.fairness import priority
from calotype.domain.fitting import Shape, shape_of
from calotype.domain.ids import IdSource
from calotype.domain.keys import ApiKey
from calotype.domain.limits import NO_LIMITS, AccountLimits
from calotype.domain.options import NO_OPTIONS, Options, read_options
from calotype.domain.task import Asset, NewTask, Reference, Request
from calotype.domain.validation import Normalised, check_reference_count, normalise
from calotype.observing import metrics, tracing
from calotype.services.assets import Assets, Kept
from calotype.services.named import NONE_NAMED, Image, check_images, find_named, images_of
from calotype.services.routing import Router
from calotype.services.scopes import check_model
from calotype.store.port import IdTaken, Store, Submitted

MAX_IDEMPOTENCY_KEY: Final = 255
"""Characters of an ``Idempotency-Key``."""
_DRAWS: Final = 3
_encode = msgspec.json.Encoder(order="deterministic").encode


class AcceptanceInDoubt(Unavailable):
    """The database went away while the task was being written: it may be there, or not."""


class Accepted(msgspec.Struct, frozen=True):
    """An accepted request."""

    task: Submitted
    model: str
    eta_seconds: int


class Asked(msgspec.Struct, frozen=True):
    """A request as it came.

    Args:
        fields: all of it but the references.
        references: URLs that were judged and uploads that are stored, in order.
        text: the fields come from a form, so numbers and booleans are text.
        idempotency_key: None when the client sent none.

    """

    fields: Mapping[str, object]
    references: Sequence[Image]
    text: bool
    idempotency_key: str | None


class _Judged(msgspec.Struct, frozen=True):
    """A request that its model takes; whether a channel does is not known yet."""

    asked: Asked
    model: Model
    request: Request
    metadata: dict[str, str]
    fingerprint: bytes

    @property
    def uploads(self) -> tuple[Asset, ...]:
        """Those that came with it."""
        return tuple([each.asset for each in self.asked.references if isinstance(each, Kept)])


class _Draft(msgspec.Struct, frozen=True):
    """A task that is still to be written."""

    new: NewTask
    model: Model


class Submission:
    """Accepts requests.

    Args:
        enqueue: tells a worker of a task, ``(task id, channel id, priority)``; must not block.
        judge_callback: returns a callback's URL, or raises ``errors.InvalidParameter``.
        limits: of accounts that have none of their own.

    """

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        router: Router,
        *,
        assets: Assets,
        enqueue: Callable[[int, int, int], None],
        judge_callback: Callable[[object], str],
        ids: IdSource,
        clock: Clock,
        limits: AccountLimits = NO_LIMITS,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._router = router
        self._assets = assets
        self._enqueue = enqueue
        self._judge_callback = judge_callback
        self._ids = ids
        self._clock = clock
        self._limits = limits

    async def submit(
        self,
        key: ApiKey,
        fields: Mapping[str, object],
        *,
        references: Sequence[Image],
        text: bool,
        request_id: str,
        idempotency_key: str | None,
    ) -> Accepted:
        """Accept a request, durably, or find the task that its idempotency key names.

        Args:
            key: who asks.
            fields: see ``Asked``, as for the next two.
            references: uploads are the caller's to discard when this raises.
            text: whether it is a form.
            request_id: kept with the task.
            idempotency_key: see ``Asked``.

        Raises:
            errors.CalotypeError: refused; nothing was written.

        """
        asked = Asked(fields, references, text, idempotency_key)
        with tracing.span("submit", kind="PRODUCER"):
            return await self._submit(key, asked, request_id=request_id)

    async def _submit(self, key: ApiKey, asked: Asked, *, request_id: str) -> Accepted:
        judged = self._judge(key, asked)
        references = asked.references
        named = await find_named(self._store, [references]) if references else NONE_NAMED
        try:
            new = self._new_task(key, judged, named, request_id=request_id)
        except CalotypeError:  # channels and images may be others than when it was accepted
            known = await self._replayed(key, judged)
            if known is None:
                raise
            return known
        submitted = await self._write(new)
        if submitted.replayed:
            await self._assets.discard(new.uploads)
        return self._accepted(submitted, new, judged.model)

    async def quote(
        self,
        key: ApiKey,
        fields: Mapping[str, object],
        *,
        references: Sequence[Image],
        text: bool,
    ) -> int:
        """Micro-USDC that ``submit`` would reserve for a request now; arguments as of that.

        Raises:
            errors.CalotypeError: ``submit`` would refuse it.

        """
        asked = Asked(fields, references, text, None)
        judged = self._judge(key, asked)
        files = self._files(judged, await find_named(self._store, [references]), key=key)
        self._router.choose(judged.model, judged.request, files)
        return self._router.highest_price(judged.model, judged.request, files)

    def fingerprint(
        self, fields: Mapping[str, object], *, references: Sequence[Image], text: bool
    ) -> bytes:
        """What one idempotency key may stand for: the same for the same request.

        Raises:
            errors.CalotypeError: ``submit`` would refuse it.

        """
        return _fingerprint(*self._read(fields, text=text), references)

    async def submit_batch(
        self, key: ApiKey, batch: Sequence[Asked | CalotypeError], *, request_id: str
    ) -> list[Accepted | CalotypeError]:
        """Accept each of many requests or say why not, in their order and in one transaction.

        Args:
            key: who asks.
            batch: requests without uploads; what was refused before keeps its place.
            request_id: kept with each task.

        Raises:
            errors.CalotypeError: it is all of them that cannot be accepted now; unless it is an
                ``AcceptanceInDoubt``, nothing was written.

        """
        with tracing.span("submit", kind="PRODUCER", requests=len(batch)):
            return await self._submit_batch(key, batch, request_id=request_id)

    async def _submit_batch(
        self, key: ApiKey, batch: Sequence[Asked | CalotypeError], *, request_id: str
    ) -> list[Accepted | CalotypeError]:
        named = await find_named(
            self._store, [one.references for one in batch if isinstance(one, Asked)]
        )
        outcomes = [await self._considered(key, one, named, request_id=request_id) for one in batch]
        drafts = [one for one in outcomes if isinstance(one, _Draft)]
        written = iter(await self._write_batch([draft.new for draft in drafts]))
        results: list[Accepted | CalotypeError] = []
        for one in outcomes:
            if not isinstance(one, _Draft):
                results.append(one)
                continue
            submitted = next(written)
            results.append(
                submitted
                if isinstance(submitted, CalotypeError)
                else self._accepted(submitted, one.new, one.model)
            )
        return results

    async def _considered(
        self,
        key: ApiKey,
        asked: Asked | CalotypeError,
        named: Mapping[int, Asset],
        *,
        request_id: str,
    ) -> _Draft | Accepted | CalotypeError:
        """One of a batch: what is to be written, or what became of it without that."""
        if isinstance(asked, CalotypeError):
            return asked
        try:
            judged = self._judge(key, asked)
        except CalotypeError as error:
            return error
        try:
            return _Draft(self._new_task(key, judged, named, request_id=request_id), judged.model)
        except CalotypeError as error:
            return await self._replayed(key, judged) or error

    def _judge(self, key: ApiKey, asked: Asked) -> _Judged:
        """Whether the key may use the model, and the model takes the request.

        Raises:
            errors.CalotypeError: it does not.

        """
        check_idempotency_key(asked.idempotency_key)
        check_model(key, self._catalog, asked.fields.get("model"))
        plain, options = self._read(asked.fields, text=asked.text)
        model = self._catalog.get(plain.model)
        check_reference_count(model, len(asked.references))
        request = Request(
            model=plain.model,
            prompt=plain.prompt,
            n=plain.n,
            parameters=plain.parameters,
            channel_id=plain.channel_id,
            callback_url=options.callback_url,
            deadline_seconds=options.deadline_seconds,
            channel_ids=key.channels,
            traceparent=tracing.traceparent(),
        )
        keyed = asked.idempotency_key is not None
        fingerprint = _fingerprint(plain, options, asked.references) if keyed else b""
        return _Judged(asked, model, request, options.metadata, fingerprint)

    def _read(self, fields: Mapping[str, object], *, text: bool) -> tuple[Normalised, Options]:
        plain = normalise(self._catalog, fields, text=text)
        options = NO_OPTIONS
        if not fields.keys().isdisjoint(OPTION_FIELDS):
            options = read_options(fields, text=text, judge_url=self._judge_callback)
        return plain, options

    def _files(
        self, judged: _Judged, named: Mapping[int, Asset], *, key: ApiKey
    ) -> list[Shape | None]:
        """The references of a request as a router wants them.

        Raises:
            errors.CalotypeError: the model does not take one of them, or it is not there.

        """
        if not judged.asked.references:
            return []
        images = images_of(
            judged.asked.references, named, account_id=key.account_id, now=self._clock()
        )
        check_images(judged.model, judged.asked.references, images)
        return [shape_of(one) if one else None for one in images]

    def _new_task(
        self, key: ApiKey, judged: _Judged, named: Mapping[int, Asset], *, request_id: str
    ) -> NewTask:
        """The task of a request, on the channel whose turn it is.

        Args:
            key: who asks.
            judged: what for.
            named: images by id, all that there are of those that it names.
            request_id: kept with the task.

        Raises:
            errors.CalotypeError: no channel takes it, or an image that it names is not there.

        """
        model, request, references = judged.model, judged.request, judged.asked.references
        files = self._files(judged, named, key=key)
        channel = self._router.choose(model, request, files)
        now = self._clock()
        seconds = model.deadline_seconds
        if request.deadline_seconds is not None:
            seconds = min(seconds, request.deadline_seconds)
        return NewTask(
            id=self._ids.next(),
            account_id=key.account_id,
            key_id=key.id,
            request_id=request_id,
            request=request,
            references=tuple(
                [Reference(asset_id=r.asset.id) if isinstance(r, Kept) else r for r in references]
            ),
            uploads=judged.uploads,
            channel_id=channel.id,
            price=self._router.highest_price(model, request, files),
            deadline_at=now + seconds * 1000,
            abandon_at=now + (model.deadline_seconds + model.grace_seconds) * 1000,
            created_at=now,
            idempotency_key=judged.asked.idempotency_key,
            fingerprint=judged.fingerprint,
            metadata=judged.metadata,
            metered=key.metered,
            reference_days=self._catalog.reference_days_of(model.id),
            limits=self._limits,
        )

    async def _replayed(self, key: ApiKey, judged: _Judged) -> Accepted | None:
        """The task that the idempotency key of a request names, where there is one."""
        asked = judged.asked
        if asked.idempotency_key is None:
            return None
        known = await self._store.replayed(
            key.account_id, asked.idempotency_key, fingerprint=judged.fingerprint
        )
        if known is None:
            return None
        await self._assets.discard(judged.uploads)
        return Accepted(known, judged.model.id, judged.model.eta_seconds)

    def _accepted(self, submitted: Submitted, new: NewTask, model: Model) -> Accepted:
        """Tell a worker, of a replay too: it may have been lost right after it was written."""
        if not submitted.replayed:
            metrics.ACCEPTED.add(new.channel_id, model.id)
        self._enqueue(
            submitted.task_id,
            new.channel_id,
            priority(submitted_at=submitted.created_at, backlog=submitted.backlog),
        )
        return Accepted(submitted, model.id, self._router.usual_seconds(new.channel_id, model))

    async def _write_batch(self, news: list[NewTask]) -> Sequence[Submitted | CalotypeError]:
        if not news:
            return []
        for _ in range(_DRAWS):
            try:
                begun = monotonic()
                written = await self._store.submit_batch(news)
                metrics.DATABASE_SECONDS.note(monotonic() - begun, "submit")
                return written  # noqa: TRY300 -- nothing after the write can raise
            except IdTaken:
                news = [msgspec.structs.replace(new, id=self._ids.next()) for new in news]
            except Unavailable as error:
                raise AcceptanceInDoubt(error.message, retry_after=error.retry_after) from error
        raise _no_free_id()

    async def _write(self, new: NewTask) -> Submitted:
        for _ in range(_DRAWS):
            try:
                begun = monotonic()
                written = await self._store.submit(new)
                metrics.DATABASE_SECONDS.note(monotonic() - begun, "submit")
                return written  # noqa: TRY300 -- nothing after the write can raise
            except IdTaken:
                new = msgspec.structs.replace(new, id=self._ids.next())
            except Unavailable as error:
                raise AcceptanceInDoubt(error.message, retry_after=error.retry_after) from error
        raise _no_free_id()


def _no_free_id() -> InternalError:
    return InternalError(f"No free task id was found in {_DRAWS} draws.")


def check_idempotency_key(key: str | None, *, name: str = "Idempotency-Key") -> None:
    """Whether a key can be kept.

    Raises:
        errors.InvalidParameter: it cannot; ``name`` is the field or header at fault.

    """
    if key is None:
        return
    if not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY or not key.isascii() or not key.isprintable():
        raise InvalidParameter(
            f"{name} must be 1 to {MAX_IDEMPOTENCY_KEY} printable ASCII characters.", param=name
        )


def _fingerprint(plain: Normalised, options: Options, references: Sequence[Image]) -> bytes:
    """The same for the same request, whether a default was left out or written.

    Keys outlive an upgrade: what a request without options comes to must stay as it is.
    """
    named = [
        reference.digest.hex() if isinstance(reference, Kept) else reference.url
        for reference in references
    ]
    whole = (plain, named) if options == NO_OPTIONS else (plain, named, options)
    return hashlib.sha256(_encode(whole)).digest()
