"""fal's queue, its storage and the keys of its callbacks, from the facts (providers.md §5)."""

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from providers.fakes.base import (
    COURSES,
    KEY,
    READ_FAULTS,
    REFUSALS,
    WAIT,
    Fake,
    Order,
    Phase,
    Route,
    Understood,
)
from providers.fakes.exchange import Call, Reply
from providers.scripts import Script

MODERATED_AT_ONCE: Final = "moderated at the send"
FAILED_IN_RESULT: Final = "run failed, told by the result alone"
INVALID_INPUT: Final = "input found invalid by the run"
FOUND_IN_WORDS: Final = "result refused in words"
NEVER_STARTED: Final = "run never started"
RESULT_500: Final = "fault on the result"
RESULT_RETRYABLE: Final = "result not ready to be read"
RESULT_FINAL: Final = "fault on the result, for good"
RESULT_MALFORMED: Final = "unreadable result"
FOREIGN_URLS: Final = "job's URLs on a foreign host"
NO_URLS: Final = "job without URLs"
DATA_URL: Final = "image as a data URL"

UNSIGNED: Final = ("/.well-known/jwks.json", "/uploads/")
"""Paths at which fal wants no key: the keys of callbacks are public, an upload has a signed URL."""


def refused(kind: str, text: str) -> dict[str, Any]:
    """A model's error."""
    return {"detail": [{"loc": ["body", "prompt"], "msg": text, "type": kind, "url": "…"}]}


def broken(kind: str, text: str) -> dict[str, Any]:
    """A request's error."""
    return {"detail": text, "error_type": kind}


RESULTS: Final[Mapping[str, Reply]] = {
    Script.FAILED: Reply(500, broken("runner_server_error", "The runner broke.")),
    Script.MODERATED: Reply(422, refused("content_policy_violation", "It was flagged.")),
    Script.CANCELLED: Reply(499, broken("client_cancelled", "The request was cancelled.")),
    FAILED_IN_RESULT: Reply(422, refused("no_media_generated", "Nothing came of it.")),
    INVALID_INPUT: Reply(422, refused("image_load_error", "The image could not be loaded.")),
    FOUND_IN_WORDS: Reply(400, {"detail": "That is not possible."}),
    NEVER_STARTED: Reply(
        504,
        {"detail": "No runner in time."},
        headers={"X-Fal-Error-Type": "startup_timeout", "X-Fal-Retryable": "false"},
    ),
    RESULT_FINAL: Reply(500, {"detail": "It broke."}, headers={"X-Fal-Retryable": "false"}),
}
"""How the result of a job is answered that did not end well."""
ONCE: Final[Mapping[str, Reply]] = {
    RESULT_500: Reply(502, body=b"<h1>Bad Gateway</h1>", content_type="text/html"),
    RESULT_RETRYABLE: Reply(
        503,
        broken("downstream_service_unavailable", "Try again."),
        headers={"X-Fal-Retryable": "true"},
    ),
    RESULT_MALFORMED: Reply(body=b'{"images": [{"ur'),
}
"""The same, for the first time that it is asked for."""


