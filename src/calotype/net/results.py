"""Finished images that an upstream keeps for us to fetch, as ``ImageSource``."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import Final

from calotype.domain.outcomes import SourceError
from calotype.net.fetcher import FetchedStream, FetchRefused, GuardedFetcher

_MAY_COME_BACK: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.GONE,
    }
)
"""A signed URL ran out, or the image is not there yet: asked anew, the upstream may give another
URL. Some stores call a signature that ran out a bad request."""


class Result:
    """An image behind a URL, fetched anew each time that it is opened.

    Args:
        fetcher: keeps us from private hosts.
        url: where the image is.
        own_host: a host that may be private: the channel's.
        headers: a credential for that URL; no redirect takes it along.

    """

    def __init__(
        self,
        fetcher: GuardedFetcher,
        url: str,
        *,
        own_host: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._fetcher = fetcher
        self._url = url
        self._own_host = own_host
        self._headers = headers

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """The image in chunks.

        Raises:
            SourceError: on entry or on iterating, it cannot be fetched.

        """
        async with AsyncExitStack() as stack:
            opened = self._fetcher.open(self._url, own_host=self._own_host, headers=self._headers)
            try:
                stream = await stack.enter_async_context(opened)
            except FetchRefused as error:
                raise _unreadable(error) from error
            yield _chunks(stream)


async def _chunks(stream: FetchedStream) -> AsyncIterator[bytes]:
    empty = True
    try:
        async for chunk in stream:
            empty = False
            yield chunk
    except FetchRefused as error:
        raise _unreadable(error) from error
    if empty:
        raise SourceError("The result URL was answered with nothing.")


def _unreadable(error: FetchRefused) -> SourceError:
    return SourceError(error.message, retryable=error.retryable or error.status in _MAY_COME_BACK)
