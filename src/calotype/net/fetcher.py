"""Fetching what a stranger's URL points at, without being led anywhere that is not public.

The address check happens inside the connector's own name lookup: the connection is made to the
very addresses that were judged, so a name that changes its answer between check and use gains
nothing. TLS still verifies the name. Every redirect is a new URL under the same rules.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final, Self
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from calotype.domain.errors import InvalidParameter
from calotype.domain.urls import (
    ReferenceUrl,
    canonical_host,
    canonical_hosts,
    is_public,
    parse_reference_url,
    with_port,
)
from calotype.net.lookup import SystemLookup

MAX_REDIRECTS: Final = 3
IDLE_SECONDS: Final = 30.0
"""Longest wait for an answer or the next piece of it: a connection may be lost without a word."""
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_GOOD: Final = range(200, 300)
_PASSING_FAULTS: Final = frozenset({408, 425, 429, *range(500, 600)})
_HEADERS: Final = {
    "User-Agent": "Calotype",
    "Accept": "image/png, image/jpeg, image/webp, */*;q=0.1",
    "Accept-Encoding": "identity",
}


class FetchRefused(Exception):
    """A URL was not fetched to its end.

    Args:
        message: one sentence for the user; it names no address of ours.
        retryable: whether the same URL may work a little later.
        code: which of ``errors.FAILURES`` a task fails with for this.
        status: of HTTP, where that was the reason.

    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool,
        code: str = "reference_fetch_failed",
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable
        self.code = code
        self.status = status


class CheckedResolver(AbstractResolver):
    """Looks a name up once and gives out its addresses only if all of them may be reached.

    Args:
        lookup: who asks DNS; closed together with this.
        allow_hosts: names and addresses that may be reached though they are not public.
        noun: what is fetched, for messages.

    """

    def __init__(
        self, lookup: AbstractResolver, allow_hosts: frozenset[str], *, noun: str = "reference"
    ) -> None:
        self._lookup = lookup
        self._allow_hosts = canonical_hosts(allow_hosts)
        self._noun = noun

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of ``host``, all of them judged.

        Raises:
            FetchRefused: one of the addresses is not public, or there is none.
            OSError: the name cannot be resolved.

        """
        found = await self._lookup.resolve(host, port, family)
        if not found:
            raise FetchRefused(f"The host of the {self._noun} URL has no address.", retryable=True)
        if not self._allowed(host, port) and not all(
            self._may_reach(record["host"], port) for record in found
        ):
            raise FetchRefused(
                f"The host of the {self._noun} URL does not resolve to a public address.",
                retryable=False,
            )
        return found

    def _may_reach(self, address: str, port: int) -> bool:
        if is_public(address):
            return True
        try:
            return self._allowed(canonical_host(address), port)
        except ValueError:
            return False

    def _allowed(self, host: str, port: int) -> bool:
        return host in self._allow_hosts or with_port(host, port) in self._allow_hosts

    async def close(self) -> None:
        """Close the lookup."""
        await self._lookup.close()


def guarded_session(
    resolver: CheckedResolver, *, headers: Mapping[str, str], tls: ssl.SSLContext | None
) -> aiohttp.ClientSession:
    """A session that keeps nothing between requests: no connection, no address, no cookie.

    Args:
        resolver: judges the addresses that are connected to.
        headers: of every request.
        tls: how TLS peers are verified instead of by the system's authorities.

    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=resolver,
            use_dns_cache=False,
            force_close=True,
            limit=0,
            ssl=tls or True,
        ),
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        trust_env=False,
    )


