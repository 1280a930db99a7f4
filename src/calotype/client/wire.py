"""The port on httpx2: once blocking, once in asyncio's loop."""

import asyncio
import contextlib
import os
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx2

from calotype import __version__
from calotype.client.errors import CalotypeError, ConnectionFailed
from calotype.client.requests import Call

T = TypeVar("T")

_CONNECT_SECONDS: Final = 10.0
_LOOPBACK: Final = ("all://localhost", "all://127.0.0.1", "all://[::1]")


class _Speaker:
    """What both wires know: the server and the key."""

    def __init__(self, base_url: str, api_key: str, timeout: float) -> None:
        self._base_url = base_url
        self._timeout = timeout
        self._headers = {"User-Agent": f"calotype/{__version__}"}
        self._authorization = {"Authorization": f"Bearer {api_key}"}

    def _options(self, call: Call) -> dict[str, Any]:
        headers = {**self._headers, **call.headers}
        if call.keyed:
            headers |= self._authorization
        return {
            "method": call.method,
            "url": self._base_url + call.url if call.url.startswith("/") else call.url,
            "params": list(call.query) or None,
            "headers": headers,
            "json": call.document,
            "files": call.form,
            "timeout": httpx2.Timeout(
                call.read_seconds or self._timeout, connect=_CONNECT_SECONDS, pool=None
            ),
        }


class _Reply:
    """The head of an answer."""

    def __init__(self, response: httpx2.Response, call: Call, base_url: str) -> None:
        self._response = response
        self._call = call
        self._base_url = base_url

    @property
    def status(self) -> int:
        return self._response.status_code

    def header(self, name: str) -> str | None:
        return self._response.headers.get(name)


class SyncWire(_Speaker):
    """Blocks."""

    def __init__(
        self, base_url: str, api_key: str, http: httpx2.Client | None, timeout: float
    ) -> None:
        super().__init__(base_url, api_key, timeout)
        self._owns = http is None
        self._http = http or httpx2.Client(mounts=dict.fromkeys(_LOOPBACK), limits=_limits())

    async def send(self, call: Call) -> "SyncReply":
        with _translated(call, self._base_url):
            request = self._http.build_request(**self._options(call))
            response = self._http.send(
                request, auth=_no_auth, stream=True, follow_redirects=not call.keyed
            )
        return SyncReply(response, call, self._base_url)

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 -- this wire blocks

    async def aside(self, work: Callable[[], T]) -> T:
        return work()

    async def close(self) -> None:
        if self._owns:
            self._http.close()


class SyncReply(_Reply):
    """An answer to a blocking request."""

    async def read(self) -> bytes:
        with _translated(self._call, self._base_url):
            return self._response.read()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        with _translated(self._call, self._base_url):
            for chunk in self._response.iter_bytes():
                yield chunk

    async def close(self) -> None:
        self._response.close()


class AsyncWire(_Speaker):
    """Waits in asyncio's loop."""

    def __init__(
        self, base_url: str, api_key: str, http: httpx2.AsyncClient | None, timeout: float
    ) -> None:
        super().__init__(base_url, api_key, timeout)
        self._owns = http is None
        self._http = http or httpx2.AsyncClient(mounts=dict.fromkeys(_LOOPBACK), limits=_limits())

    async def send(self, call: Call) -> "AsyncReply":
        with _translated(call, self._base_url):
            request = self._http.build_request(**self._options(call))
            response = await self._http.send(
                request, auth=_no_auth, stream=True, follow_redirects=not call.keyed
            )
        return AsyncReply(response, call, self._base_url)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def aside(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work)

    async def close(self) -> None:
        if self._owns:
            await self._http.aclose()


class AsyncReply(_Reply):
    """An answer to a request of asyncio's."""

    async def read(self) -> bytes:
        with _translated(self._call, self._base_url):
            return await self._response.aread()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        with _translated(self._call, self._base_url):
            async for chunk in self._response.aiter_bytes():
                yield chunk

    async def close(self) -> None:
        await self._response.aclose()


def _limits() -> httpx2.Limits:
    # No bound on connections: each task that is waited for holds one.
    return httpx2.Limits(max_connections=None, max_keepalive_connections=20)


def _no_auth(request: httpx2.Request) -> httpx2.Request:
    """Keep httpx2 from making a header of its own out of a user name in a URL."""
    return request


@contextlib.contextmanager
def _translated(call: Call, base_url: str) -> Iterator[None]:
    """Tell of httpx2's errors in this client's."""
    split = urlsplit(base_url if call.url.startswith("/") else call.url)
    where = f"{split.scheme}://{split.netloc.rpartition('@')[2]}"  # no signature, no password
    try:
        yield
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
        raise CalotypeError(f"The request cannot be sent to {where}: {error}") from error
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        message = f"There is no server at {where}: {_words(error)}"
        raise ConnectionFailed(message, maybe_received=False) from error
    except httpx2.RequestError as error:
        message = f"{where} broke the connection off: {str(error) or type(error).__name__}"
        raise ConnectionFailed(message) from error


def _words(error: httpx2.ConnectError | httpx2.ConnectTimeout) -> str:
    """Why nobody was reached, in few words: httpx2 keeps what the system said behind its error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            told = (cause.errno or 0) > 0 and not isinstance(cause, ssl.SSLError)
            return os.strerror(cause.errno or 0) if told else cause.strerror
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        else:
            cause = cause.__cause__ or cause.__context__
    return str(error) or "no answer"
