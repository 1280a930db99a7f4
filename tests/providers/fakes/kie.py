"""kie.ai as its documentation has it: envelopes, records, uploads, signed callbacks."""

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

MAINTENANCE: Final = "maintenance"
NO_ANSWER_UPSTREAM: Final = "its own upstream silent (408)"
NO_ID: Final = "accepted without an id"
NOT_VISIBLE: Final = "record not visible yet"
NOT_FOUND: Final = "record not found yet"
KEY_CHANGED: Final = "key unknown at a question"
RUN_TIMED_OUT: Final = "run timed out (408)"
RUN_BROKE: Final = "run broke (501)"
RUN_REJECTED: Final = "run found the request invalid"
RESULT_EMPTY: Final = "result is an empty text"
RESULT_BROKEN_JSON: Final = "result is broken JSON"

_REFERENCES: Final = ("image_input", "image_urls", "input_urls")


def envelope(
    code: int, said: str = "", data: object = None, *, bought: bool = False, wait: bool = False
) -> Reply:
    """What everything is answered with."""
    headers = {"Retry-After": f"{WAIT:g}"} if wait else {}
    return Reply(200, {"code": code, "msg": said, "data": data}, headers=headers, bought=bought)


class Kie(Fake):
    """api.kie.ai, and the host for uploads."""

    says: Mapping[str, object] = {}
    """Fields of every record that are to be otherwise."""

    routes: ClassVar[tuple[Route, ...]] = (
        ("POST", "/api/v1/jobs/createTask", "create"),
        ("GET", "/api/v1/jobs/recordInfo", "read"),
        ("POST", "/api/file-stream-upload", "upload"),
    )
    refusals: ClassVar[Mapping[str, Reply]] = {
        **REFUSALS,
        Script.BUSY: envelope(429, "The call frequency is too high.", wait=True),
        MAINTENANCE: envelope(455, "The service is under maintenance."),
        Script.ERROR_500: envelope(500, "Server exception.", bought=True),
        NO_ANSWER_UPSTREAM: envelope(408, "No result for over 10 minutes.", bought=True),
        Script.ERROR_IN_200: Reply(200, {"error": "something broke"}, bought=True),
        NO_ID: envelope(200, "success", bought=True),
        Script.BAD_KEY: envelope(401, "You do not have access permissions"),
        Script.NO_CREDIT: envelope(402, "Credits insufficient."),
        Script.MODEL_GONE: envelope(505, "This feature is disabled."),
        Script.REJECTED: envelope(422, "aspect_ratio is not within the range of allowed options"),
    }
    read_faults: ClassVar[Mapping[str, Reply]] = {
        **READ_FAULTS,
        Script.READ_500: envelope(500, "Server exception."),
        Script.READ_BUSY: envelope(429, "The call frequency is too high.", wait=True),
        NOT_VISIBLE: envelope(422, "recordInfo is null"),
        NOT_FOUND: envelope(404, "Not found"),
        KEY_CHANGED: envelope(401, "You do not have access permissions"),
        RUN_TIMED_OUT: envelope(408, "No result for over 10 minutes."),
        RUN_BROKE: envelope(501, "Generation failed."),
    }
    courses: ClassVar[Mapping[str, tuple[Phase, ...]]] = {
        **COURSES,
        RUN_REJECTED: (Phase.RUNNING, Phase.FAILED),
    }

    def understand(self, call: Call) -> Understood:
        sent = dict(call.document)
        fields: dict[str, Any] = dict(sent.pop("input"))
        model = sent.pop("model")
        assert sent.pop("callBackUrl", "https://").startswith("https://")
        assert not sent, f"the API has no {', '.join(sent)}"
        lists = [fields.pop(name) for name in _REFERENCES if name in fields]
        assert len(lists) <= 1
        urls = lists[0] if lists else []
        prompt = fields.pop("prompt")
        return Understood(model, prompt, fields, tuple(self.fetched(url) for url in urls))

    def new_id(self, call: Call) -> str:
        return f"task_{super().new_id(call)}"

    def id_of(self, call: Call) -> str:
        return dict(call.query)["taskId"]

    def accepted(self, order: Order) -> Reply:
        return envelope(200, "success", {"taskId": order.id})

    def told(self, order: Order, phase: Phase) -> Reply:
        record = self._record(order, phase)
        # This call's documentation says `message` where the others say `msg`.
        return Reply(200, {"code": 200, "message": "success", "data": record})

    def unknown_job(self) -> Reply:
        return envelope(422, "recordInfo is null")

    def _record(self, order: Order, phase: Phase) -> dict[str, Any]:
        record: dict[str, Any] = {
            "taskId": order.id,
            "model": (order.call.document or {}).get("model"),
            "state": {
                Phase.QUEUED: "queuing",
                Phase.RUNNING: "generating",
                Phase.STRANGE: "pondering",
                Phase.DONE: "success",
                Phase.FAILED: "fail",
                Phase.MODERATED: "fail",
                Phase.CANCELLED: "fail",
            }[phase],
            "param": json.dumps(order.call.document),
            "resultJson": "",
            "failCode": "",
            "failMsg": "",
            "progress": {Phase.QUEUED: 0, Phase.RUNNING: 40}.get(phase),
            "createTime": 1_760_000_000_000,
            "updateTime": 1_760_000_001_000,
            "completeTime": None,
        }
        if phase is Phase.DONE:
            record["resultJson"] = self._result_json(order)
            record["creditsConsumed"] = 18
            record["costTime"] = 4200
        if phase is Phase.FAILED:
            rejected = order.script == RUN_REJECTED
            record["failCode"] = "422" if rejected else "500"
            record["failMsg"] = "The size is not allowed." if rejected else "Internal Error."
            record["creditsConsumed"] = 0
        if phase is Phase.MODERATED:
            record["failCode"] = "400"
            record["failMsg"] = "Your prompt was flagged by Website as violating content Policies."
        return {**record, **self.says}

    def _result_json(self, order: Order) -> str:
        if order.script == RESULT_EMPTY:
            return ""
        if order.script == RESULT_BROKEN_JSON:
            return '{"resultUrls": ['
        urls = [] if order.script == Script.NO_IMAGE else [self.image_url(order)]
        return json.dumps({"resultUrls": urls})

    def upload(self, call: Call) -> Reply:
        parts = {part.name: part for part in call.parts}
        assert parts.keys() == {"file", "uploadPath", "fileName"}
        assert re.fullmatch(r"image/(png|jpeg|webp)", parts["file"].content_type)
        name, path = parts["fileName"].text, parts["uploadPath"].text
        where = self.keep(parts["file"].data, f"https://tempfile.kie.example/{path}/{name}")
        data = {
            "fileName": name,
            "filePath": f"{path}/{name}",
            "downloadUrl": where,
            "fileSize": len(parts["file"].data),
            "mimeType": parts["file"].content_type,
            "uploadedAt": "2026-11-22T00:00:00.000Z",
        }
        return Reply(200, {"success": True, "code": 200, "msg": "File uploaded", "data": data})

    def delivery(self, order: Order, *, at: int) -> tuple[dict[str, str], bytes]:
        document = {"code": 200, "msg": "done", "data": self._record(order, Phase.DONE)}
        signed = f"{order.id}.{at // 1000}".encode()
        signature = hmac.digest(CALLBACK_SECRET.encode(), signed, hashlib.sha256)
        headers = {
            "content-type": "application/json",
            "x-webhook-timestamp": str(at // 1000),
            "x-webhook-signature": base64.b64encode(signature).decode(),
        }
        return headers, json.dumps(document).encode()