class Fal(Fake):
    """queue.fal.run, with what else fal has on one host."""

    routes: ClassVar[tuple[Route, ...]] = (
        ("GET", "/.well-known/jwks.json", "jwks"),
        ("POST", "/storage/upload/initiate", "initiate"),
        ("PUT", "/uploads/{name}", "upload"),
        ("POST", "/{owner}/{alias}", "create"),
        ("POST", "/{owner}/{alias}/{sub}", "create"),
        ("GET", "/{owner}/{alias}/requests/{id}/status", "read"),
        ("GET", "/{owner}/{alias}/requests/{id}", "result"),
        ("PUT", "/{owner}/{alias}/requests/{id}/cancel", "cancel"),
    )
    refusals: ClassVar[Mapping[str, Reply]] = {
        **REFUSALS,
        Script.BUSY: Reply(
            429, {"detail": "Concurrency limit"}, headers={"Retry-After": f"{WAIT:g}"}
        ),
        Script.ERROR_503: Reply(503, broken("runner_disconnected", "It went."), bought=True),
        Script.ERROR_IN_200: Reply(200, broken("internal_error", "It broke."), bought=True),
        Script.BAD_KEY: Reply(401, {"detail": "Cannot access application"}),
        Script.NO_CREDIT: Reply(403, {"detail": "User is locked. Reason: Exhausted balance."}),
        Script.MODEL_GONE: Reply(404, {"detail": "Application not found"}),
        Script.REJECTED: Reply(422, refused("value_error", "aspect_ratio: not permitted")),
        MODERATED_AT_ONCE: Reply(422, refused("content_policy_violation", "It was flagged.")),
    }
    read_faults: ClassVar[Mapping[str, Reply]] = {
        **READ_FAULTS,
        Script.READ_MALFORMED: Reply(body=b'{"status": "IN_PRO'),
    }
    courses: ClassVar[Mapping[str, tuple[Phase, ...]]] = {
        **COURSES,
        NEVER_STARTED: (Phase.QUEUED, Phase.DONE),
    }

    def authorised(self, call: Call) -> bool:
        if call.path.startswith(UNSIGNED):
            return "authorization" not in call.headers
        return call.headers.get("authorization") == f"Key {KEY}"

    def understand(self, call: Call) -> Understood:
        fields = dict(call.document)
        assert {name for name, _ in call.query} <= {"fal_webhook"}
        references = tuple(self.fetched(url) for url in fields.pop("image_urls", ()))
        return Understood(call.path[1:], fields.pop("prompt"), fields, references)

    def new_id(self, call: Call) -> str:
        return f"80e732af-660e-45cd-bd63-{super().new_id(call)}"

    def accepted(self, order: Order) -> Reply:
        place = f"{self.url}/{_app(order.call)}/requests/{order.id}"
        if order.script == FOREIGN_URLS:
            place = place.replace(self.url, self.elsewhere)
        document = {"request_id": order.id, "queue_position": 0}
        if order.script != NO_URLS:
            document |= {
                "status_url": f"{place}/status",
                "response_url": place,
                "cancel_url": f"{place}/cancel",
            }
        return Reply(200, document)

    def read(self, call: Call) -> Reply:
        order = self.orders.get(call.params["id"])
        if order is not None and _app(order.call) != _app(call):
            return self.unknown_job()
        return super().read(call)

    def told(self, order: Order, phase: Phase) -> Reply:
        place = f"{self.url}/{_app(order.call)}/requests/{order.id}"
        match phase:
            case Phase.QUEUED:
                return Reply(
                    202, {"status": "IN_QUEUE", "queue_position": 3, "response_url": place}
                )
            case Phase.RUNNING:
                return Reply(202, {"status": "IN_PROGRESS", "response_url": place, "logs": None})
            case Phase.STRANGE:
                return Reply(202, {"status": "IN_LIMBO", "response_url": place})
        ended: dict[str, Any] = {"status": "COMPLETED", "response_url": place, "metrics": {}}
        if phase is Phase.FAILED:
            ended |= {"error": "The runner broke.", "error_type": "runner_server_error"}
        if phase is Phase.CANCELLED:
            ended |= {"error": "The request was cancelled.", "error_type": "client_cancelled"}
        return Reply(200, ended)

    def result(self, call: Call) -> Reply:
        order = self.orders.get(call.params["id"])
        if order is None or _app(order.call) != _app(call):
            return self.unknown_job()
        asked = len([each for each in self.calls if each.path == call.path])
        if order.cancelled:
            return RESULTS[Script.CANCELLED]
        if order.script in RESULTS:
            return RESULTS[order.script]
        if order.script in ONCE and asked == 1:
            return ONCE[order.script]
        url = self.image_url(order)
        if order.script in {DATA_URL, Script.BASE64_CUT}:
            url = f"data:image/png;base64,{self.image_base64(order)}"
        image = {"url": url, "content_type": "image/png", "file_name": None, "width": None}
        images = [] if order.script == Script.NO_IMAGE else [image]
        return Reply(200, {"images": images, "description": ""})

    def cancel(self, call: Call) -> Reply:
        order = self.orders.get(call.params["id"])
        if order is None or _app(order.call) != _app(call):
            return self.unknown_job()
        if order.reads > 1:
            return Reply(400, {"status": "ALREADY_COMPLETED"})
        order.cancelled = True
        return Reply(202, {"status": "CANCELLATION_REQUESTED"})

    def unknown_job(self) -> Reply:
        return Reply(404, {"detail": "Request not found"})

    def initiate(self, call: Call) -> Reply:
        assert call.query == (("storage_type", "gcs"),)
        assert call.document.keys() == {"file_name", "content_type"}
        name = f"{len(self.files)}-{call.document['file_name']}"
        return Reply(
            200,
            {
                "upload_url": f"{self.url}/uploads/{name}?signature=x",
                "file_url": f"https://v3.fal.example/{name}",
            },
        )

    def upload(self, call: Call) -> Reply:
        assert call.headers["content-type"] == "image/png"
        self.keep(call.body, f"https://v3.fal.example/{call.params['name']}")
        return Reply(200, body=b"", content_type="text/plain")

    def jwks(self, call: Call) -> Reply:
        del call
        other = Ed25519PrivateKey.from_private_bytes(bytes(32))
        keys = [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}, _jwk(other), _jwk(_signer())]
        return Reply(200, {"keys": keys})

    def delivery(self, order: Order, *, at: int) -> tuple[dict[str, str], bytes]:
        payload = {"images": [{"url": self.image_url(order)}]}
        body = json.dumps(
            {
                "request_id": order.id,
                "gateway_request_id": order.id,
                "status": "OK",
                "payload": payload,
            }
        ).encode()
        named = [order.id, "user-1", str(at // 1000), hashlib.sha256(body).hexdigest()]
        headers = {
            "content-type": "application/json",
            "x-fal-webhook-request-id": named[0],
            "x-fal-webhook-user-id": named[1],
            "x-fal-webhook-timestamp": named[2],
            "x-fal-webhook-signature": _signer().sign("\n".join(named).encode()).hex(),
        }
        return headers, body


def _app(call: Call) -> str:
    """Owner and alias: jobs are asked about without the model's sub-path."""
    return f"{call.params['owner']}/{call.params['alias']}"


@cache
def _signer() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def _jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    coded = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    return {"kty": "OKP", "crv": "Ed25519", "x": coded, "use": "sig"}
