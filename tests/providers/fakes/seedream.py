"""BytePlus ModelArk as its documentation has it: images by URL, references inside the document."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from providers.fakes.base import REFUSALS, WAIT, Order, Route
from providers.fakes.exchange import Call, Reply
from providers.fakes.images_api import Fields, ImagesApi, problem
from providers.scripts import Script

MODERATED_IMAGE: Final = "moderated reference"
MODERATED_RESULT: Final = "image withheld by moderation"
ONE_FAILED: Final = "image failed"
DOTTED: Final = "moderated, code with a suffix"
NOT_OPEN: Final = "model not activated"
IN_BASE64: Final = "base64 instead of a URL"


class Seedream(ImagesApi):
    """ark.ap-southeast.bytepluses.com."""

    prefix: ClassVar[str] = "/api/v3"
    routes: ClassVar[tuple[Route, ...]] = (("POST", "/api/v3/images/generations", "create"),)
    known: ClassVar[frozenset[str]] = frozenset(
        {
            *("model", "prompt", "image", "size", "sequential_image_generation", "watermark"),
            *("sequential_image_generation_options", "response_format", "output_format"),
            *("stream", "optimize_prompt_options"),
        }
    )
    refusals: ClassVar[Mapping[str, Reply]] = {
        **REFUSALS,
        Script.ERROR_500: problem(500, "InternalServiceError", "Internal error.", bought=True),
        Script.BUSY: problem(
            429, "RateLimitExceeded", "Too many requests.", headers={"Retry-After": f"{WAIT:g}"}
        ),
        Script.BAD_KEY: problem(401, "AuthenticationError", "The API key is invalid."),
        Script.NO_CREDIT: problem(403, "AccountOverdueError", "The account is overdue."),
        Script.MODEL_GONE: problem(404, "InvalidEndpointOrModel.NotFound", "No such model."),
        Script.REJECTED: problem(400, "InvalidParameter", "The size is not valid."),
        Script.MODERATED: problem(400, "InputTextSensitiveContentDetected", "Sensitive."),
        MODERATED_IMAGE: problem(400, "InputImageSensitiveContentDetected", "Sensitive."),
        DOTTED: problem(400, "InputTextSensitiveContentDetected.PolicyViolation", "Sensitive."),
        NOT_OPEN: problem(404, "ModelNotOpen", "Activate the model first."),
    }

    def judge(self, fields: Fields, *, edits: bool) -> None:  # noqa: ARG002 -- the family's
        assert fields["watermark"] is False
        assert fields["response_format"] in {"url", "b64_json"}
        assert re.fullmatch(r"\d+x\d+", fields["size"])
        assert fields.get("output_format", "jpeg") in {"jpeg", "png"}

    def _inline(self, call: Call) -> tuple[dict[str, Any], tuple[bytes, ...]]:
        fields = dict(call.document)
        image = fields.pop("image", [])
        images = [image] if isinstance(image, str) else image
        assert len(images) <= 14
        for each in images:
            assert re.match(r"https?://|data:image/(png|jpeg|webp);base64,", each)
        return fields, tuple(self.fetched(each) for each in images)

    def accepted(self, order: Order) -> Reply:
        document = {
            "model": order.call.document["model"],
            "created": 1760000000,
            "data": [self._item(order)],
            "usage": {"generated_images": 1, "output_tokens": 4096, "total_tokens": 4096},
        }
        if order.script == Script.NO_IMAGE:
            document["data"] = []
        return Reply(200, document)

    def _item(self, order: Order) -> dict[str, Any]:
        code = {
            MODERATED_RESULT: "OutputImageSensitiveContentDetected",
            ONE_FAILED: "InternalServiceError",
        }.get(order.script)
        if code is not None:
            return {"error": {"code": code, "message": "No image."}}
        if order.script == IN_BASE64:
            return {"b64_json": self.image_base64(order), "size": "64x48"}
        return {"url": self.image_url(order), "size": "64x48"}
