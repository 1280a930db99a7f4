"""OpenAI as its documentation has it: images by JSON, form and stream; base64 only."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from providers.fakes.base import REFUSALS, WAIT, Order, Route
from providers.fakes.exchange import Call, Reply
from providers.fakes.images_api import Fields, ImagesApi, problem
from providers.scripts import Script

HARD_LIMIT: Final = "spending limit reached"
UNVERIFIED: Final = "organisation not verified"
OVERLOADED: Final = "times out or conflicts (408, 409)"
BAD_GATEWAY: Final = "gateway page instead of an answer (502)"
STREAM_ERROR: Final = "error after a draft"
STREAM_MODERATED: Final = "moderated after a draft"
STREAM_ENDS: Final = "stream ends after a draft"

USAGE: Final = {
    "input_tokens": 1050,
    "input_tokens_details": {"text_tokens": 50, "image_tokens": 1000},
    "output_tokens": 1767,
    "total_tokens": 2817,
}
COST: Final = 50 * 5 + 1000 * 8 + 1767 * 30
"""Of that, in micro-USD."""


class OpenAI(ImagesApi):
    """api.openai.com."""

    prefix: ClassVar[str] = "/v1"
    routes: ClassVar[tuple[Route, ...]] = (
        ("POST", "/v1/images/generations", "create"),
        ("POST", "/v1/images/edits", "create"),
    )
    known: ClassVar[frozenset[str]] = frozenset(
        {
            *("model", "prompt", "size", "quality", "background", "output_format", "moderation"),
            *("output_compression", "n", "stream", "partial_images", "safety_identifier"),
        }
    )
    refusals: ClassVar[Mapping[str, Reply]] = {
        **REFUSALS,
        Script.ERROR_500: problem(500, None, "The server had an error.", bought=True),
        Script.BUSY: problem(
            429,
            "rate_limit_exceeded",
            "Rate limit reached for images per minute.",
            kind="images",
            headers={"retry-after": f"{WAIT:g}"},
        ),
        Script.BAD_KEY: problem(401, "invalid_api_key", "Incorrect API key provided."),
        Script.NO_CREDIT: problem(
            429, "insufficient_quota", "You exceeded your current quota.", kind="insufficient_quota"
        ),
        Script.MODEL_GONE: problem(404, "model_not_found", "The model does not exist."),
        Script.REJECTED: problem(400, "invalid_value", "Invalid value: 'x'."),
        Script.MODERATED: problem(
            400,
            "moderation_blocked",
            "Your request was rejected by the safety system. safety_violations=[violence].",
            kind="image_generation_user_error",
        ),
        HARD_LIMIT: problem(400, "billing_hard_limit_reached", "Billing hard limit reached."),
        UNVERIFIED: problem(403, None, "Your organization must be verified to use the model."),
        OVERLOADED: problem(409, None, "Conflict.", bought=True),
        BAD_GATEWAY: Reply(502, body=b"<html>Bad gateway", content_type="text/html", bought=True),
    }

    def judge(self, fields: Fields, *, edits: bool) -> None:
        assert not (edits and "moderation" in fields)
        assert fields.get("quality", "auto") in {"low", "medium", "high", "auto", "xhigh", "max"}
        assert fields.get("output_format", "png") in {"png", "jpeg", "webp"}
        if fields.get("background") == "transparent":
            assert fields.get("output_format", "png") in {"png", "webp"}
        size = fields.get("size", "auto")
        if size != "auto":
            width, height = map(int, size.split("x"))
            assert width % 16 == height % 16 == 0
            assert max(width, height) <= 3840
            assert max(width, height) <= 3 * min(width, height)
            assert 655_360 <= width * height <= 8_294_400

    def accepted(self, order: Order) -> Reply:
        asked = self._asked(order.call)
        streamed = str(asked.get("stream", "false")).lower() == "true"
        if streamed and int(asked.get("n", 1)) == 1:
            return self._stream(order, int(asked.get("partial_images", 0)))
        count = 0 if order.script == Script.NO_IMAGE else int(asked.get("n", 1))
        data = [{"b64_json": self.image_base64(order, index)} for index in range(count)]
        return Reply(200, {"created": 1760000000, "data": data, **self._about(), "usage": USAGE})

    def _stream(self, order: Order, drafts: int) -> Reply:
        kind = "image_edit" if order.call.path.endswith("/edits") else "image_generation"
        events: list[dict[str, Any]] = []
        for index in range(drafts):
            draft = {"type": f"{kind}.partial_image", "partial_image_index": index}
            image = self.image_base64(order, index + 1)
            events.append(draft | {"b64_json": image, "created_at": 1760000000, **self._about()})
        if order.script in {STREAM_ERROR, STREAM_MODERATED}:
            code = "moderation_blocked" if order.script == STREAM_MODERATED else "server_error"
            error = {"message": "It broke.", "type": "image_generation", "code": code}
            events[1:] = [{"type": "error", "error": error}]
        elif order.script == STREAM_ENDS:
            events[1:] = []
        else:
            final = {"type": f"{kind}.completed", "b64_json": self.image_base64(order)}
            events.append(final | {"created_at": 1760000000, **self._about(), "usage": USAGE})
        lines = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]
        return Reply(body="".join(lines).encode(), content_type="text/event-stream")

    @staticmethod
    def _asked(call: Call) -> dict[str, Any]:
        if call.parts:
            return {part.name: part.text for part in call.parts if part.filename is None}
        return dict(call.document)

    @staticmethod
    def _about() -> dict[str, str]:
        return {
            "background": "opaque",
            "output_format": "png",
            "quality": "medium",
            "size": "1024x1024",
        }
