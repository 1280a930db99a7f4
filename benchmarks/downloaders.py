"""Downloads one file over N keep-alive connections at once, for a while; run as a process.

Prints one line of JSON. Bare sockets and one large buffer, so that it stays ahead of the servers
it measures.
"""

import select
import socket
import sys
import time

import msgspec

BUFFER = 1024 * 1024


class Downloads(msgspec.Struct):
    """What a run came to."""

    finished: int = 0
    received: int = 0
    """Bytes, of those that did not finish too."""
    bad: int = 0
    """Answers with a status other than 200, and connections that broke."""
    seconds: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0


class _Connection:
    """One connection, with one download in flight."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self.socket = socket.create_connection(address)
        self._request = request
        self._left = 0
        self.begin()

    def begin(self) -> None:
        self._head = bytearray()
        self.began = time.perf_counter()
        self.socket.sendall(self._request)

    def take(self, data: memoryview) -> bool:
        """Whether that was the end of the answer."""
        if not data:
            raise ConnectionError("closed")
        if self._left:
            self._left -= len(data)
            return not self._left
        self._head += data
        head, end, body = bytes(self._head).partition(b"\r\n\r\n")
        if not end:
            return False
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(head[:40].decode())
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        self._left = length - len(body)
        return not self._left


def download(port: int, path: str, *, connections: int, seconds: float) -> Downloads:
    """Download until the time is over."""
    result, times = Downloads(), list[float]()
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    poll, opened = select.epoll(), dict[int, _Connection]()
    for _ in range(connections):
        connection = _Connection(("127.0.0.1", port), request)
        opened[connection.socket.fileno()] = connection
        poll.register(connection.socket, select.EPOLLIN)
    buffer = memoryview(bytearray(BUFFER))
    began = time.perf_counter()
    until = began + seconds
    while opened and (now := time.perf_counter()) < until:
        for number, _ in poll.poll(until - now):
            connection = opened[number]
            try:
                size = connection.socket.recv_into(buffer)
                result.received += size
                if connection.take(buffer[:size]):
                    times.append(time.perf_counter() - connection.began)
                    connection.begin()
            except ConnectionError:
                result.bad += 1
                poll.unregister(number)
                opened.pop(number).socket.close()
    result.seconds = time.perf_counter() - began
    result.finished = len(times)
    if times:
        times.sort()
        result.p50_ms = times[len(times) // 2] * 1000
        result.p99_ms = times[int(len(times) * 0.99)] * 1000
    return result


def main() -> None:
    """Download as the command line says: port, path, connections, seconds."""
    port, path, connections, seconds = sys.argv[1:]
    result = download(int(port), path, connections=int(connections), seconds=float(seconds))
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


if __name__ == "__main__":
    main()
