"""Requests that are wrong on purpose: in their document, their form, their head or their bytes.

A case is made from a seed alone, so that it can be made again.
"""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from fuzzing.samples import JSON, Message
from harness import BOUNDARY

MARK: Final = "@here@"
DEEP: Final = 20_000
END_OF_CHUNKS: Final = b"0\r\n\r\n"

VALUES: Final = (
    *(
        b"null",
        b"true",
        b"false",
        b"0",
        b"-1",
        b"-0",
        b"1.0",
        b"1e3",
        b"1e308",
        b"1e999",
        b"-1e999",
    ),
    *(b"9007199254740993", b"9223372036854775808", b"18446744073709551616", b"1" * 400),
    *(b"NaN", b"Infinity", b"0x10", b"01", b"+1", b".5", b"1.", b"1e", b"tru", b"undefined"),
    *(b'""', b'" "', b'"\\u0000"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\uZZZZ"', b'"\\x41"'),
    *(b'"\x00"', b'"\xff\xfe"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\n"'),
    *(b"[]", b"{}", b"[[]]", b"[null]", b'{"":""}', b"[1,]", b'{"a":1,}', b"/**/1", b"'a'", b'"'),
    *(b'"' + b"x" * 70_000 + b'"', b"[" + b"1," * 999 + b"1]", b'["asset://asset_0"]'),
    *(b'["file:///etc/passwd"]', b'"http://[::1%25lo]/"', b'"https://\xc3\xa9.example/"'),
    *(b"[" * DEEP, b"[" * DEEP + b"]" * DEEP, b'{"a":' * DEEP + b"1" + b"}" * DEEP),
)
"""What a JSON document may have in any place: texts, as many of them are no JSON."""
TEXTS: Final = (
    *(b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"-1", b"1e9", b"true", b"[]", b"{}", b'{"a":' * 2000),
    *(b"9" * 400, b"x" * 300_000, b"\r\n", b"--" + BOUNDARY.encode(), b"\xed\xa0\x80", b"%00"),
)
"""What a form's field may hold."""
TARGETS: Final = (
    *("/", "//", "*", "/v1/../v1/models", "/v1/models/%00", "/v1/models/%ff", "/v1/models/..%2f"),
    *("/v1/models/%", "/v1/tasks/%74ask_0", "/v1/tasks/" + "a" * 4000, "/v1/tasks/task_\x7f"),
    *("http://elsewhere.example/v1/models", "/v1/models?" + "a=b&" * 2000, "/v1/models#here"),
    *("/v1/tasks?limit=0x1", "/v1/tasks?limit=1&limit=2", "/v1/tasks?since=99999999999999999999"),
    *(
        "/v1/tasks?cursor=%00",
        "/v1/tasks?cursor=AAAA",
        "/v1/tasks?metadata.=x",
        "/v1/tasks?%ff=%fe",
    ),
    *("/v1/tasks?metadata.%00=%00", "/v1/files?cursor=%F0%9F", "/v1/webhooks/deliveries?state=x"),
    *(
        "/v1/assets/x?expires=1e9&signature=%00",
        "/v1/callbacks/%2e%2e",
        "/v1/models/brands/%00/image",
    ),
)
HEADERS: Final = (
    *("Content-Type: ", "Content-Type: application/json; charset=utf-16", "Content-Type: a/b/c"),
    *("Content-Type: multipart/form-data", "Content-Type: multipart/form-data; boundary="),
    *('Content-Type: multipart/form-data; boundary="a b"', "Content-Type: application/jsonp"),
    *("Content-Type: multipart/form-data; boundary=" + "b" * 5000, "Content-Encoding: gzip"),
    *("Content-Length: 0", "Content-Length: 5", "Content-Length: -1", "Content-Length: 1e3"),
    *(
        "Content-Length: 99999999999",
        "Content-Length: 18446744073709551617",
        "Content-Length: 5, 5",
    ),
    *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: x"),
    *("Transfer-Encoding : chunked", "Transfer-Encoding: chunked\r\n folded", "TE: trailers"),
    *("Connection: close, keep-alive", "Connection: upgrade", "Upgrade: h2c", "Upgrade: websocket"),
    *("HTTP2-Settings: AAMAAABkAAQAoAAA", "Expect: 100-continue", "Expect: the unexpected"),
    *(
        "Host: ",
        "Host: a\r\nHost: b",
        "Host: [::1",
        "Host: \x00",
        "Host: a b",
        "X-\x00: y",
        "no colon",
    ),
    *(": nameless", "X: " + "y" * 70_000, "X-Request-Id: \xe9", "X-Request-Id: " + "i" * 200),
    *("Idempotency-Key: ", "Idempotency-Key: \xe9", "Idempotency-Key: " + "k" * 300),
    *("Idempotency-Key: order-1", "Prefer: wait=0", "Prefer: wait=0, wait", "Prefer: \xff"),
    *(
        "Range: bytes=5-2",
        "Range: bytes=-0",
        "Range: bytes=99999999999999999999-",
        "Range: lines=1",
    ),
    *("If-Range: \xff", "If-None-Match: *", 'If-None-Match: W/"', "Accept: text/event-stream"),
    *("Authorization: Bearer", "Authorization: Bearer \xff", "Authorization: Basic eDp5"),
    *("Cookie: calotype_session=\xff", "Forwarded: for=\x01", "X-Forwarded-Proto: gopher"),
    *("MCP-Protocol-Version: 1", "Last-Event-ID: \xff", "Origin: null", "Content-Type: image/png"),
)
DISPOSITIONS: Final = (
    *(b"", b"form-data", b'form-data; name=""', b"form-data; name", b'form-data; name="prompt'),
    *(b'form-data; name="image"; filename=""', b"form-data; name=\"image\"; filename*=utf-8''%00"),
    *(b'form-data; name="image"; filename="../../x"', b'form-data; name="a"; name="b"'),
    *(b'attachment; name="prompt"', b'form-data; name="\xff"', b'form-data; name="' + b"n" * 9000),
    *(b'form-data; name="image\\"; filename="x"', b'form-data; name="\x00"', b"form-data;;;name=n"),
)
SIZES: Final = (
    *(b"0", b"-1", b"g", b"", b"ffffffffffffffff", b"10000000000000000", b"7fffffff", b"0x5"),
    *(b"5;x=y", b'5;x="' + b"y" * 20_000 + b'"', b" 5", b"5 ", b"5\n", b"00000000000000000005"),
)


