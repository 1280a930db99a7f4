"""Recraft as its documentation has it: OpenAI's shape, some errors as plain text."""

from collections.abc import Mapping
from typing import ClassVar, Final

from providers.fakes.base import REFUSALS, WAIT, Order, Route
from providers.fakes.exchange import Reply
from providers.fakes.images_api import Fields, ImagesApi, problem
from providers.scripts import Script

CREDITS: Final = 35
SIZES: Final = frozenset(
    {
        *("1024x1024", "1536x768", "768x1536", "1280x832", "832x1280", "1216x896", "896x1216"),
        *("1152x896", "896x1152", "832x1344", "1280x896", "896x1280", "1344x768", "768x1344"),
    }
)


class Recraft(ImagesApi):
    """external.api.recraft.ai."""

    prefix: ClassVar[str] = "/v1"
    routes: ClassVar[tuple[Route, ...]] = (("POST", "/v1/images/generations", "create"),)
    known: ClassVar[frozenset[str]] = frozenset(
        {"model", "prompt", "size", "n", "response_format", "controls"}
    )
    refusals: ClassVar[Mapping[str, Reply]] = {
        **REFUSALS,
        Script.BUSY: problem(429, None, "Too many requests.", headers={"Retry-After": f"{WAIT:g}"}),
        Script.BAD_KEY: Reply(401, body=b"request unauthorized", content_type="text/plain"),
        Script.MODEL_GONE: Reply(404, body=b"404 page not found", content_type="text/plain"),
        Script.REJECTED: Reply(400, {"code": "invalid_request_parameter", "message": "Bad size."}),
    }

    def judge(self, fields: Fields, *, edits: bool) -> None:
        assert not edits
        assert fields["size"] in SIZES
        assert fields["response_format"] in {"url", "b64_json"}

    def accepted(self, order: Order) -> Reply:
        data = [{"image_id": order.id, "url": self.image_url(order)}]
        if order.script == Script.NO_IMAGE:
            data = []
        return Reply(200, {"created": 1760000000, "credits": CREDITS, "data": data})
