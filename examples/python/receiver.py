"""A receiver of webhooks: WEBHOOK_SECRET=whsec_… receiver.py PORT."""

import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from calotype.client import WebhookVerificationError, verify_webhook

SECRET = os.environ["WEBHOOK_SECRET"]
seen = set[str]()  # in a real receiver: a table


class Hook(BaseHTTPRequestHandler):
    """Takes what is signed, and each message once."""

    def do_POST(self) -> None:
        """Verify the bytes as they came, before anything parses them."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            event = verify_webhook(body, dict(self.headers), SECRET)
        except WebhookVerificationError:
            return self.answer(401)
        if event.id not in seen:
            seen.add(event.id)
            print(
                event.type, event.task.id, *(image.url for image in event.task.result), flush=True
            )
        return self.answer(204)

    def answer(self, status: int) -> None:
        """Answer without a body."""
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing of every request."""


with HTTPServer(("127.0.0.1", int(sys.argv[1])), Hook) as server:
    print(f"http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