class FetchedStream:
    """The body of an answer, read once, chunk by chunk: ``async for chunk in stream``.

    Iterating raises ``FetchRefused`` when the body is over the limit, late or cut short. It is
    complete only when the iteration has come to its end.
    """

    def __init__(
        self, response: aiohttp.ClientResponse, *, max_bytes: int, clock: "_Clock"
    ) -> None:
        self._response = response
        self._clock = clock
        self._max_bytes = max_bytes
        self._taken = 0
        declared = response.headers.get("Content-Type")
        self.content_type: str | None = declared and declared.partition(";")[0].strip().lower()
        """What the server calls it, bare and in lower case: a hint, never a proof."""
        self.content_length: int | None = response.content_length
        """Bytes that the server announced; None where it did not."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        async with self._clock.guard():
            chunk = await self._response.content.readany()
        if not chunk:
            raise StopAsyncIteration
        self._taken += len(chunk)
        if self._taken > self._max_bytes:
            raise _too_large(self._max_bytes, self._clock.noun)
        return chunk


class GuardedFetcher:
    """Fetches URLs that users gave, from public hosts only, bounded in bytes and in time.

    It holds no connection between fetches and sets no limit on how many run at once: that is
    the caller's.

    Args:
        allow_hosts: names and addresses that are fetched from though they are not public.
        max_bytes: limit on the body of one answer, in bytes.
        timeout_seconds: limit on one fetch from lookup to last byte, redirects included.
        idle_seconds: limit on the wait for each answer, from its lookup, and each piece of a body.
        resolver: who asks DNS instead of the operating system; closed by ``close``.
        tls: how TLS peers are verified instead of by the system's authorities.
        noun: what is fetched, for messages.

    Raises:
        ValueError: an entry of ``allow_hosts`` is no host.

    """

    def __init__(
        self,
        allow_hosts: frozenset[str],
        *,
        max_bytes: int,
        timeout_seconds: float = 30,
        idle_seconds: float = IDLE_SECONDS,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
        noun: str = "reference",
    ) -> None:
        self._allow_hosts = canonical_hosts(allow_hosts)
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds
        self._idle_seconds = idle_seconds
        self._lookup = resolver or SystemLookup()
        self._tls = tls
        self._noun = noun
        self._sessions: dict[frozenset[str], aiohttp.ClientSession] = {}
        self._closed = False

    async def close(self) -> None:
        """Close every connection; what is being fetched ends in an error."""
        self._closed = True
        for session in self._sessions.values():
            await session.close()
        await self._lookup.close()

    @asynccontextmanager
    async def open(
        self, url: str, *, own_host: str = "", headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[FetchedStream]:
        """The body behind ``url`` as a stream; its connection is closed on exit.

        Args:
            url: where it is.
            own_host: one more name or address that may be reached though it is not public.
            headers: for ``url`` alone; where a redirect leads they are not sent.

        Raises:
            FetchRefused: on entry, the URL may not be fetched or did not answer with a body
                of at most ``max_bytes``; on iterating, see ``FetchedStream``.

        """
        clock = _Clock(self._timeout_seconds, self._idle_seconds, self._noun)
        allow_hosts = self._allow_hosts | _own(own_host)
        response = await self._follow(url, clock, allow_hosts, headers or {})
        try:
            _check_answer(response, self._max_bytes, self._noun)
            yield FetchedStream(response, max_bytes=self._max_bytes, clock=clock)
        finally:
            response.close()

    async def _follow(
        self, url: str, clock: "_Clock", allow_hosts: frozenset[str], headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """The first answer that is no redirect."""
        target = self._judge(url, allow_hosts)
        for _ in range(MAX_REDIRECTS + 1):
            async with clock.guard():
                response = await self._request(target, allow_hosts, headers)
            if response.status not in _REDIRECTS:
                return response
            response.close()
            headers = {}
            target = self._next_hop(target, response.headers.get("Location", ""), allow_hosts)
        raise FetchRefused(
            f"The {self._noun} URL redirects more than {MAX_REDIRECTS} times.", retryable=False
        )

    def _judge(self, url: str, allow_hosts: frozenset[str]) -> ReferenceUrl:
        try:
            return parse_reference_url(url, allow_hosts=allow_hosts)
        except InvalidParameter as error:
            message = re.sub(r"\b[Aa] URL", f"the {self._noun} URL", error.message, count=1)
            raise FetchRefused(message[:1].upper() + message[1:], retryable=False) from None

    def _next_hop(
        self, current: ReferenceUrl, location: str, allow_hosts: frozenset[str]
    ) -> ReferenceUrl:
        if not location.strip():
            raise FetchRefused(f"The {self._noun} URL redirects to nowhere.", retryable=False)
        try:
            # A space in Location is a common slip of servers, and means what it says.
            joined = urljoin(str(current), location.strip().replace(" ", "%20"))
        except ValueError:
            joined = ""
        target = self._judge(joined, allow_hosts)
        if current.scheme == "https" and target.scheme != "https":
            raise FetchRefused(
                f"The {self._noun} URL redirects from https to http.", retryable=False
            )
        return target

    async def _request(
        self, target: ReferenceUrl, allow_hosts: frozenset[str], headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        if self._closed:
            raise FetchRefused("This server is shutting down.", retryable=True)
        session = self._sessions.get(allow_hosts)
        if session is None:
            session = self._sessions[allow_hosts] = self._new_session(allow_hosts)
        return await session.get(
            URL(str(target), encoded=True), headers=headers, allow_redirects=False
        )

    def _new_session(self, allow_hosts: frozenset[str]) -> aiohttp.ClientSession:
        resolver = CheckedResolver(self._lookup, allow_hosts, noun=self._noun)
        return guarded_session(resolver, headers=_HEADERS, tls=self._tls)


class _Clock:
    """The one deadline of a fetch, over all its redirects and its body, and that of each wait."""

    def __init__(self, seconds: float, idle_seconds: float, noun: str) -> None:
        self.noun = noun
        self._seconds = seconds
        self._idle_seconds = idle_seconds
        self._deadline = asyncio.get_running_loop().time() + seconds

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """Around a wait for the network: what goes wrong in it becomes ``FetchRefused``."""
        until, late = self._deadline, f"took longer than {self._seconds:g} seconds"
        if (given_up := asyncio.get_running_loop().time() + self._idle_seconds) < until:
            until, late = given_up, f"came to nothing for {self._idle_seconds:g} seconds"
        try:
            async with asyncio.timeout_at(until):
                yield
        except TimeoutError as error:
            message = f"Fetching the {self.noun} URL {late}."
            raise FetchRefused(message, retryable=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise network_failure(error, self.noun) from error


def _check_answer(response: aiohttp.ClientResponse, max_bytes: int, noun: str) -> None:
    """Refuse an answer whose status or headers already say that it cannot serve."""
    status = response.status
    # No range was asked for, so part of a body is no answer either.
    if status not in _GOOD or status == HTTPStatus.PARTIAL_CONTENT:
        raise FetchRefused(
            f"The {noun} URL was answered with HTTP status {status}.",
            retryable=status in _PASSING_FAULTS,
            status=status,
        )
    encodings = ",".join(response.headers.getall("Content-Encoding", [])).lower().split(",")
    if any(encoding.strip() not in {"", "identity"} for encoding in encodings):
        raise FetchRefused(
            f"The {noun} URL was answered in a compressed form that was not asked for.",
            retryable=False,
        )
    if response.content_length is not None and response.content_length > max_bytes:
        raise _too_large(max_bytes, noun)


def _too_large(max_bytes: int, noun: str) -> FetchRefused:
    return FetchRefused(
        f"The {noun} image is larger than {max_bytes} bytes.",
        retryable=False,
        code="reference_too_large",
    )


def network_failure(error: aiohttp.ClientError | OSError, noun: str) -> FetchRefused:
    """The kind of failure in our words: the library's name addresses."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return FetchRefused(f"The host of the {noun} URL cannot be resolved.", retryable=True)
        case aiohttp.ClientConnectorCertificateError():
            return FetchRefused(
                f"The host of the {noun} URL has no valid TLS certificate.", retryable=False
            )
        case aiohttp.ClientConnectorError():
            return FetchRefused(
                f"The host of the {noun} URL cannot be connected to.", retryable=True
            )
        case aiohttp.ClientResponseError() | aiohttp.InvalidURL():
            return FetchRefused(f"The {noun} URL was not answered in valid HTTP.", retryable=False)
        case _:
            return FetchRefused(
                f"The connection to the host of the {noun} URL broke.", retryable=True
            )


def _own(host: str) -> frozenset[str]:
    """The host as a list; what is none is not on it."""
    try:
        return canonical_hosts(frozenset({host}))
    except ValueError:
        return frozenset()
