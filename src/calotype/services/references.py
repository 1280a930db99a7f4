"""Reference images: judged when they are named, fetched when the task runs."""

import asyncio
from collections.abc import Sequence
from weakref import WeakValueDictionary

from calotype.domain.catalog import References
from calotype.domain.clock import Clock
from calotype.domain.errors import (
    InvalidParameter,
    ReferenceTooLarge,
    UnsupportedReferenceType,
)
from calotype.domain.files import named_asset, reference_of
from calotype.domain.task import Asset, Reference
from calotype.domain.urls import judge_reference_url
from calotype.net.fetcher import FetchRefused, GuardedFetcher
from calotype.services.assets import Assets

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between tries at a reference that may yet come; the task's deadline ends them too."""

FETCHES = 32
"""References fetched at a time by one process."""
FETCHES_PER_ACCOUNT = 4
"""So that one account's slow hosts do not hold up the others' references."""


class ReferenceFailed(Exception):
    """A reference cannot be had; carries the code and message with which the task fails."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class ReferenceIntake:
    """Takes references in."""

    def __init__(
        self,
        assets: Assets,
        fetcher: GuardedFetcher,
        *,
        allow_hosts: frozenset[str],
        clock: Clock,
    ) -> None:
        self._assets = assets
        self._fetcher = fetcher
        self._allow_hosts = allow_hosts
        self._clock = clock
        self._fetches = asyncio.Semaphore(FETCHES)
        self._turns: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()

    def judge(self, urls: object) -> list[Reference]:
        """References by URL, judged by form and address without a look at the network.

        Whether an ``asset://…`` is there is for submission to say.

        Raises:
            errors.InvalidParameter: no list, or a URL that may not be fetched.

        """
        if urls is None:
            return []
        if not isinstance(urls, list):
            raise InvalidParameter(
                "image_input must be a list of http(s) URLs and asset:// references.",
                param="image_input",
            )
        return [self._judged(url) for url in urls]

    def _judged(self, url: object) -> Reference:
        asset_id = named_asset(url)
        if asset_id is not None:
            return Reference(url=reference_of(asset_id), asset_id=asset_id)
        return Reference(url=judge_reference_url(url, allow_hosts=self._allow_hosts))

    async def fetch(
        self,
        references: Sequence[Reference],
        *,
        account_id: int,
        limits: References,
        deadline_at: int,
    ) -> tuple[tuple[Reference, ...], list[Asset]]:
        """Fetch what is not here yet; returns the references filled in, and the new images.

        Raises:
            ReferenceFailed: one of them cannot be had; what was fetched is removed again.

        """
        filled: list[Reference] = []
        fetched: list[Asset] = []
        try:
            for reference in references:
                if reference.asset_id is not None or reference.url is None:
                    filled.append(reference)
                    continue
                asset = await self._fetch_one(
                    reference.url, account_id=account_id, limits=limits, deadline_at=deadline_at
                )
                fetched.append(asset)
                filled.append(Reference(url=reference.url, asset_id=asset.id))
        except BaseException:
            await self._assets.discard(fetched)
            raise
        return tuple(filled), fetched

    async def _fetch_one(
        self, url: str, *, account_id: int, limits: References, deadline_at: int
    ) -> Asset:
        for pause in (*PAUSES, None):
            try:
                async with (
                    self._turns.setdefault(account_id, asyncio.Semaphore(FETCHES_PER_ACCOUNT)),
                    self._fetches,
                    self._fetcher.open(url) as stream,
                ):
                    kept = await self._assets.keep(
                        aiter(stream),
                        account_id=account_id,
                        kind="reference",
                        max_bytes=limits.max_bytes,
                        content_types=limits.content_types,
                    )
            except (ReferenceTooLarge, UnsupportedReferenceType) as error:
                raise ReferenceFailed(error.code, f"{_shown(url)}: {error.message}") from error
            except FetchRefused as error:
                late = pause is None or self._clock() + pause * 1000 >= deadline_at
                if not error.retryable or late:
                    message = f"{_shown(url)} could not be fetched: {error.message}"
                    raise ReferenceFailed(error.code, message) from error
            else:
                return kept.asset
            await asyncio.sleep(pause or 0)
        raise AssertionError("the last try returns or raises")


def _shown(url: str) -> str:
    """A URL without its query, which may carry a signature."""
    return url.partition("?")[0].partition("#")[0][:200]
