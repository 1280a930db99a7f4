"""Additions to uvicorn's HTTP/1.1 protocol, which rest on its internals: its minor is pinned.

* A request that offers an upgrade (stock Java clients and ``curl --http2`` offer h2c) keeps its
  body; httptools stops reading at the offer, and uvicorn goes on without what follows.
* A request that is no HTTP is refused in the contract's shape, with a request id.
* ``scope["state"]["hang_up"]`` ends the connection in the middle of an answer, on purpose.
* ``scope["state"]["send_file"]`` sends a file: ``api/sendfile.py``.
* The short way of whole and ready answers: ``api/lane.py``.
"""

import secrets
from typing import Final

import httptools

from calotype.api.lane import Lane
from calotype.api.render import error_answer
from calotype.domain.errors import MalformedBody
from calotype.observing.metrics import REQUESTS

_OFFER: Final = {b"connection", b"upgrade", b"http2-settings"}


class Protocol(Lane):
    """To be given to uvicorn as ``http``."""

    def data_received(self, data: bytes) -> None:
        """Feed the parser; an offer to upgrade is taken out, as RFC 9110 (7.8) allows."""
        self._idle_since = None
        self._at_once = 0
        while data:
            data = self._feed(data)

    def _feed(self, data: bytes) -> bytes:
        """Returns what a new parser is to read instead: the request without its offer, and on."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.scope["method"] == "CONNECT":  # needs no offer to be one
                self.send_400_response("This server is no proxy: it takes no CONNECT.")
                return b""
            head = [b"%s %s HTTP/1.1" % (self.scope["method"].encode(), self.url)]
            head += [b"%s: %s" % pair for pair in self.headers if pair[0] not in _OFFER]
            self.parser = httptools.HttpRequestParser(self)
            return b"\r\n".join([*head, b"", data[upgrade.args[0] :]])
        except httptools.HttpParserError:
            self.send_400_response("The request is not valid HTTP/1.1.")
        return b""

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the request is about to be read again without its offer."""
        if self.parser.should_upgrade():
            self.scope["method"] = self.parser.get_method().decode("ascii")
        else:
            self.scope["state"]["hang_up"] = self.transport.close
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End of a request that is being answered."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed, and close the connection."""
        answer = error_answer(MalformedBody(msg))
        REQUESTS.add("other", "none", str(answer.status))
        head = [
            b"HTTP/1.1 400 Bad Request",
            *(b"%s: %s" % pair for pair in answer.headers),
            b"content-length: %d" % len(answer.body),
            b"x-request-id: req_%s" % secrets.token_hex(12).encode(),
            b"connection: close",
        ]
        self.transport.write(b"\r\n".join([*head, b"", answer.body]))
        self.transport.close()
