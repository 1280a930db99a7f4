"""Additions to uvicorn's HTTP/1.1 protocol, which rest on its internals: its minor is pinned.

* A request that offers an upgrade (stock Java clients and ``curl --http2`` offer h2c) keeps its
  body; httptools stops reading at the offer, and uvicorn goes on without what follows.
* A request that is no HTTP is refused in the contract's shape, with a request id.
* Clients that are too slow, and heads that are too large: ``api/patience.py``.
* ``scope["state"]["hang_up"]`` ends the connection in the middle of an answer, on purpose.
* ``scope["state"]["send_file"]`` sends a file: ``api/sendfile.py``.
* The short way of whole and ready answers: ``api/lane.py``.
"""

from typing import Any, Final

import httptools

from calotype.api.context import header
from calotype.api.patience import Patient
from calotype.domain.errors import CalotypeError, MalformedBody

_CONTINUE: Final = b"100-continue"
_OFFER: Final = {b"connection", b"upgrade", b"http2-settings"}


class Protocol(Patient):
    """To be given to uvicorn as ``http``."""

    def data_received(self, data: bytes) -> None:
        """Feed the parser; an offer to upgrade is taken out, as RFC 9110 (7.8) allows."""
        if self._refused:
            return
        self._idle_since = None
        self._at_once = 0
        if self.is_answered(data):
            return
        self._received += len(data)
        while data:
            data = self._feed(data)
        self.end_of_piece()
        self.check_unfinished()

    def _feed(self, data: bytes) -> bytes:
        """Returns what a new parser is to read instead: the request without its offer, and on."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.scope["method"] == "CONNECT":  # needs no offer to be one
                self.refuse(MalformedBody("This server is no proxy: it takes no CONNECT."))
                return b""
            head = [b"%s %s HTTP/1.1" % (self.scope["method"].encode(), self.url)]
            head += [b"%s: %s" % pair for pair in self.headers if pair[0] not in _OFFER]
            self.parser = httptools.HttpRequestParser(self)
            return b"\r\n".join([*head, b"", data[upgrade.args[0] :]])
        except httptools.HttpParserError as error:
            why = error.__context__  # what a callback raised
            if not isinstance(why, CalotypeError):
                why = MalformedBody("The request is not valid HTTP/1.1.")
            self.refuse(why)
        return b""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; which of them mean something is looked at once all have come."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the request is about to be read again without its offer."""
        self.check_head()
        scope: Any = self.scope  # uvicorn's own type of it is narrower
        self.expect_100_continue = (header(scope, b"expect") or b"").lower() == _CONTINUE
        if self.parser.should_upgrade():
            self.scope["method"] = self.parser.get_method().decode("ascii")
        else:
            self._in_body = True
            self.scope["state"]["hang_up"] = self.transport.close
            super().on_headers_complete()
            self.headers = []  # what comes behind a body is forgotten: it is no header of it

    def on_body(self, body: bytes) -> None:
        """A part of a body came; what is no part of it may not be longer than a head."""
        self._received_before = self._received
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End of a request that is being answered."""
        if not self.parser.should_upgrade():
            self._in_body = False
            self._messages += 1
            self._received_before = self._received
            super().on_message_complete()
