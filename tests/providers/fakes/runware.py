"""Runware as its documentation has it: lists of tasks, data and errors side by side."""

import re
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from providers.fakes.base import (
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

REFUSED_IN_200: Final = "rejected under 200"
BUSY_IN_200: Final = "busy under 200"
PROVIDER_BROKE: Final = "its own upstream fails at the send"
NO_ACK: Final = "takes the job without a word"
AT_ONCE: Final = "answers at once"
RUN_MODERATED: Final = "run moderated"
FLAGGED: Final = "image flagged as unsafe"
IN_DATA: Final = "failure told among the data"
IN_BASE64: Final = "base64 instead of a URL"

COST: Final = 0.0382
KNOWN: Final = frozenset(
    {
        *("taskType", "taskUUID", "model", "positivePrompt", "negativePrompt", "width", "height"),
        *("resolution", "inputs", "settings", "providerSettings", "seed", "numberResults"),
        *("outputType", "outputFormat", "outputQuality", "deliveryMethod", "includeCost"),
        *("webhookURL", "ttl", "safety", "uploadEndpoint"),
    }
)


def errors(
    status: int,
    code: str,
    message: str = "It broke.",
    *,
    headers: Mapping[str, str] | None = None,
    bought: bool = False,
    **more: str,
) -> Reply:
    """An answer that holds an error."""
    error = {"code": code, "message": message, "documentation": "", **more}
    return Reply(status, {"errors": [error]}, headers=headers or {}, bought=bought)


class Runware(Fake):
    """api.runware.ai."""

    prefix: ClassVar[str] = "/v1"
    routes: ClassVar[tuple[Route, ...]] = (("POST", "/v1", "tasks"),)
    refusals: ClassVar[Mapping[str, Reply]] = {
        **REFUSALS,
        Script.ERROR_500: errors(500, "internalServerError", bought=True),
        Script.ERROR_503: errors(503, "serviceUnavailable", bought=True),
        Script.ERROR_IN_200: errors(200, "somethingNew", bought=True),
        Script.BUSY: errors(429, "rateLimitExceeded", headers={"Retry-After": f"{WAIT:g}"}),
        Script.BAD_KEY: errors(401, "invalidApiKey", parameter="apiKey", taskType="authentication"),
        Script.NO_CREDIT: errors(402, "insufficientCredits"),
        Script.MODEL_GONE: errors(404, "modelNotFound", parameter="model"),
        Script.REJECTED: errors(400, "invalidWidth", "Invalid 'width'.", parameter="width"),
        Script.MODERATED: errors(400, "contentModeration", "The prompt is not allowed."),
        REFUSED_IN_200: errors(200, "invalidWidth", "Invalid 'width'.", parameter="width"),
        BUSY_IN_200: errors(200, "rateLimitExceeded"),
        PROVIDER_BROKE: errors(400, "providerInternalError", bought=True),
    }
    read_faults: ClassVar[Mapping[str, Reply]] = {
        **READ_FAULTS,
        Script.READ_500: errors(500, "internalServerError", taskType="getResponse"),
        Script.READ_BUSY: errors(
            429,
            "rateLimitExceeded",
            headers={"Retry-After": f"{WAIT:g}"},
            taskType="getResponse",
        ),
    }
    courses: ClassVar[Mapping[str, tuple[Phase, ...]]] = {
        **COURSES,
        RUN_MODERATED: COURSES[Script.MODERATED],
        IN_DATA: (Phase.FAILED,),
    }

    def tasks(self, call: Call) -> Reply:
        """What the one route leads to: the type of the task decides."""
        assert isinstance(call.document, list)
        (task,) = call.document
        assert uuid.UUID(task["taskUUID"]).version == 4
        if task["taskType"] == "getResponse":
            assert task.keys() == {"taskType", "taskUUID"}
            return self.read(call)
        assert task["taskType"] == "imageInference"
        if task["taskUUID"] in self.orders:
            return errors(400, "conflictTaskUUID", taskUUID=task["taskUUID"])
        return self.create(call)

    def new_id(self, call: Call) -> str:
        return str(call.document[0]["taskUUID"])

    id_of = new_id

    def understand(self, call: Call) -> Understood:
        fields = dict(call.document[0])
        strange = fields.keys() - KNOWN
        assert not strange, f"the API has no {', '.join(strange)}"
        assert fields.pop("outputType") == "URL"
        assert fields.pop("deliveryMethod") == "async"
        assert fields.pop("includeCost") is True
        assert fields.pop("numberResults") == 1
        del fields["taskType"], fields["taskUUID"]
        images = fields.pop("inputs", {}).get("referenceImages", [])
        for image in images:
            assert re.match(r"https?://|data:image/(png|jpeg|webp);base64,", image)
        references = tuple(self.fetched(image) for image in images)
        model, prompt = fields.pop("model"), fields.pop("positivePrompt")
        return Understood(model, prompt, fields, references)

    def accepted(self, order: Order) -> Reply:
        if order.script == NO_ACK:
            return Reply(200, {"data": []})
        if order.script == AT_ONCE:
            return Reply(200, {"data": [self._item(order)]})
        return Reply(200, {"data": [self._about(order)]})

    def told(self, order: Order, phase: Phase) -> Reply:
        match phase:
            case Phase.QUEUED:
                return Reply(200, {"data": []})
            case Phase.RUNNING:
                return Reply(200, {"data": [self._about(order, status="processing")]})
            case Phase.STRANGE:
                return Reply(200, {"data": [self._about(order, status="pondering")]})
            case Phase.DONE:
                return Reply(200, {"data": [self._item(order)], "errors": []})
            case Phase.FAILED | Phase.MODERATED | Phase.CANCELLED:
                code = {
                    Phase.FAILED: "inferenceError",
                    Phase.MODERATED: "providerContentPolicyViolation",
                    Phase.CANCELLED: "taskCancelled",
                }[phase]
                error = {"code": code, "message": "It ended."}
                if order.script == IN_DATA:
                    return Reply(200, {"data": [self._about(order, status="error", error=error)]})
                return Reply(200, {"data": [], "errors": [self._about(order, **error)]})

    def unknown_job(self) -> Reply:
        return errors(404, "taskNotFound", taskType="getResponse")

    def _item(self, order: Order) -> dict[str, Any]:
        item = self._about(order, status="success", imageUUID="8e9d-1", seed=7, cost=COST)
        if order.script in {IN_BASE64, Script.BASE64_CUT}:
            return {**item, "imageBase64Data": self.image_base64(order)}
        if order.script == FLAGGED:
            return {**item, "NSFWContent": True, "imageURL": self.image_url(order)}
        if order.script != Script.NO_IMAGE:
            item |= {"NSFWContent": False, "imageURL": self.image_url(order)}
        return item

    @staticmethod
    def _about(order: Order, **more: Any) -> dict[str, Any]:
        return {"taskType": "imageInference", "taskUUID": order.id, **more}
