"""What goes over the wire between an adapter and a fake: a call, and the reply to it."""

import io
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, cached_property
from typing import Any
from urllib.parse import parse_qsl

import multipart
from aiohttp import web


@dataclass(frozen=True)
class Part:
    """One part of a form."""

    name: str
    data: bytes
    filename: str | None = None
    content_type: str = ""

    @property
    def text(self) -> str:
        return self.data.decode()


@dataclass(frozen=True)
class Call:
    """One request, as it came."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    to_upstream: bool
    """False for a call to the other host, where results lie."""
    params: Mapping[str, str] = field(default_factory=dict)
    """What the route's ``{name}`` stood for."""

    @cached_property
    def document(self) -> Any:
        """The body as JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The body as a form, in order; empty when it is none."""
        kind, options = multipart.parse_options_header(self.headers.get("content-type", ""))
        if kind != "multipart/form-data":
            return ()
        parser = multipart.MultipartParser(io.BytesIO(self.body), options["boundary"])
        return tuple(
            Part(part.name, part.raw, part.filename, part.content_type or "") for part in parser
        )

    @property
    def everything(self) -> bytes:
        """All of it, to search for what must not be there."""
        return repr((self.path, self.query, dict(self.headers))).encode() + self.body

    @classmethod
    async def of(cls, request: web.BaseRequest, *, to_upstream: bool) -> "Call":
        return cls(
            method=request.method,
            path=request.path,
            query=tuple(parse_qsl(request.query_string, keep_blank_values=True)),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=await request.content.read(),
            to_upstream=to_upstream,
        )


class Cut(StrEnum):
    """When the connection is dropped."""

    BEFORE = "before a byte of the answer"
    WITHIN = "after half of the body"
    AFTER = "after a whole answer"
    NEVER_ANSWERED = "not at all, and no byte comes"


@dataclass(frozen=True)
class Reply:
    """One answer.

    Args:
        document: the body as JSON, unless ``body`` is given.
        announced: the Content-Length, where it is not that of the body.
        bought: a send answered so may have been taken all the same.

    """

    status: int = 200
    document: Any = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    announced: int | None = None
    cut: Cut | None = None
    bought: bool = False

    @property
    def payload(self) -> bytes:
        return json.dumps(self.document).encode() if self.body is None else self.body

    def raw(self, payload: bytes) -> bytes:
        """The answer byte for byte, with as much of the body as is given."""
        length = len(self.payload) if self.announced is None else self.announced
        lines = [
            f"HTTP/1.1 {self.status} Scripted",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {length}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload

    async def send(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request so."""
        payload, transport = self.payload, request.transport
        response = web.Response(
            status=self.status,
            body=payload,
            headers=self.headers,
            content_type=self.content_type,
        )
        if transport is None:
            return response
        if self.cut is Cut.BEFORE:
            transport.abort()
        elif self.cut is Cut.WITHIN or self.announced is not None:
            transport.write(self.raw(payload[: max(1, len(payload) // 2)]))
            transport.close()
        elif self.cut is Cut.AFTER:
            await response.prepare(request)
            await response.write_eof()
            transport.close()
        return response


@cache
def pattern(path: str) -> re.Pattern[str]:
    """What matches a path in which ``{name}`` stands for one step."""
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))


def bound() -> socket.socket:
    """A socket with a port of its own, on which nobody listens yet."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock
