"""Replicate as its documentation has it: predictions, files, signed webhooks."""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from providers.fakes.base import (
    CALLBACK_SECRET,
    COURSES,
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

BUSY_IN_WORDS: Final = "busy, says so in words"
ONE_STRING: Final = "output is one string"
ABORTED: Final = "run aborted before it began"
OUT_OF_MEMORY: Final = "run out of memory"
NO_SUCH_IMAGE: Final = "output removed"


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Reply:
    """An error of the API."""
    document = {"title": "Trouble", "detail": detail, "status": status}
    return Reply(status, document, headers=headers or {})


class Replicate(Fake):
    """api.replicate.com."""

    routes: ClassVar[tuple[Route, ...]] = (
        ("POST", "/v1/predictions", "create"),
        ("POST", "/v1/models/{owner}/{name}/predictions", "create"),
        ("POST", "/v1/deployments/{owner}/{name}/predictions", "create"),
        ("GET", "/v1/predictions/{id}", "read"),
        ("POST", "/v1/predictions/{id}/cancel", "cancel"),
        ("POST", "/v1/files", "upload"),
    )
    refusals: ClassVar[Mapping[str, Reply]] = {
        **REFUSALS,
        Script.BUSY: problem(429, "Request was throttled.", {"Retry-After": f"{WAIT:g}"}),
        BUSY_IN_WORDS: problem(429, "Request was throttled. Your rate limit resets in ~30s."),
        Script.ERROR_IN_200: Reply(201, {"detail": "Something broke.", "status": 500}, bought=True),
        Script.BAD_KEY: problem(401, "You did not pass a valid authentication token"),
        Script.NO_CREDIT: problem(402, "You have insufficient credit to run this model."),
        Script.MODEL_GONE: problem(404, "The requested resource could not be found."),
        Script.REJECTED: problem(422, "- input.aspect_ratio: must be one of the following"),
    }
    read_faults: ClassVar[Mapping[str, Reply]] = {
        **READ_FAULTS,
        Script.READ_500: problem(500, "Internal server error"),
    }
    courses: ClassVar[Mapping[str, tuple[Phase, ...]]] = {
        **COURSES,
        ABORTED: (Phase.CANCELLED,),
        OUT_OF_MEMORY: (Phase.FAILED,),
    }

    def understand(self, call: Call) -> Understood:
        sent = dict(call.document)
        fields: dict[str, Any] = dict(sent.pop("input"))
        if call.params.get("name"):
            model = f"{call.params['owner']}/{call.params['name']}"
            if "/deployments/" in call.path:
                model = f"deployments/{model}"
        else:
            model = sent.pop("version")
        for each in ("webhook", "webhook_events_filter"):
            sent.pop(each, None)
        assert not sent, f"the API has no {', '.join(sent)}"
        urls = [*fields.pop("image_input", ()), *fields.pop("input_images", ())]
        prompt = fields.pop("prompt")
        return Understood(model, prompt, fields, tuple(self.fetched(url) for url in urls))

    def new_id(self, call: Call) -> str:
        return f"ufawqhfynnddngldkgtslldrkq{super().new_id(call)[4:]}"

    def accepted(self, order: Order) -> Reply:
        return Reply(201, self._prediction(order, "starting"))

    def told(self, order: Order, phase: Phase) -> Reply:
        status = {
            Phase.QUEUED: "starting",
            Phase.RUNNING: "processing",
            Phase.STRANGE: "pondering",
            Phase.DONE: "succeeded",
            Phase.FAILED: "failed",
            Phase.MODERATED: "failed",
            Phase.CANCELLED: "aborted" if order.script == ABORTED else "canceled",
        }[phase]
        prediction = self._prediction(order, status)
        if phase is Phase.DONE:
            prediction["output"] = self._output(order)
            prediction["metrics"] = {"predict_time": 4.2}
        if phase is Phase.FAILED:
            memory = order.script == OUT_OF_MEMORY
            prediction["error"] = "E1001: out of memory" if memory else "The model broke."
        if phase is Phase.MODERATED:
            prediction["error"] = "The input or output was flagged as sensitive. (E005)"
        return Reply(200, prediction)

    def _output(self, order: Order) -> Any:
        if order.script == Script.NO_IMAGE:
            return []
        if order.script == NO_SUCH_IMAGE:
            return None
        url = self.image_url(order)
        return url if order.script == ONE_STRING else [url]

    def _prediction(self, order: Order, status: str) -> dict[str, Any]:
        where = f"{self.url}/v1/predictions/{order.id}"
        return {
            "id": order.id,
            "model": "owner/name",
            "version": "hidden",
            "status": status,
            "input": (order.call.document or {}).get("input"),
            "output": None,
            "error": None,
            "logs": "",
            "metrics": {},
            "data_removed": order.script == NO_SUCH_IMAGE,
            "created_at": "2026-11-22T00:00:00.000Z",
            "urls": {"get": where, "cancel": f"{where}/cancel", "web": where},
        }

    def cancel(self, call: Call) -> Reply:
        order = self.orders.get(call.params["id"])
        if order is None:
            return self.unknown_job()
        order.cancelled = True
        return Reply(200, self._prediction(order, "processing"))

    def unknown_job(self) -> Reply:
        return problem(404, "The requested resource could not be found.")

    def upload(self, call: Call) -> Reply:
        (part,) = [part for part in call.parts if part.name == "content"]
        assert part.filename
        assert re.fullmatch(r"image/(png|jpeg|webp)", part.content_type)
        where = self.keep(part.data, f"{self.url}/v1/files/file-{len(self.files) + 1}")
        document = {
            "id": where.rpartition("/")[2],
            "name": part.filename,
            "content_type": part.content_type,
            "size": len(part.data),
            "etag": "a",
            "checksums": {},
            "metadata": {},
            "created_at": "2026-11-22T00:00:00.000Z",
            "urls": {"get": where},
        }
        return Reply(201, document)

    def delivery(self, order: Order, *, at: int) -> tuple[dict[str, str], bytes]:
        body = json.dumps(self._prediction(order, "succeeded")).encode()
        key = base64.b64decode(CALLBACK_SECRET.removeprefix("whsec_"))
        signed = f"msg_1.{at // 1000}.".encode() + body
        signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        headers = {
            "content-type": "application/json",
            "webhook-id": "msg_1",
            "webhook-timestamp": str(at // 1000),
            "webhook-signature": f"v1,{'A' * 43}= v1,{signature}",
        }
        return headers, body
