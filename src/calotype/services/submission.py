"""Accepting a request: validate, price, route, reserve, write; then a 202 may be sent."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from calotype.domain.catalog import Catalog, Model
from calotype.domain.clock import Clock
from calotype.domain.errors import (
    CalotypeError,
    InternalError,
    InvalidParameter,
    ReferenceTooLarge,
    Unavailable,
    UnsupportedReferenceType,
)
from calotype.domain.fairness import priority
from calotype.domain.ids import IdSource
from calotype.domain.keys import ApiKey
from calotype.domain.task import NewTask, Reference, Request
from calotype.domain.validation import check_reference_count, normalise
from calotype.services.assets import Assets, Kept
from calotype.services.routing import Router
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


class Submission:
    """Accepts requests.

    Args:
        enqueue: tells a worker of a task, ``(task id, channel id, priority)``; must not block.

    """

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        router: Router,
        *,
        assets: Assets,
        enqueue: Callable[[int, int, int], None],
        ids: IdSource,
        clock: Clock,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._router = router
        self._assets = assets
        self._enqueue = enqueue
        self._ids = ids
        self._clock = clock

    async def submit(
        self,
        key: ApiKey,
        fields: Mapping[str, object],
        *,
        references: Sequence[Reference | Kept],
        text: bool,
        request_id: str,
        idempotency_key: str | None,
    ) -> Accepted:
        """Accept a request, durably, or find the task that its idempotency key names.

        Args:
            key: who asks.
            fields: the request without its references.
            references: URLs that were judged and uploads that are stored, in order. Uploads are
                the caller's to discard when this raises.
            text: the fields come from a form, so numbers and booleans are text.
            request_id: kept with the task.
            idempotency_key: None when the client sent none.

        Raises:
            errors.CalotypeError: refused; nothing was written.

        """
        _check_idempotency_key(idempotency_key)
        asked = normalise(self._catalog, fields, text=text)
        model = self._catalog.get(asked.model)
        check_reference_count(model, len(references))
        request = Request(
            model=asked.model,
            prompt=asked.prompt,
            n=asked.n,
            parameters=asked.parameters,
            channel_id=asked.channel_id,
        )
        files = [
            (one.asset.content_type, one.asset.bytes) if isinstance(one, Kept) else None
            for one in references
        ]
        fingerprint = _fingerprint(asked, references) if idempotency_key else b""
        try:
            channel = self._router.choose(model, request, files)
        except CalotypeError:  # the channels may be others than when it was accepted
            if idempotency_key is None:
                raise
            known = await self._store.replayed(
                key.account_id, idempotency_key, fingerprint=fingerprint
            )
            if known is None:
                raise
            await self._assets.discard(
                [each.asset for each in references if isinstance(each, Kept)]
            )
            return Accepted(known, asked.model, model.eta_seconds)
        uploads = [reference for reference in references if isinstance(reference, Kept)]
        _check_uploads(model, uploads)
        now = self._clock()
        new = NewTask(
            id=self._ids.next(),
            account_id=key.account_id,
            key_id=key.id,
            request_id=request_id,
            request=request,
            references=tuple(
                Reference(asset_id=reference.asset.id) if isinstance(reference, Kept) else reference
                for reference in references
            ),
            uploads=tuple(upload.asset for upload in uploads),
            channel_id=channel.id,
            price=self._router.highest_price(model, request, files),
            deadline_at=now + model.deadline_seconds * 1000,
            abandon_at=now + (model.deadline_seconds + model.grace_seconds) * 1000,
            created_at=now,
            idempotency_key=idempotency_key,
            fingerprint=fingerprint,
        )
        submitted = await self._write(new)
        if submitted.replayed:
            await self._assets.discard(new.uploads)
        # A replay too: the first request may have been lost right after it was written.
        self._enqueue(
            submitted.task_id,
            channel.id,
            priority(submitted_at=submitted.created_at, backlog=submitted.backlog),
        )
        return Accepted(submitted, asked.model, self._router.usual_seconds(channel.id, model))

    async def _write(self, new: NewTask) -> Submitted:
        for _ in range(_DRAWS):
            try:
                return await self._store.submit(new)
            except IdTaken:
                new = msgspec.structs.replace(new, id=self._ids.next())
            except Unavailable as error:
                raise AcceptanceInDoubt(error.message, retry_after=error.retry_after) from error
        raise InternalError(f"No free task id was found in {_DRAWS} draws.")


def _check_uploads(model: Model, uploads: Sequence[Kept]) -> None:
    limits = model.references
    for upload in uploads:
        if upload.asset.bytes > limits.max_bytes:
            raise ReferenceTooLarge(
                f"{model.id} takes reference images of at most {limits.max_bytes} bytes.",
                param="image",
            )
        if upload.asset.content_type not in limits.content_types:
            raise UnsupportedReferenceType(
                f"{model.id} takes reference images of these types: "
                f"{', '.join(limits.content_types)}.",
                param="image",
            )


def _check_idempotency_key(key: str | None) -> None:
    if key is None:
        return
    if not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY or not key.isascii() or not key.isprintable():
        raise InvalidParameter(
            f"Idempotency-Key must be 1 to {MAX_IDEMPOTENCY_KEY} printable ASCII characters.",
            param="Idempotency-Key",
        )


def _fingerprint(asked: msgspec.Struct, references: Sequence[Reference | Kept]) -> bytes:
    """The same for the same request, whether a default was left out or written."""
    named = [
        reference.digest.hex() if isinstance(reference, Kept) else reference.url
        for reference in references
    ]
    return hashlib.sha256(_encode((asked, named))).digest()
