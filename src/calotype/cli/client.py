"""A client of a running server, over nothing but its public API.

Sending is safe to repeat: every request carries an idempotency key, so a request whose answer
was lost is sent again and still bought once.
"""

import asyncio
import contextlib
import json
import mimetypes
import os
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import IO, Any, Final, TypeVar
from urllib.parse import urljoin

import aiohttp

from calotype import __version__
from calotype.cli.faults import MISCONFIGURED, CommandFault
from calotype.cli.order import Order

T = TypeVar("T")

PAUSES: Final = (0.2, 0.5, 1.0)
"""Seconds before each further try at what did not get through: three, so four in all."""
LOST_SECONDS: Final = 60.0
"""How long a task is still asked for while the server does not answer, as when it restarts."""
_CONNECT_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 60.0
_CHUNK: Final = 256 * 1024
_OK, _UNAUTHORIZED, _TOO_MANY, _BROKEN = 200, 401, 429, 500

NOT_THROUGH: Final = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError)
"""The request or its answer was lost on the way."""


class Passing(Exception):
    """The server cannot answer right now; ``wait`` is what it asks for, in seconds."""

    def __init__(self, fault: CommandFault, *, wait: float) -> None:
        super().__init__(fault.message)
        self.fault = fault
        self.wait = wait


class Unreached(CommandFault):
    """Nobody can say whether the server got the request."""


class Client:
    """Speaks to one server with one key.

    Args:
        http: sends the requests.
        base_url: the server, without ``/v1``.
        api_key: sent to the API, and to nothing else.
        note: told of what is tried again.
        pauses: seconds before each further try.

    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        base_url: str,
        *,
        api_key: str,
        note: Callable[[str], None],
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self._http = http
        self._base_url = base_url
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._note = note
        self._pauses = pauses

    async def submit(self, order: Order) -> dict[str, Any]:
        """Send an order, again with the same idempotency key when the connection breaks.

        Raises:
            Unreached: the connection broke, each time.
            CommandFault: refused, or there is no server.

        """
        return await self._again(lambda: self._submit_once(order))

    async def task(self, word: str) -> dict[str, Any]:
        """A task as the server shows it.

        Raises:
            Passing: the server cannot tell right now.
            CommandFault: refused.

        """
        url = f"{self._base_url}/v1/tasks/{word}"
        async with self._http.get(url, headers=self._headers) as response:
            document = await _read(response)
            if response.status == _OK:
                return document
            fault = _refusal(response, document)
            if response.status == _TOO_MANY or response.status >= _BROKEN:
                raise Passing(fault, wait=_retry_after(response))
            raise fault

    async def download(self, url: str, target: Path) -> int:
        """Fetch an image into a file, which is there whole or not at all; returns its bytes.

        Raises:
            CommandFault: it cannot be fetched.
            OSError: it cannot be written.

        """
        return await self._again(lambda: self._download_once(url, target))

    async def _submit_once(self, order: Order) -> dict[str, Any]:
        headers = {**self._headers, "Idempotency-Key": order.idempotency_key}
        url = f"{self._base_url}/v1/images/generations"
        with contextlib.ExitStack() as files:
            body = {"data": _form(order, files)} if order.has_files else {"json": order.document()}
            async with self._http.post(url, headers=headers, **body) as response:
                document = await _read(response)
                if response.ok and isinstance(document.get("task_id"), str):
                    return document
                raise _refusal(response, document)

    async def _download_once(self, url: str, target: Path) -> int:
        # The URL is signed; the key is not sent along, it may name another host.
        async with self._http.get(urljoin(f"{self._base_url}/", url)) as response:
            if response.status != _OK:
                raise _refusal(response, await _read(response))
            partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
            try:
                count = 0
                with partial.open("xb") as file:
                    async for chunk in response.content.iter_chunked(_CHUNK):
                        await asyncio.to_thread(file.write, chunk)
                        count += len(chunk)
                partial.rename(target)
            finally:
                partial.unlink(missing_ok=True)
            return count

    async def _again(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        for place, pause in enumerate(self._pauses, start=1):
            try:
                return await work()
            except aiohttp.InvalidURL as error:
                raise CommandFault(f"{error} is no URL.", exit_code=MISCONFIGURED) from None
            except NOT_THROUGH as error:
                self._note(f"{_words(error)}; trying again ({place} of {len(self._pauses)})")
                await asyncio.sleep(pause)
        try:
            return await work()
        except NOT_THROUGH as error:
            raise unreachable(self._base_url, error) from error


@contextlib.asynccontextmanager
async def connect(
    base_url: str,
    *,
    api_key: str,
    note: Callable[[str], None],
    pauses: Sequence[float] = PAUSES,
) -> AsyncIterator[Client]:
    """A client, for as long as it is used."""
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=_CONNECT_SECONDS, sock_read=_ANSWER_SECONDS
    )
    agent = {"User-Agent": f"calotype/{__version__}"}
    async with aiohttp.ClientSession(timeout=timeout, headers=agent) as http:
        yield Client(http, base_url, api_key=api_key, note=note, pauses=pauses)


def unreachable(base_url: str, error: Exception) -> CommandFault:
    """What to tell when no request gets through."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return CommandFault(
            f"There is no server at {base_url} ({_words(error)}); start one with calotype serve, "
            "or name another with --base-url or CALOTYPE_BASE_URL."
        )
    return Unreached(f"{base_url} broke the connection off again and again ({_words(error)}).")


def _form(order: Order, files: contextlib.ExitStack) -> aiohttp.FormData:
    """The order as a form; its files are read as they are sent."""
    form = aiohttp.FormData()
    for name, text in order.texts().items():
        form.add_field(name, text)
    for reference in order.references:
        if isinstance(reference, str):
            form.add_field("image_input", reference)
            continue
        file: IO[bytes] = files.enter_context(reference.open("rb"))
        kind, _ = mimetypes.guess_type(reference.name, strict=False)
        form.add_field(
            "image",
            file,
            filename=reference.name,
            content_type=kind or "application/octet-stream",
        )
    return form


async def _read(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The JSON object of an answer; empty when it holds none, as from a proxy."""
    try:
        document = json.loads(await response.read())
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _refusal(response: aiohttp.ClientResponse, document: dict[str, Any]) -> CommandFault:
    message, code = document.get("message"), document.get("code")
    if not isinstance(message, str) or not isinstance(code, str):
        return CommandFault(
            f"{response.url.origin()} answered {response.status} {response.reason or ''} "
            f"to {response.method} {response.url.path}, not as a Calotype server does; "
            "check --base-url."
        )
    hint = "; calotype keys create makes a key" if response.status == _UNAUTHORIZED else ""
    return CommandFault(f"{message} ({code}{hint})")


def _retry_after(response: aiohttp.ClientResponse) -> float:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else 1.0


def _words(error: Exception) -> str:
    """What the network said, in few words."""
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno or 0
        return os.strerror(number) if number > 0 else error.os_error.strerror or str(error)
    return str(error) or type(error).__name__
