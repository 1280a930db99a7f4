"""The Gemini API as its documentation has it: one call, answered with parts in a candidate."""

import base64
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from providers.fakes.base import KEY, REFUSALS, WAIT, Fake, Order, Phase, Route, Understood, image
from providers.fakes.exchange import Call, Reply
from providers.scripts import Script

WRONG_KEY_403: Final = "bad key (403)"
OVERLOADED: Final = "model overloaded (503)"
SPENT: Final = "day's quota spent"
TIMED_OUT: Final = "deadline exceeded (504)"
DRAFTS: Final = "thinks in drafts"
DRAFTS_ONLY: Final = "drafts without an image"
UNSAFE_IMAGE: Final = "image moderated"
NO_IMAGE_MADE: Final = "says NO_IMAGE"
LIMITED: Final = "account limited"
EMPTY: Final = "nothing in the answer"

REASONS: Final = {
    UNSAFE_IMAGE: "IMAGE_SAFETY",
    NO_IMAGE_MADE: "NO_IMAGE",
    LIMITED: "PUP_LIMITED_DISABLED",
}
RATIOS: Final = frozenset({"1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"})
EXTREME: Final = frozenset({"1:4", "4:1", "1:8", "8:1"})
SIZES: Final = frozenset({"1K", "2K", "4K"})
MODELS: Final[Mapping[str, tuple[frozenset[str], frozenset[str]]]] = {
    "gemini-3-pro-image": (RATIOS, SIZES),
    "gemini-nano-banana-2.1": (RATIOS | EXTREME, SIZES),
    "gemini-3.1-flash-image": (RATIOS | EXTREME, SIZES | {"512"}),
    "gemini-3.1-flash-lite-image": (RATIOS | EXTREME, frozenset({"1K"})),
}
"""Model → its ratios and sizes."""

USAGE: Final = {
    "promptTokenCount": 533,
    "candidatesTokenCount": 1130,
    "thoughtsTokenCount": 217,
    "totalTokenCount": 1880,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 533}],
    "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}],
}


def problem(
    status: int, word: str, message: str, *details: Mapping[str, Any], bought: bool = False
) -> Reply:
    """An error as Google writes it."""
    error = {"code": status, "message": message, "status": word, "details": list(details)}
    return Reply(status, {"error": error}, bought=bought)


def detail(kind: str, **fields: Any) -> dict[str, Any]:
    """One of the details of an error."""
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


def quota(name: str) -> dict[str, Any]:
    """The detail that says which quota is used up."""
    return detail("QuotaFailure", violations=[{"quotaId": name, "quotaDimensions": {}}])


WAIT_TOLD: Final = detail("RetryInfo", retryDelay=f"{WAIT:g}s")


class Gemini(Fake):
    """generativelanguage.googleapis.com."""

    routes: ClassVar[tuple[Route, ...]] = (("POST", "/v1beta/models/{model_and_verb}", "create"),)
    refusals: ClassVar[Mapping[str, Reply]] = {
        **REFUSALS,
        Script.ERROR_500: problem(500, "INTERNAL", "An internal error occurred.", bought=True),
        Script.BUSY: problem(
            429,
            "RESOURCE_EXHAUSTED",
            "Please retry.",
            quota("GenerateRequestsPerMinutePerProjectPerModel"),
            WAIT_TOLD,
        ),
        Script.BAD_KEY: problem(
            400,
            "INVALID_ARGUMENT",
            "API key not valid.",
            detail("ErrorInfo", reason="API_KEY_INVALID", domain="googleapis.com"),
        ),
        WRONG_KEY_403: problem(403, "PERMISSION_DENIED", "The caller does not have permission."),
        Script.NO_CREDIT: problem(400, "FAILED_PRECONDITION", "Enable billing."),
        Script.MODEL_GONE: problem(404, "NOT_FOUND", "models/x is not found."),
        Script.REJECTED: problem(400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
        OVERLOADED: problem(503, "UNAVAILABLE", "The model is overloaded. Try again later."),
        SPENT: problem(
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota.",
            quota("GenerateRequestsPerDayPerProjectPerModel"),
            detail("RetryInfo", retryDelay="36s"),
        ),
        TIMED_OUT: problem(504, "DEADLINE_EXCEEDED", "Deadline expired.", bought=True),
        EMPTY: Reply(200, {}, bought=True),
    }

    def authorised(self, call: Call) -> bool:
        return call.headers.get("x-goog-api-key") == KEY and "authorization" not in call.headers

    def understand(self, call: Call) -> Understood:
        model, verb = call.params["model_and_verb"].split(":")
        assert verb == "generateContent"
        assert call.headers["content-type"] == "application/json"
        sent = dict(call.document)
        ((role, parts),) = [(each["role"], each["parts"]) for each in sent.pop("contents")]
        assert role == "user"
        assert not sent.keys() - {"generationConfig", "safetySettings"}
        self._judge(model, sent["generationConfig"])
        (prompt,) = [part["text"] for part in parts if "text" in part]
        inline = [part["inlineData"] for part in parts if "inlineData" in part]
        assert len(inline) == len(parts) - 1 <= 14
        for each in inline:
            assert each["mimeType"] in {"image/png", "image/jpeg", "image/webp"}
        references = tuple(base64.b64decode(each["data"], validate=True) for each in inline)
        return Understood(model, prompt, sent, references)

    @staticmethod
    def _judge(model: str, config: Mapping[str, Any]) -> None:
        """Refuse what the documentation does not allow; there is no ratio ``auto``."""
        assert config.keys() <= {"responseModalities", "imageConfig"}
        assert config["responseModalities"] in (["IMAGE"], ["TEXT", "IMAGE"])
        asked = config.get("imageConfig", {})
        ratios, sizes = MODELS[model]
        assert asked.keys() <= {"aspectRatio", "imageSize"}
        assert asked.get("aspectRatio", "1:1") in ratios
        assert asked.get("imageSize", "1K") in sizes

    def accepted(self, order: Order) -> Reply:
        drawn = self._image(self.image_base64(order)) | {"thoughtSignature": "c2lnbmF0dXJl"}
        draft = self._image(base64.b64encode(image(1)).decode()) | {"thought": True}
        thought = {"text": "First the lamp.", "thought": True}
        words = {"text": "Here you are."}
        if order.script == Script.MODERATED:
            blocked = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
            return Reply(200, blocked | {"usageMetadata": {"promptTokenCount": 533}})
        if order.script in REASONS:
            return self._answer(reason=REASONS[order.script])
        parts = {
            Script.NO_IMAGE: [{"text": "I cannot draw that."}],
            DRAFTS: [thought, draft, words, drawn],
            DRAFTS_ONLY: [thought, draft],
        }
        return self._answer(*parts.get(order.script, [words, drawn]))

    def told(self, order: Order, phase: Phase) -> Reply:  # noqa: ARG002 -- the base's
        raise AssertionError("there are no jobs to ask about")

    @staticmethod
    def _image(data: str) -> dict[str, Any]:
        return {"inlineData": {"mimeType": "image/png", "data": data}}

    @staticmethod
    def _answer(*parts: Mapping[str, Any], reason: str = "STOP") -> Reply:
        candidate: dict[str, Any] = {"finishReason": reason, "index": 0}
        if parts:
            candidate["content"] = {"role": "model", "parts": list(parts)}
        about = {"usageMetadata": USAGE, "modelVersion": "x", "responseId": "y"}
        return Reply(200, {"candidates": [candidate], **about})
