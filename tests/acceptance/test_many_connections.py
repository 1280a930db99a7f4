"""A server takes as many connections as the system lets it, and says so to those beyond."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from acceptance.conftest import Site
from calotype.api.patience import RESERVED_FILES
from harness import Reply

SPARE = 64
"""Files that the tests' own process may open beside those it has, while it starts the server."""
MORE = 72


@contextmanager
def few_files() -> Iterator[int]:
    """While entered, what is started may open only so many files unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(list(Path("/proc/self/fd").iterdir())) + SPARE
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        yield few
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_more_clients_wait_at_once_than_files_may_be_open_by_default(site: Site) -> None:
    await site.fund()
    with few_files() as few:
        server = site.command("serve", "--port", "0")
    await site.eventually(lambda: bool(server.out.read_text()), "the server starts")
    site.url = server.out.read_text().split("listens on ")[1].split()[0]
    task_id = await site.submit("sandbox:delay=4")
    host, _, port = site.url.removeprefix("http://").partition(":")
    head = f"GET /v1/tasks/{task_id}?wait=60&since=99 HTTP/1.1\r\nHost: test\r\n"
    request = f"{head}Authorization: Bearer {site.key}\r\n\r\n".encode()
    async with AsyncExitStack() as stack:
        readers = []
        for _ in range(few + MORE):
            reader, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
            writer.write(request)
            readers.append(reader)
        answers = await asyncio.gather(*(reader.readuntil(b'"success"') for reader in readers))
    assert len(answers) == few + MORE
    assert "Too many open files" not in server.stderr


async def test_whoever_finds_no_room_is_told_so_and_the_others_are_served(site: Site) -> None:
    server = await site.serve()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (RESERVED_FILES + 8, hard))
    host, _, port = site.url.removeprefix("http://").partition(":")
    async with AsyncExitStack() as stack:
        connections = []
        for _ in range(9):  # nobody knows how many the site itself has
            reader, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
            connections.append((reader, writer))
        told = await Reply.read(connections[-1][0])
        assert told.refusal[:2] == (503, "service_unavailable")
        assert told.headers["Retry-After"]
        first, asking = connections[0]
        asking.write(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
        assert (await Reply.read(first)).status == 200
    told_in_log = "connections cut: 1, service_unavailable, the last of 127.0.0.1"
    await site.eventually(lambda: told_in_log in server.stderr, "the log tells of it")
