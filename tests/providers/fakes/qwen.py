"""Model Studio as its documentation has it: a message is answered with messages."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from providers.fakes.base import REFUSALS, WAIT, Fake, Order, Phase, Route, Understood
from providers.fakes.exchange import Call, Reply
from providers.scripts import Script

REFUSED_IN_200: Final = "rejected under 200"
BUSY_IN_200: Final = "busy under 200"
MODERATED_IN_200: Final = "moderated under 200"
NO_MONEY_IN_200: Final = "no credit under 200"
BAD_KEY_IN_200: Final = "bad key under 200"
BROKE: Final = "fault with a code (500)"

NAME: Final = "7574ee8f-38a3-4b1e-9280-11c33ab46e51"


def problem(
    status: int,
    code: str,
    message: str = "It broke.",
    *,
    headers: Mapping[str, str] | None = None,
    bought: bool = False,
) -> Reply:
    """An error, under whatever status."""
    document = {"code": code, "message": message, "request_id": NAME}
    return Reply(status, document, headers=headers or {}, bought=bought)


class Qwen(Fake):
    """dashscope-intl.aliyuncs.com."""

    prefix: ClassVar[str] = "/api/v1"
    routes: ClassVar[tuple[Route, ...]] = (
        ("POST", "/api/v1/services/aigc/multimodal-generation/generation", "create"),
    )
    refusals: ClassVar[Mapping[str, Reply]] = {
        **REFUSALS,
        Script.ERROR_IN_200: problem(200, "InternalError.Algo", bought=True),
        Script.BUSY: problem(
            429, "Throttling.RateQuota", "Slow down.", headers={"Retry-After": f"{WAIT:g}"}
        ),
        Script.BAD_KEY: problem(401, "InvalidApiKey", "Invalid API-key provided."),
        Script.NO_CREDIT: problem(400, "Arrearage", "Access denied, the account is overdue."),
        Script.MODEL_GONE: problem(404, "ModelNotFound", "Model can not be found."),
        Script.REJECTED: problem(400, "InvalidParameter", "size is not valid."),
        Script.MODERATED: problem(400, "DataInspectionFailed", "Inappropriate content."),
        REFUSED_IN_200: problem(200, "InvalidParameter", "size is not valid."),
        BUSY_IN_200: problem(200, "Throttling.AllocationQuota", "Slow down."),
        MODERATED_IN_200: problem(200, "DataInspectionFailed", "Inappropriate content."),
        NO_MONEY_IN_200: problem(200, "Arrearage", "The account is overdue."),
        BAD_KEY_IN_200: problem(200, "InvalidApiKey", "Invalid API-key provided."),
        BROKE: problem(500, "InternalError.Timeout", "It took too long.", bought=True),
    }

    def understand(self, call: Call) -> Understood:
        assert call.headers["content-type"] == "application/json"
        document = dict(call.document)
        fields = dict(document.pop("parameters"))
        model, asked = document.pop("model"), document.pop("input")
        assert not document, f"the API has no {', '.join(document)}"
        (message,) = asked["messages"]
        assert message["role"] == "user"
        *images, text = message["content"]
        assert len(images) <= 3
        assert text.keys() == {"text"}
        for image in images:
            assert image.keys() == {"image"}
            assert re.match(r"https?://|data:image/(png|jpeg|webp);base64,", image["image"])
        strange = fields.keys() - {
            *("size", "n", "negative_prompt", "prompt_extend", "watermark", "seed")
        }
        assert not strange, f"the API has no {', '.join(strange)}"
        width, height = map(int, fields["size"].split("*"))
        assert 512**2 <= width * height <= 2048**2
        assert 1 <= fields["n"] <= 6
        references = tuple(self.fetched(image["image"]) for image in images)
        return Understood(model, text["text"], fields, references)

    def accepted(self, order: Order) -> Reply:
        wanted = order.call.document["parameters"]["n"]
        count = 0 if order.script == Script.NO_IMAGE else wanted
        choices = [self._choice(order, index) for index in range(count)]
        usage = {"image_count": count, "width": 64, "height": 48}
        return Reply(200, {"output": {"choices": choices}, "usage": usage, "request_id": NAME})

    def told(self, order: Order, phase: Phase) -> Reply:  # noqa: ARG002 -- the base's
        raise AssertionError("there are no jobs to ask about")

    def _choice(self, order: Order, index: int) -> dict[str, Any]:
        content = [{"image": self.image_url(order, index)}]
        return {"finish_reason": "stop", "message": {"role": "assistant", "content": content}}
