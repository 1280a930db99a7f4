"""Stability as its documentation has it: forms, answered with one image inside JSON."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from providers.fakes.base import REFUSALS, WAIT, Fake, Order, Phase, Route, Understood
from providers.fakes.exchange import Call, Reply
from providers.scripts import Script

FILTERED: Final = "image blurred by moderation"
FLAGGED_400: Final = "moderated (400)"
ENDED_BADLY: Final = "ends with an error and an image"
STRANGE_END: Final = "unknown reason for the end"

RATIOS: Final = ("21:9", "16:9", "3:2", "5:4", "1:1", "4:5", "2:3", "9:16", "9:21")
KNOWN: Final = frozenset(
    {"prompt", "aspect_ratio", "negative_prompt", "seed", "output_format", "model"}
)
REASONS: Final = {FILTERED: "CONTENT_FILTERED", ENDED_BADLY: "ERROR", STRANGE_END: "TIRED"}


def problem(
    status: int,
    name: str,
    *errors: str,
    headers: Mapping[str, str] | None = None,
    bought: bool = False,
) -> Reply:
    """An error."""
    document = {"id": "a1b2", "name": name, "errors": list(errors) or ["It broke."]}
    return Reply(status, document, headers=headers or {}, bought=bought)


class Stability(Fake):
    """api.stability.ai."""

    prefix: ClassVar[str] = "/v2beta"
    routes: ClassVar[tuple[Route, ...]] = tuple(
        ("POST", f"/v2beta/stable-image/generate/{engine}", "create")
        for engine in ("ultra", "core", "sd3")
    )
    refusals: ClassVar[Mapping[str, Reply]] = {
        **REFUSALS,
        Script.ERROR_500: problem(500, "internal_error", bought=True),
        Script.ERROR_IN_200: problem(200, "internal_error", bought=True),
        Script.BUSY: problem(429, "rate_limit_exceeded", headers={"Retry-After": f"{WAIT:g}"}),
        Script.BAD_KEY: problem(401, "unauthorized"),
        Script.NO_CREDIT: problem(402, "payment_required"),
        Script.MODEL_GONE: problem(404, "not_found"),
        Script.REJECTED: problem(400, "bad_request", "aspect_ratio: must be one of", "seed: no"),
        Script.MODERATED: problem(403, "content_moderation", "Your request was flagged."),
        FLAGGED_400: problem(400, "content_moderation", "Your request was flagged."),
    }

    def understand(self, call: Call) -> Understood:
        assert call.headers["accept"] == "application/json"
        (dummy,) = [part for part in call.parts if part.filename is not None]
        assert dummy.data == b""
        texts = [part for part in call.parts if part.filename is None]
        fields = {part.name: part.text for part in texts}
        assert len(fields) == len(texts), "a field came twice"
        strange = fields.keys() - KNOWN
        assert not strange, f"the API has no {', '.join(strange)}"
        assert fields.get("aspect_ratio", "1:1") in RATIOS
        assert fields.get("output_format", "png") in {"png", "jpeg", "webp"}
        engine = call.path.rpartition("/")[2]
        model = fields.pop("model", engine)
        assert (model == engine) == (engine != "sd3")
        return Understood(model, fields.pop("prompt"), fields)

    def accepted(self, order: Order) -> Reply:
        document: dict[str, Any] = {
            "finish_reason": REASONS.get(order.script, "SUCCESS"),
            "seed": 343940597,
        }
        if order.script != Script.NO_IMAGE:
            document["image"] = self.image_base64(order)
        return Reply(200, document)

    def told(self, order: Order, phase: Phase) -> Reply:  # noqa: ARG002 -- the base's
        raise AssertionError("there are no jobs to ask about")
