"""OpenRouter as its documentation has it: the Images API, whole or in events, and chats."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from providers.fakes.base import REFUSALS, WAIT, Fake, Order, Phase, Route, Understood
from providers.fakes.exchange import Call, Reply
from providers.scripts import Script

FORBIDDEN: Final = "forbidden without a moderation"
REFUSED: Final = "provider refused"
OVERLOADED: Final = "overloaded (529)"
TIMED_OUT: Final = "request timed out (408)"
EDGE_TIMED_OUT: Final = "edge timed out (524)"
MODERATED_IN_200: Final = "200 with a moderation in it"
STREAM_ERROR: Final = "error after a draft"
STREAM_ENDS: Final = "stream ends after a draft"
IN_CHOICE: Final = "200 with an error in the choice"
FILTERED: Final = "chat filtered"
UNSAFE_IMAGE: Final = "chat's image moderated"
REFUSING: Final = "chat refuses in words"
CHATS: Final = (IN_CHOICE, FILTERED, UNSAFE_IMAGE, REFUSING)
"""Only chats have these."""

COST: Final = 134_350
"""Micro-USD of every image."""
USAGE: Final = {
    "prompt_tokens": 30,
    "completion_tokens": 1120,
    "total_tokens": 1150,
    "cost": 0.1343495,
}
IMAGES: Final = frozenset(
    {
        *("model", "prompt", "aspect_ratio", "resolution", "size", "quality", "background"),
        *("output_format", "output_compression", "n", "input_references", "seed", "stream"),
        *("provider", "user", "session_id", "trace"),
    }
)
RATIOS: Final = frozenset(
    {
        *("1:1", "1:2", "1:4", "1:8", "2:1", "2:3", "2.35:1", "3:2", "3:4", "4:1", "4:3", "4:5"),
        *("5:2", "5:4", "5:7", "7:5", "8:1", "9:16", "16:9", "9:19.5", "19.5:9", "9:20", "20:9"),
        *("9:21", "21:9", "auto"),
    }
)
RESOLUTIONS: Final = frozenset({"512", "768", "1K", "1.5K", "2K", "4K"})
QUALITIES: Final = frozenset({"auto", "low", "medium", "high", "xhigh", "max"})
FLAGGED: Final = {
    "reasons": ["violence"],
    "flagged_input": "a lighthouse…",
    "provider_name": "OpenAI",
    "model_slug": "openai/gpt-image-2",
}


def problem(
    status: int,
    message: str,
    metadata: Mapping[str, Any] | None = None,
    *,
    answered: int | None = None,
    headers: Mapping[str, str] | None = None,
    bought: bool = False,
) -> Reply:
    """An error as OpenRouter writes it; ``answered``: the HTTP status where it differs."""
    error: dict[str, Any] = {"code": status, "message": message}
    if metadata is not None:
        error["metadata"] = dict(metadata)
    return Reply(answered or status, {"error": error}, headers=headers or {}, bought=bought)


class OpenRouter(Fake):
    """openrouter.ai."""

    prefix: ClassVar[str] = "/api/v1"
    routes: ClassVar[tuple[Route, ...]] = (
        ("POST", "/api/v1/images", "create"),
        ("POST", "/api/v1/chat/completions", "create"),
    )
    refusals: ClassVar[Mapping[str, Reply]] = {
        **REFUSALS,
        Script.ERROR_500: problem(500, "Internal Server Error", bought=True),
        Script.ERROR_503: problem(503, "No allowed providers are available."),
        Script.ERROR_IN_200: problem(502, "The provider broke.", answered=200, bought=True),
        Script.BUSY: problem(
            429,
            "Rate limit exceeded.",
            {"error_type": "rate_limit_exceeded"},
            headers={"Retry-After": f"{WAIT:g}"},
        ),
        Script.BAD_KEY: problem(401, "User not found."),
        Script.NO_CREDIT: problem(402, "Insufficient credits."),
        Script.MODEL_GONE: problem(404, "No endpoints found for x/y."),
        Script.REJECTED: problem(400, "size and aspect_ratio differ."),
        Script.MODERATED: problem(403, "Your input was flagged.", FLAGGED),
        FORBIDDEN: problem(403, "Blocked by a guardrail.", {"error_type": "permission_denied"}),
        REFUSED: problem(403, "I will not.", {"error_type": "refusal"}),
        OVERLOADED: problem(529, "Provider overloaded."),
        TIMED_OUT: problem(408, "The request timed out.", bought=True),
        EDGE_TIMED_OUT: problem(524, "Edge timed out.", bought=True),
        MODERATED_IN_200: problem(403, "Flagged.", FLAGGED, answered=200, bought=True),
    }

    def understand(self, call: Call) -> Understood:
        assert call.headers["content-type"] == "application/json"
        sent = dict(call.document)
        if call.path.endswith("/images"):
            images, prompt = sent.pop("input_references", []), sent.pop("prompt")
            self._judge(sent)
        else:
            (message,) = sent.pop("messages")
            assert message["role"] == "user"
            said, *images = message["content"]
            assert said.keys() == {"type", "text"}
            assert said["type"] == "text"
            prompt = said["text"]
            assert sent.keys() <= {"model", "modalities", "image_config"}
            assert "image" in sent["modalities"]
            assert sent.get("image_config", {}).keys() <= {"aspect_ratio", "image_size"}
        for image in images:
            assert image.keys() == {"type", "image_url"}
            assert image["type"] == "image_url"
        urls = [image["image_url"]["url"] for image in images]
        model = sent.pop("model")
        return Understood(model, prompt, sent, tuple(self.fetched(url) for url in urls))

    @staticmethod
    def _judge(sent: Mapping[str, Any]) -> None:
        """Refuse what the documentation does not allow."""
        assert not sent.keys() - IMAGES, f"the API has no {', '.join(sent.keys() - IMAGES)}"
        assert sent.get("aspect_ratio", "auto") in RATIOS
        assert sent.get("resolution", "1K") in RESOLUTIONS
        assert sent.get("quality", "auto") in QUALITIES
        assert sent.get("output_format", "png") in {"png", "jpeg", "webp", "svg"}
        if "size" in sent:
            assert not sent.keys() & {"resolution", "aspect_ratio"}, "said in two ways"

    def accepted(self, order: Order) -> Reply:
        asked = order.call.document
        if order.call.path.endswith("/chat/completions"):
            return self._chat(order)
        if asked.get("stream"):
            return self._events(order)
        data = [{"b64_json": self.image_base64(order), "media_type": "image/png"}]
        if order.script == Script.NO_IMAGE:
            data = []
        return Reply(200, {"created": 1760000000, "data": data, "usage": USAGE})

    def _chat(self, order: Order) -> Reply:
        url = f"data:image/png;base64,{self.image_base64(order)}"
        message: dict[str, Any] = {"role": "assistant", "content": "Here you are."}
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        choice |= {"native_finish_reason": "STOP", "message": message}
        match order.script:
            case Script.NO_IMAGE:
                message["content"] = "I cannot draw that."
            case _ if order.script == IN_CHOICE:
                choice |= {"finish_reason": "error", "error": {"code": 502, "message": "It broke."}}
            case _ if order.script == FILTERED:
                choice |= {"finish_reason": "content_filter", "native_finish_reason": "filtered"}
            case _ if order.script == UNSAFE_IMAGE:
                choice["native_finish_reason"] = "IMAGE_SAFETY"
            case _ if order.script == REFUSING:
                message["refusal"] = "I will not draw that."
            case _:
                message["images"] = [{"type": "image_url", "image_url": {"url": url}}]
        return Reply(200, {"id": order.id, "choices": [choice], "usage": USAGE})

    def _events(self, order: Order) -> Reply:
        events: list[dict[str, Any]] = []
        for index in range(2):
            draft = {"type": "image_generation.partial_image", "partial_image_index": index}
            events.append(draft | {"b64_json": self.image_base64(order, index + 1)})
        if order.script == STREAM_ERROR:
            error = {"message": "It broke.", "type": None, "code": "server_error", "param": None}
            events[1:] = [{"type": "error", "error": error}]
        elif order.script == STREAM_ENDS:
            events[1:] = []
        else:
            last = {"type": "image_generation.completed", "b64_json": self.image_base64(order)}
            events.append(last | {"created": 1760000000, "usage": USAGE})
        lines = [f"data: {json.dumps(event)}\n\n" for event in events]
        body = ": OPENROUTER PROCESSING\n\n" + "".join(lines) + "data: [DONE]\n\n"
        return Reply(body=body.encode(), content_type="text/event-stream")

    def told(self, order: Order, phase: Phase) -> Reply:  # noqa: ARG002 -- the base's
        raise AssertionError("there are no jobs to ask about")
