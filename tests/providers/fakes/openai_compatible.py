"""A server of one's own with OpenAI's Images API: what vLLM-Omni, LocalAI and sd.cpp share."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from providers.fakes.base import REFUSALS, WAIT, Order, Route, image
from providers.fakes.exchange import Call, Reply
from providers.fakes.images_api import Fields, ImagesApi, problem
from providers.scripts import Script

RELATIVE_URL: Final = "image by its path on the server"
OWN_URL: Final = "image by its URL on the server"
DATA_URL: Final = "image in a data URL"
WORDS_ALONE: Final = "error in words alone"

_BY_URL: Final = frozenset(
    {
        *(Script.RESULT_HTML, Script.RESULT_HUGE, Script.RESULT_PRIVATE),
        *(Script.RESULT_REDIRECTED, Script.RESULT_BROKEN),
    }
)


class OpenAICompatible(ImagesApi):
    """A server with a key, and with a proxy's cost header."""

    prefix: ClassVar[str] = "/v1"
    routes: ClassVar[tuple[Route, ...]] = (
        ("POST", "/v1/images/generations", "create"),
        ("POST", "/v1/images/edits", "create"),
        ("GET", "/generated-images/{id}.png", "own_image"),
    )
    known: ClassVar[frozenset[str]] = frozenset({"model", "prompt", "n", "size", "response_format"})
    refusals: ClassVar[Mapping[str, Reply]] = {
        **REFUSALS,
        Script.BUSY: problem(429, None, "Queue full.", headers={"Retry-After": f"{WAIT:g}"}),
        Script.BAD_KEY: Reply(401, {"error": "Unauthorized"}),
        Script.NO_CREDIT: problem(429, "insufficient_quota", "Budget has been exceeded."),
        Script.MODEL_GONE: problem(404, None, "The model does not exist.", kind="NotFoundError"),
        Script.REJECTED: Reply(400, {"detail": "size must be WxH"}),
        Script.MODERATED: problem(400, "content_policy_violation", "Refused further up."),
        WORDS_ALONE: Reply(422, {"detail": [{"loc": ["size"], "msg": "no"}]}),
    }

    def judge(self, fields: Fields, *, edits: bool) -> None:  # noqa: ARG002 -- the family's
        assert fields["response_format"] == "b64_json"
        assert [int(edge) > 0 for edge in fields["size"].split("x")] == [True, True]

    def accepted(self, order: Order) -> Reply:
        document = {"created": 1760000000, "data": [self._item(order)], "size": "64x48"}
        if order.script == Script.NO_IMAGE:
            document["data"] = []
        return Reply(200, document, headers={"x-litellm-response-cost": "0.0421235"})

    def _item(self, order: Order) -> dict[str, Any]:
        where = f"/generated-images/{order.id}.png"
        if order.script == RELATIVE_URL:
            return {"url": where, "b64_json": None}
        if order.script == OWN_URL:
            return {"url": f"{self.url}{where}"}
        if order.script == DATA_URL:
            return {"url": f"data:image/png;base64,{self.image_base64(order)}"}
        if order.script in _BY_URL:
            return {"url": self.image_url(order)}
        return {"b64_json": self.image_base64(order)}

    def own_image(self, call: Call) -> Reply:
        assert call.params["id"] in self.orders
        return Reply(body=image(0), content_type="image/png")
