"""``calotype webhooks listen`` as a process; what it gets is signed by the standard's own code."""

import asyncio
import contextlib
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook

from acceptance.commands import PATIENCE, told
from acceptance.fake_account import SECRET, FakeAccount
from harness import serving

pytestmark = pytest.mark.usefixtures("data")

OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
Message = tuple[bytes, dict[str, str]]
URL = "http://127.0.0.1:8080/v1/assets/a.png?s=s"
DONE: dict[str, Any] = {
    "event": "task.success",
    "task_id": "task_0000000000001",
    "state": "success",
    "progress": 100,
    "result": {"data": [{"url": URL}]},
}
FAILED: dict[str, Any] = {
    "event": "task.fail",
    "task_id": "task_0000000000002",
    "state": "fail",
    "error": {"code": "content_policy_violation", "message": "Refused\x1b[31m."},
}


def signed(document: Any, *, secret: str = SECRET, age: float = 0) -> Message:
    """A webhook as the standard's own package sends it, so many seconds ago."""
    body = json.dumps(document)
    at = datetime.now(UTC) - timedelta(seconds=age)
    headers = {
        "Content-Type": "application/json",
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", at, body),
    }
    return body.encode(), headers


class Listening:
    """The command, and a sender."""

    def __init__(
        self, process: asyncio.subprocess.Process, url: str, http: aiohttp.ClientSession
    ) -> None:
        self._process = process
        self._http = http
        self.url = url
        self.notes: list[str] = []

    async def get(
        self, body: bytes | BytesIO, headers: Mapping[str, str], *, path: str = ""
    ) -> int:
        """The status with which it answers what it gets."""
        async with self._http.post(self.url + path, data=body, headers=headers) as response:
            return response.status

    async def line(self) -> str:
        """What it prints next."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            return (await self._process.stdout.readline()).decode().rstrip("\n")

    async def stop(self, number: signal.Signals) -> int:
        """Its exit code."""
        self._process.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            return await self._process.wait()


@contextlib.asynccontextmanager
async def listening(*options: str, secret: str | None = SECRET) -> AsyncIterator[Listening]:
    """The command, once it listens."""
    chosen = () if secret is None else ("--secret", secret)
    command = ("-m", "calotype", "webhooks", "listen", *chosen, *options)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=pipe, stderr=pipe
    )
    try:
        assert process.stderr is not None
        ready = (await process.stderr.readline()).decode()
        url = re.match(r"Give (http://\S+/) as callback_url", ready)
        assert url, ready + (await process.stderr.read()).decode()
        async with aiohttp.ClientSession() as http:
            opened = Listening(process, url[1], http)
            opened.notes.append((await process.stderr.readline()).decode())
            yield opened
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_good_webhook_is_verified_told_and_answered() -> None:
    async with listening() as receiver:
        assert "CALOTYPE_WEBHOOK_ALLOW_HOSTS" in receiver.notes[0]
        assert "127.0.0.1 has to stand there" in receiver.notes[0]
        assert await receiver.get(*signed(DONE)) == 204
        told_of = await receiver.line()
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ  task\.success  task_0000000000001  success  "
            r"signature ok  (\S+)",
            told_of,
        )
        assert told_of.endswith(URL)
        assert await receiver.get(*signed(FAILED), path="any/path?x=1") == 204
        assert (await receiver.line()).endswith(
            "task.fail  task_0000000000002  fail  signature ok  "
            "Refused\ufffd[31m. (content_policy_violation)"
        )


def changed() -> Message:
    body, headers = signed(DONE)
    return body + b" ", headers


NO_TIME = {"webhook-id": "x", "webhook-timestamp": "x", "webhook-signature": "x"}


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (lambda: signed(DONE, secret=OTHER), "No signature is made with a secret"),
        (changed, "No signature is made with a secret"),
        (lambda: signed(DONE, age=3600), "more than 300 s from now"),
        (lambda: signed(DONE, age=-3600), "more than 300 s from now"),
        (lambda: signed(["no task"]), "tells of no task"),
        (lambda: signed({"event": "task.success"}), "tells of no task"),
        (lambda: (b"\x00\xff{", {"Content-Type": "text/plain"}), "webhook-id is missing"),
        (lambda: (b"", NO_TIME), "no time"),
    ],
    ids=["other secret", "changed", "old", "early", "no object", "no task", "bare", "no time"],
)
async def test_what_is_not_to_be_believed_gets_a_401_and_is_told_with_why(
    message: Callable[[], Message], says: str
) -> None:
    body, headers = message()
    async with listening() as receiver:
        assert await receiver.get(body, headers) == 401
        line = await receiver.line()
        assert says in line
        assert f"refused, {len(body)} bytes to /" in line
        assert await receiver.get(*signed(DONE)) == 204


async def test_garbage_that_is_no_http_leaves_it_listening() -> None:
    async with listening() as receiver:
        host, _, port = receiver.url.removeprefix("http://").rstrip("/").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"\x16\x03\x01 not http\r\n\r\n")
        await reader.read()
        writer.close()
        assert await receiver.get(BytesIO(bytes(4 * 1024 * 1024 + 1)), {}) == 413
        assert await receiver.get(*signed(DONE)) == 204
        assert "signature ok" in await receiver.line()


@pytest.mark.parametrize("status", [200, 410, 503])
async def test_another_answer_can_be_chosen_to_try_the_sender(status: int) -> None:
    async with listening("--status", str(status)) as receiver:
        assert await receiver.get(*signed(DONE)) == status
        assert await receiver.get(*signed(DONE, secret=OTHER)) == 401


async def test_with_json_each_webhook_is_a_line() -> None:
    async with listening("--json") as receiver:
        await receiver.get(*signed(DONE))
        good = json.loads(await receiver.line())
        assert good.pop("received_at") > 1_700_000_000
        assert good == {
            "signature": "ok",
            "webhook_id": "msg_1",
            "answered": 204,
            "body": DONE,
        }
        await receiver.get(*signed(DONE, secret=OTHER))
        bad = json.loads(await receiver.line())
        assert (bad["answered"], bad["body"], bad["webhook_id"]) == (401, None, "msg_1")
        assert "No signature" in bad["signature"]


async def test_good_ones_are_forwarded_as_they_came_and_answered_as_there() -> None:
    got: list[tuple[bytes, str, str]] = []

    async def behind(request: web.Request) -> web.Response:
        body = await request.read()
        Webhook(SECRET).verify(body, dict(request.headers))
        got.append((body, request.path, request.headers["webhook-id"]))
        return web.Response(status=422)

    app = web.Application()
    app.router.add_post("/hook", behind)
    async with serving(app) as url, listening("--forward", f"{url}/hook") as receiver:
        body, headers = signed(DONE)
        assert await receiver.get(body, headers) == 422
        assert "forwarded: 422" in await receiver.line()
        assert await receiver.get(*signed(DONE, secret=OTHER)) == 401
    assert got == [(body, "/hook", "msg_1")]


async def test_when_nobody_is_there_to_forward_to_the_sender_is_to_try_again() -> None:
    async with listening("--forward", "http://127.0.0.1:1/hook") as receiver:
        assert await receiver.get(*signed(DONE)) == 502
        assert "not forwarded: " in await receiver.line()


async def test_the_secrets_of_the_account_are_asked_of_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeAccount()
    fake.settings["secrets"].append({"secret": OTHER, "created_at": 1, "expires_at": 2})
    async with serving(fake.app) as url:
        monkeypatch.setenv("CALOTYPE_BASE_URL", url)
        monkeypatch.setenv("CALOTYPE_API_KEY", "ck_fake")
        async with listening(secret=None) as receiver:
            for secret in (SECRET, OTHER):
                assert await receiver.get(*signed(DONE, secret=secret)) == 204


async def test_a_rotation_while_it_listens_does_not_stop_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeAccount()
    async with serving(fake.app) as url:
        monkeypatch.setenv("CALOTYPE_BASE_URL", url)
        monkeypatch.setenv("CALOTYPE_API_KEY", "ck_fake")
        async with listening(secret=None) as receiver:
            assert await receiver.get(*signed(DONE)) == 204
            fake.settings["secrets"] = [{"secret": OTHER, "created_at": 1, "expires_at": None}]
            assert await receiver.get(*signed(DONE, secret=OTHER)) == 204
            assert await receiver.get(*signed(DONE)) == 401


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_ends_when_it_is_told_to(number: signal.Signals) -> None:
    async with listening() as receiver:
        assert await receiver.stop(number) == 0
        assert await receiver.line() == ""


async def test_what_is_wrong_with_the_command_line_is_told_in_one_line() -> None:
    async with listening() as receiver:
        port = receiver.url.rstrip("/").rpartition(":")[2]
        secret = ("--secret", SECRET)
        for arguments, says in [
            ([], "CALOTYPE_API_KEY"),
            (["--secret", "hunter2"], "whsec_"),
            ([*secret, "--port", port], "cannot be listened on"),
            ([*secret, "--forward", "example.com"], "http://"),
            ([*secret, "--forward", "http://"], "the host"),
            ([*secret, "--forward", "http://:80/hook"], "the host"),
            ([*secret, "--forward", "http://a:port/"], "the host"),
            ([*secret, "--host", "\x1b[2J"], "\ufffd[2J:0 cannot be listened on"),
            ([*secret, "--forward", "http://a.example", "--status", "200"], "--status"),
        ]:
            line = await asyncio.to_thread(told, "webhooks", "listen", *arguments, code=2)
            assert says in line
            assert "hunter2" not in line
