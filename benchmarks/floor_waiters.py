"""The floor of waiting: a server that holds connections and writes a constant to those it wakes.

It speaks as much HTTP as the benchmark needs: ``GET`` is held under the task its path names,
``POST /v1/tasks/{id}/cancel`` wakes those, and whoever follows all tasks.
"""

import asyncio
import resource
import socket
from collections import defaultdict
from typing import ClassVar, cast

import uvloop

DOCUMENT = b'{"state":"fail","padding":"%s"}' % (b"x" * 800)
"""As long as a task's."""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(DOCUMENT), DOCUMENT)
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: still here\n\n"
EVENT = b"id: 1\nevent: task.fail\ndata: %b\n\n" % DOCUMENT


class _Held(asyncio.Protocol):
    groups: ClassVar[defaultdict[str, set["_Held"]]] = defaultdict(set)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._group = ""

    def data_received(self, data: bytes) -> None:
        method, path, _ = data.decode("latin-1").split(" ", 2)
        parts = path.partition("?")[0].split("/")
        self._group = parts[3] if parts[2] == "tasks" else "all"
        if method == "POST":
            self._wake(self._group)
            self._wake("all")
            self._transport.write(ANSWER)
            return
        self._streams = path.endswith("/events")
        if self._streams:
            self._transport.write(STREAM)
        self.groups[self._group].add(self)

    def _wake(self, group: str) -> None:
        for held in self.groups.pop(group, ()):
            held.tell()

    def tell(self) -> None:
        self._transport.write(EVENT if self._streams else ANSWER)

    def connection_lost(self, _error: Exception | None) -> None:
        self.groups[self._group].discard(self)


async def main() -> None:
    """Serve on a free port and print it."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    server = await asyncio.get_running_loop().create_server(_Held, sock=listener)
    print(f"listens on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(main())
