"""No prompt, key or signed URL reaches the log, at the level debug and with every request told."""

import io
import logging
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from calotype.cli import logs
from calotype.cli.logs import OneLine
from harness import Server, picture

MARKED = "marked-secret-prompt"


@pytest.fixture
def told() -> Iterator[io.StringIO]:
    """All that Calotype logs."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLine("json"))
    logger = logging.getLogger("calotype")
    before, access = logger.level, logging.getLogger(logs.ACCESS)
    level = access.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    access.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(before)
    access.setLevel(level)


async def test_the_log_holds_no_secret_of_a_client(server: Server, told: io.StringIO) -> None:
    secrets = [MARKED, server.key]
    task = await server.outcome(f"{MARKED} sandbox:500-before", metadata={"note": MARKED})
    await server.outcome(f"{MARKED} sandbox:malformed")
    await server.outcome(f"{MARKED} sandbox:refuse")
    url = task["result"]["data"][0]["url"]
    secrets.append(urlsplit(url).query)
    await server.call("GET", url)
    await server.submit_form(("image", picture(), f"{MARKED}.png"))
    await server.submit(nonsense=MARKED)
    await server.anonymous("GET", "/v1/tasks", headers={"Authorization": f"Bearer {MARKED}"})
    await server.call("GET", f"/v1/tasks?cursor={MARKED}")

    lines = told.getvalue()
    assert "POST /v1/images/generations 202" in lines
    assert "GET /v1/assets/" in lines
    assert [secret for secret in secrets if secret in lines] == []
