"""Sending a webhook to a stranger's URL: guarded as fetching one is, and never led elsewhere."""

import asyncio
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Final

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from yarl import URL

from calotype.domain.errors import InvalidParameter
from calotype.domain.urls import canonical_hosts, parse_reference_url
from calotype.net.answers import retry_after
from calotype.net.fetcher import CheckedResolver, FetchRefused, guarded_session, network_failure
from calotype.net.lookup import LastingLookup, SystemLookup

TIMEOUT_SECONDS: Final = 20.0
"""From the lookup to the head of the answer."""
LOOKUPS: Final = 128
"""Names that are looked up at a time."""
MAX_REPLY_BYTES: Final = 4096
MAX_REPLY_CHARS: Final = 500
REPLY_SECONDS: Final = 2.0
"""How long the body of an answer is read: the status has said all by then."""
_NOUN: Final = "webhook"


class Answer(msgspec.Struct, frozen=True):
    """What came back.

    Args:
        status: of HTTP; None where there was no answer.
        error: what was wrong, in our words; None where the receiver took it.
        reply: how the body begins, as text that is safe to show.
        retry_after: seconds that the receiver asked for.

    """

    status: int | None = None
    error: str | None = None
    reply: str | None = None
    retry_after: float | None = None


class WebhookClient:
    """Posts to public hosts only; each request has a connection of its own.

    It sets no limit on how many run at once: that is the caller's.

    Args:
        allow_hosts: names and addresses that may be reached though they are not public.
        timeout_seconds: limit on one request until its answer begins.
        resolver: who asks DNS instead of the operating system; closed by ``close``.
        tls: how TLS peers are verified instead of by the system's authorities.

    Raises:
        ValueError: an entry of ``allow_hosts`` is no host.

    """

    def __init__(
        self,
        allow_hosts: frozenset[str],
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allow_hosts = canonical_hosts(allow_hosts)
        self._timeout_seconds = timeout_seconds
        self._lookup = LastingLookup(resolver or SystemLookup(LOOKUPS))
        self._tls = tls
        self._lazy_session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send it once; whatever happens comes back as an answer."""
        try:
            target = parse_reference_url(url, allow_hosts=self._allow_hosts)
        except InvalidParameter as error:
            return Answer(error=error.message)
        deadline = asyncio.get_running_loop().time() + self._timeout_seconds
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._session.post(
                    URL(str(target), encoded=True),
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                )
        except TimeoutError:
            return Answer(error=f"There was no answer within {self._timeout_seconds:g} seconds.")
        except FetchRefused as refused:
            return Answer(error=refused.message)
        except (aiohttp.ClientError, OSError) as error:
            return Answer(error=network_failure(error, _NOUN).message)
        try:
            return Answer(
                status=response.status,
                error=_fault(response.status),
                reply=shown(await _beginning(response)),
                retry_after=retry_after(
                    {name.lower(): value for name, value in response.headers.items()},
                    now=time.time(),
                ),
            )
        finally:
            response.close()

    async def looked_up(self, url: str) -> None:
        """Wait until nobody looks up the host of a URL any more to which something was posted.

        A request that is late gives up, the lookup in its thread does not.
        """
        with suppress(InvalidParameter):
            await self._lookup.ended(parse_reference_url(url, allow_hosts=self._allow_hosts).host)

    async def close(self) -> None:
        """Close every connection; what is being sent ends in an error."""
        if self._lazy_session is not None:
            await self._lazy_session.close()
        await self._lookup.close()

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._lazy_session is None:
            self._lazy_session = guarded_session(
                CheckedResolver(self._lookup, self._allow_hosts, noun=_NOUN),
                headers={"Accept-Encoding": "identity"},
                tls=self._tls,
            )
        return self._lazy_session


def shown(body: bytes) -> str | None:
    """Text of somebody else's, on one line, without what a terminal or a database minds."""
    text = " ".join(body.decode("utf-8", "replace").split())
    safe = "".join(letter if letter.isprintable() else "�" for letter in text)
    return safe[:MAX_REPLY_CHARS] or None


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """The first bytes of a body, as far as they come in a moment; the verdict is the status's."""
    found = b""
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(REPLY_SECONDS):
            while len(found) < MAX_REPLY_BYTES:
                chunk = await response.content.read(MAX_REPLY_BYTES - len(found))
                if not chunk:
                    break
                found += chunk
    return found


def _fault(status: int) -> str | None:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return (
            f"The receiver answered with a redirect (HTTP status {status}), which is not "
            "followed; give the URL to which it leads."
        )
    if status == HTTPStatus.GONE:
        return "The receiver wants no more webhooks at this URL (HTTP status 410)."
    return f"The receiver answered with HTTP status {status}."
