"""Ideogram as its documentation has it: forms, answered with images by URL."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from providers.fakes.base import KEY, REFUSALS, WAIT, Fake, Order, Phase, Route, Understood
from providers.fakes.exchange import Call, Reply
from providers.scripts import Script

UNSAFE_IMAGE: Final = "image withheld as unsafe"
UNSAFE_NAMED: Final = "unsafe image with a URL"
INVALID: Final = "request rejected (422)"

SIZES: Final = frozenset(
    {
        *("2048x2048", "1440x2880", "2880x1440", "1664x2496", "2496x1664", "1792x2240"),
        *("2240x1792", "1440x2560", "2560x1440", "1600x2560", "2560x1600", "1728x2304"),
        *("2304x1728", "1296x3168", "3168x1296", "1152x2944", "2944x1152", "1248x3328"),
        *("3328x1248", "1280x3072", "3072x1280"),
    }
)
V4: Final = frozenset(
    {"text_prompt", "json_prompt", "resolution", "rendering_speed", "enable_copyright_detection"}
)
V3: Final = frozenset(
    {
        *("prompt", "aspect_ratio", "resolution", "rendering_speed", "magic_prompt"),
        *("negative_prompt", "num_images", "seed", "style_type"),
    }
)


def problem(
    status: int, error: str, headers: Mapping[str, str] | None = None, *, bought: bool = False
) -> Reply:
    """An error: a text, and no code."""
    return Reply(status, {"error": error}, headers=headers or {}, bought=bought)


class Ideogram(Fake):
    """api.ideogram.ai."""

    routes: ClassVar[tuple[Route, ...]] = (
        ("POST", "/v1/ideogram-v4/generate", "create"),
        ("POST", "/v1/ideogram-v3/generate", "create"),
    )
    refusals: ClassVar[Mapping[str, Reply]] = {
        **REFUSALS,
        Script.ERROR_IN_200: problem(200, "Something broke.", bought=True),
        Script.BUSY: problem(429, "Too many requests in flight.", {"Retry-After": f"{WAIT:g}"}),
        Script.BAD_KEY: problem(401, "Invalid API key."),
        Script.MODEL_GONE: problem(404, "Not found."),
        Script.REJECTED: problem(400, "rendering_speed FLASH is not supported."),
        Script.MODERATED: problem(422, "Prompt or provided image failed the safety checks."),
        INVALID: problem(422, "resolution: not one of the allowed values."),
    }

    def authorised(self, call: Call) -> bool:
        return call.headers.get("api-key") == KEY and "authorization" not in call.headers

    def understand(self, call: Call) -> Understood:
        fields = {part.name: part.text for part in call.parts}
        assert len(fields) == len(call.parts), "a field came twice"
        assert all(part.filename is None for part in call.parts)
        fourth = "v4" in call.path
        strange = fields.keys() - (V4 if fourth else V3)
        assert not strange, f"the API has no {', '.join(strange)}"
        prompt = fields.pop("text_prompt" if fourth else "prompt")
        if fourth:
            assert fields.get("resolution", "2048x2048") in SIZES
            assert fields.get("rendering_speed", "DEFAULT") in {"TURBO", "DEFAULT", "QUALITY"}
        return Understood(call.path.split("/")[2], prompt, fields)

    def accepted(self, order: Order) -> Reply:
        form = {part.name: part.text for part in order.call.parts}
        count = 0 if order.script == Script.NO_IMAGE else int(form.get("num_images", 1))
        data = [self._item(order, index) for index in range(count)]
        return Reply(200, {"created": "2026-11-22T00:00:00+00:00", "data": data})

    def told(self, order: Order, phase: Phase) -> Reply:  # noqa: ARG002 -- the base's
        raise AssertionError("there are no jobs to ask about")

    def _item(self, order: Order, index: int) -> dict[str, Any]:
        safe = order.script not in {UNSAFE_IMAGE, UNSAFE_NAMED}
        return {
            "url": "" if order.script == UNSAFE_IMAGE else self.image_url(order, index),
            "prompt": "as it was rewritten",
            "resolution": "2048x2048",
            "seed": 7,
            "is_image_safe": safe,
            "style_type": "GENERAL",
        }
