"""``calotype webhooks listen``: a receiver on this machine that verifies and prints webhooks."""

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import aiohttp
from aiohttp import web

from calotype.cli import show
from calotype.cli.faults import MISCONFIGURED, CommandFault
from calotype.cli.session import until_told_to_stop
from calotype.client import (
    CalotypeError,
    WebhookEvent,
    WebhookVerificationError,
    verify_webhook,
)

LARGEST_BODY: Final = 4 * 1024 * 1024
"""Bytes."""
_FORWARD_SECONDS: Final = 30.0
_BAD_GATEWAY: Final = 502
_UNAUTHORIZED: Final = 401
ASK_SECONDS: Final = 5.0
"""After so long, at the earliest, the secrets are asked for again; and how long that may take."""
_PASSED_ON: Final = ("content-type", "webhook-id", "webhook-timestamp", "webhook-signature")

Ask = Callable[[], Awaitable[Sequence[str]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reception:
    """How webhooks are received.

    Args:
        secrets: ``whsec_…``; a message signed with one of them is good.
        ask: for the secrets once more, which may have been replaced.
        host: address to listen on.
        port: to listen on; 0 takes a free one.
        status: the answer to a good message; any other gets a 401.
        forward: where good messages are sent on to; its answer is then ours.
        as_json: print a JSON object for each message.

    """

    secrets: Sequence[str]
    ask: "Ask | None"
    host: str
    port: int
    status: int
    forward: str | None
    as_json: bool

    @property
    def shown_host(self) -> str:
        """As it stands in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host


class Secrets:
    """What webhooks are signed with, which may be replaced while we listen.

    Args:
        known: those of the beginning.
        ask: for those of now; None when they stay.
        every: seconds between asking, at least.

    """

    def __init__(
        self, known: Sequence[str], ask: Ask | None, *, every: float = ASK_SECONDS
    ) -> None:
        self._known = known
        self._ask = ask
        self._every = every
        self._asked_at = -math.inf
        self._asking = asyncio.Lock()

    async def verified(self, body: bytes, headers: Mapping[str, str]) -> WebhookEvent:
        """A message, after asking for the secrets again when none fits.

        Raises:
            WebhookVerificationError: it is not signed with one of them, or not just now.

        """
        before = self._known
        try:
            return verify_webhook(body, headers, before)
        except WebhookVerificationError:
            if not await self._renewed(before):
                raise
        return verify_webhook(body, headers, self._known)

    async def _renewed(self, before: Sequence[str]) -> bool:
        """Whether there are others now."""
        if self._ask is None:
            return False
        async with self._asking:
            now = time.monotonic()
            if self._known is before and now - self._asked_at >= self._every:
                self._asked_at = now
                try:
                    async with asyncio.timeout(ASK_SECONDS):
                        self._known = await self._ask() or before
                except (CalotypeError, TimeoutError) as error:
                    why = str(error) or "no answer"
                    show.note(f"The secrets could not be asked for again: {why}")
        return set(self._known) != set(before)


class Receiver:
    """Takes webhooks at any path."""

    def __init__(self, reception: Reception, http: aiohttp.ClientSession) -> None:
        self._secrets = Secrets(reception.secrets, reception.ask)
        self._status = reception.status
        self._forward = reception.forward
        self._as_json = reception.as_json
        self._http = http

    async def take(self, request: web.Request) -> web.Response:
        """Verify, forward, print and answer one message."""
        body = await request.read()
        try:
            event = await self._secrets.verified(body, request.headers)
        except WebhookVerificationError as error:
            self._tell_refused(request, str(error))
            return web.Response(status=_UNAUTHORIZED, text=f"{error}\n")
        status, told = self._status, ""
        if self._forward is not None:
            status, told = await self._passed_on(self._forward, body, request.headers)
        self._tell(event, status=status, told=told)
        return web.Response(status=status)

    async def _passed_on(
        self, url: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, str]:
        """The status of the receiver behind us, and what to tell of it."""
        sent = {name: headers[name] for name in _PASSED_ON if name in headers}
        try:
            async with self._http.post(
                url, data=body, headers=sent, allow_redirects=False
            ) as response:
                return response.status, f"forwarded: {response.status}"
        except (aiohttp.ClientError, TimeoutError) as error:
            return _BAD_GATEWAY, f"not forwarded: {str(error) or type(error).__name__}"

    def _tell(self, event: WebhookEvent, *, status: int, told: str) -> None:
        if self._as_json:
            line = {"signature": "ok", "webhook_id": event.id, "answered": status}
            show.json_line({**_now(), **line, "body": event.raw})
            return
        task = event.task
        image = task.result[0].url if task.result else ""
        error = f"{task.error.message} ({task.error.code})" if task.error else ""
        parts = [event.type, task.id, task.state, "signature ok", told, image or error]
        _print(parts)

    def _tell_refused(self, request: web.Request, why: str) -> None:
        if self._as_json:
            word = request.headers.get("webhook-id")
            line = {"signature": why, "webhook_id": word, "answered": _UNAUTHORIZED}
            show.json_line({**_now(), **line, "body": None})
        else:
            _print([f"refused, {request.content_length or 0} bytes to {request.path}", why])


def _print(parts: Sequence[str]) -> None:
    text = "  ".join(show.plain(part) for part in parts if part)
    print(f"{show.moment(time.time_ns() // 1_000_000)}  {text}", flush=True)


def _now() -> dict[str, Any]:
    return {"received_at": int(time.time())}


def listen(reception: Reception) -> None:
    """Receive until Ctrl-C or SIGTERM.

    Raises:
        CommandFault: the address cannot be listened on, or a secret is none.

    """
    try:
        verify_webhook(b"", {}, reception.secrets)
    except ValueError as error:
        raise CommandFault(f"--secret: {error}", exit_code=MISCONFIGURED) from error
    except WebhookVerificationError:
        pass  # nothing was sent; the secrets are well formed
    logging.getLogger("aiohttp").addHandler(logging.NullHandler())
    asyncio.run(_listen(reception))


async def _listen(reception: Reception) -> None:
    timeout = aiohttp.ClientTimeout(total=_FORWARD_SECONDS)
    async with (
        until_told_to_stop() as stopped,
        aiohttp.ClientSession(timeout=timeout) as http,
        _serving(Receiver(reception, http), reception) as url,
    ):
        show.note(f"Give {url} as callback_url; Ctrl-C ends.")
        show.note(
            "A server sends to private addresses only where CALOTYPE_WEBHOOK_ALLOW_HOSTS "
            f"names them: {reception.host} has to stand there."
        )
        await stopped.wait()


@contextlib.asynccontextmanager
async def _serving(receiver: Receiver, reception: Reception) -> AsyncIterator[str]:
    app = web.Application(client_max_size=LARGEST_BODY)
    app.router.add_post("/{path:.*}", receiver.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, reception.host, reception.port).start()
        except OSError as error:
            raise CommandFault(
                f"{reception.host}:{reception.port} cannot be listened on ({error.strerror}); "
                "choose another with --port, or 0 for a free one.",
                exit_code=MISCONFIGURED,
            ) from error
        yield f"http://{reception.shown_host}:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()
