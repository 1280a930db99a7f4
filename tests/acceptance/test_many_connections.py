"""A server takes as many connections as the system lets it, not as many as it lets by default."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

from acceptance.conftest import Site

FEW = 128
CROWD = 200


@contextmanager
def few_files() -> Iterator[None]:
    """While entered, what is started may open only a few files unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_more_clients_wait_at_once_than_files_may_be_open_by_default(site: Site) -> None:
    await site.fund()
    with few_files():
        server = site.command("serve", "--port", "0")
    await site.eventually(lambda: bool(server.out.read_text()), "the server starts")
    site.url = server.out.read_text().split("listens on ")[1].split()[0]
    task_id = await site.submit("sandbox:delay=4")
    host, _, port = site.url.removeprefix("http://").partition(":")
    head = f"GET /v1/tasks/{task_id}?wait=60&since=99 HTTP/1.1\r\nHost: test\r\n"
    request = f"{head}Authorization: Bearer {site.key}\r\n\r\n".encode()
    async with AsyncExitStack() as stack:
        readers = []
        for _ in range(CROWD):
            reader, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
            writer.write(request)
            readers.append(reader)
        answers = await asyncio.gather(*(reader.readuntil(b'"success"') for reader in readers))
    assert len(answers) == CROWD
    assert "Too many open files" not in server.stderr