class Case(NamedTuple):
    """One conversation's worth of bytes."""

    recipe: str
    pieces: tuple[bytes, ...]


class Mutator:
    """Makes cases from valid requests.

    Args:
        messages: what to begin from.
        seed: the same one makes the same cases.

    """

    def __init__(self, messages: Sequence[Message], *, seed: int) -> None:
        self._messages = messages
        self._random = random.Random(seed)  # noqa: S311 -- to be repeated, not to be secret
        self._ways: Sequence[tuple[str, Callable[[Message], bytes]]] = (
            ("as it is", written),
            ("body", lambda message: written(self._odd_body(message))),
            ("body", lambda message: written(self._odd_body(message))),
            ("body in chunks", lambda message: self._chunked(self._odd_body(message))),
            ("chunks", self._odd_chunks),
            ("head", self._odd_head),
            ("bytes", lambda message: self._damaged(written(message))),
            ("body and bytes", lambda message: self._damaged(written(self._odd_body(message)))),
            ("two in a row", self._two),
        )

    def case(self) -> Case:
        """The next one."""
        message = self._random.choice(self._messages)
        way, make = self._random.choice(self._ways)
        return Case(f"{message.name}: {way}", self._split(make(message)))

    def _split(self, data: bytes) -> tuple[bytes, ...]:
        """In one piece mostly, else in up to six."""
        if self._random.random() < 0.7 or len(data) < 2:
            return (data,)
        places = sorted(self._random.randrange(1, len(data)) for _ in range(5))
        return tuple(data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True))

    # Bodies

    def _odd_body(self, message: Message) -> Message:
        if message.kind == JSON:
            return message._replace(body=self._odd_json(message.body))
        if message.kind == "multipart/form-data":
            return message._replace(body=self._odd_form(message.body))
        return message._replace(body=self._damaged(message.body or b"{}"))

    def _odd_json(self, body: bytes) -> bytes:
        chance = self._random
        document = json.loads(body)
        match chance.randrange(6):
            case 0 | 1 | 2:
                return self._with_odd_value(document)
            case 3:  # a name twice
                name = chance.choice(list(document))
                again = json.dumps({name: document[name]}).encode()[1:-1]
                return b"{" + again + b", " + again.replace(b"a", b"b") + b", " + body[1:]
            case 4:
                return chance.choice(
                    [
                        *(b"\xef\xbb\xbf" + body, body.decode().encode("utf-16"), body + body),
                        *(b"[" + body + b"]", json.dumps(body.decode()).encode(), b" " * 9000),
                        *(body + b"\0", b"//x\n" + body, body.replace(b":", b":\t\n\r ")),
                    ]
                )
        return self._damaged(body)

    def _with_odd_value(self, document: Any) -> bytes:
        """One value in any depth, or one that nobody asked for, is another."""
        chance = self._random
        place = document
        while True:
            names = list(place) if isinstance(place, dict) else range(len(place))
            if not names or chance.random() < 0.1:
                if isinstance(place, dict):
                    place["strange"] = MARK
                else:
                    place.append(MARK)
                break
            name = chance.choice(list(names))
            if not isinstance(place[name], dict | list) or chance.random() < 0.3:
                place[name] = MARK
                break
            place = place[name]
        text = json.dumps(document, ensure_ascii=chance.random() < 0.5).encode()
        return text.replace(json.dumps(MARK).encode(), chance.choice(VALUES), 1)

    def _odd_form(self, body: bytes) -> bytes:
        chance, edge = self._random, f"--{BOUNDARY}".encode()
        parts = body.split(edge + b"\r\n")[1:]
        place = chance.randrange(len(parts))
        head, _, content = parts[place].partition(b"\r\n\r\n")
        match chance.randrange(8):
            case 0:  # another content
                parts[place] = head + b"\r\n\r\n" + chance.choice(TEXTS) + b"\r\n"
                parts[-1] += b"" if place < len(parts) - 1 else edge + b"--\r\n"
            case 1:  # another head
                odd = b"Content-Disposition: " + chance.choice(DISPOSITIONS)
                parts[place] = odd + b"\r\n\r\n" + content
            case 2:  # more of it
                more = b"X: " + b"y" * chance.choice((1, 9000)) + b"\r\n"
                parts[place] = more * chance.choice((1, 20)) + parts[place]
            case 3:  # more parts than there may be, or the same twice
                parts[place:place] = parts[:1] * chance.choice((1, 70))
            case 4:
                chance.shuffle(parts)
            case 5:  # a head that does not end
                parts[place] = head.replace(b"\r\n", b"\n") + chance.choice((b"", b"\r\n", b"\n\n"))
            case 6:
                return self._odd_edges(body, edge)
            case _:
                return self._damaged(body)
        return b"".join(edge + b"\r\n" + part for part in parts)

    def _odd_edges(self, body: bytes, edge: bytes) -> bytes:
        return self._random.choice(
            [
                *(
                    body[: -len(edge)],
                    body.replace(b"\r\n", b"\n"),
                    body + body,
                    b"preamble" + body,
                ),
                *(body.replace(edge, edge + b" "), body.replace(edge, edge[:-1]), body[2:]),
                *(body.replace(edge, edge + b"--", 1), edge + b"--\r\n", edge, b"", edge * 3000),
                body.replace(b"\r\n" + edge, edge),
            ]
        )

    # Framing

    def _odd_head(self, message: Message) -> bytes:
        chance = self._random
        if chance.random() < 0.3:
            message = message._replace(target=chance.choice(TARGETS))
        line, *lines = head_of(message)
        for _ in range(chance.randint(0, 3)):
            odd = chance.choice(HEADERS).encode("latin-1")
            name = odd.partition(b":")[0].strip().lower()
            kept = chance.random() < 0.3
            lines = [each for each in lines if kept or not each.lower().startswith(name + b":")]
            lines.insert(chance.randint(0, len(lines)), odd)
        match chance.randrange(8):
            case 0:
                lines += [b"X-%d: y" % number for number in range(chance.choice((90, 300)))]
            case 1:
                version = chance.choice((b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.1 x", b""))
                line = line.replace(b"HTTP/1.1", version)
            case 2:
                method = chance.choice(
                    (b"PATCH", b"TRACE", b"OPTIONS", b"PRI", b"get", b"M-SEARCH")
                )
                line = method + line[line.index(b" ") :]
        between = b"\r\n" if chance.random() < 0.9 else b"\n"
        return between.join([line, *lines, b"", message.body])

    def _chunked(self, message: Message, sizes: Sequence[bytes] = ()) -> bytes:
        """In chunks, with ``sizes`` in place of some true ones."""
        body = message.body or b"x"
        step = self._random.choice((1, 7, 1000)) if len(body) < 2000 else 4000
        chunks = [body[at : at + step] for at in range(0, len(body), step)]
        told = [b"%x" % len(chunk) for chunk in chunks]
        for size in sizes:
            told[self._random.randrange(len(told))] = size
        framed = zip(told, chunks, strict=True)
        whole = b"".join(size + b"\r\n" + chunk + b"\r\n" for size, chunk in framed)
        line, *lines = head_of(message, b"Transfer-Encoding: chunked")
        return b"\r\n".join([line, *lines, b"", whole + END_OF_CHUNKS])

    def _odd_chunks(self, message: Message) -> bytes:
        whole = self._chunked(message, [self._random.choice(SIZES)])
        trailers = b"0\r\nX: y\r\nContent-Length: 9\r\n\r\n"
        match self._random.randrange(5):
            case 0:
                return whole.removesuffix(END_OF_CHUNKS)
            case 1:
                return whole.removesuffix(END_OF_CHUNKS) + trailers
            case 2:
                return whole.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n", 1)
            case 3:
                return self._damaged(whole)
        return whole

    def _two(self, message: Message) -> bytes:
        """A request in order, and a damaged one behind it, in one piece."""
        other = self._random.choice(self._messages)
        return written(message) + self._damaged(written(other))

    # Bytes

    def _damaged(self, data: bytes) -> bytes:
        """Bits flipped, bytes lost, doubled, or those of another request put in."""
        chance, found = self._random, bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 5))):
            at = chance.randrange(len(found) + 1)
            length = chance.choice((1, 2, 16, 400))
            match chance.randrange(6):
                case 0 if at < len(found):
                    found[at] ^= 1 << chance.randrange(8)
                case 1:
                    del found[at : at + length]
                case 2:
                    found[at:at] = found[at : at + length]
                case 3:
                    other = written(chance.choice(self._messages))
                    start = chance.randrange(len(other))
                    found[at:at] = other[start : start + length]
                case 4:
                    found[at : at + length] = chance.randbytes(length)
                case 5 if chance.random() < 0.3:
                    del found[at:]
        return bytes(found)


def head_of(message: Message, framing: bytes = b"") -> list[bytes]:
    """Request line and headers; with its length unless it is framed otherwise."""
    lines = [f"{message.method} {message.target} HTTP/1.1", "Host: test"]
    lines += [f"{name}: {value}" for name, value in message.headers]
    length = [b"Content-Length: %d" % len(message.body)] if message.body else []
    return [line.encode("latin-1") for line in lines] + ([framing] if framing else length)


def written(message: Message) -> bytes:
    """The request in order."""
    return b"\r\n".join([*head_of(message), b"", message.body])
