"""Black Forest Labs' task API, from the facts (providers.md §7)."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from providers.fakes.base import (
    CALLBACK_SECRET,
    COURSES,
    KEY,
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

CONTENT_MODERATED: Final = "moderated after the run"
FOREIGN_URL: Final = "polling_url on a foreign host"
NO_URL: Final = "job without a polling_url"
FORGOTTEN_IN_WORDS: Final = "job forgotten, told by 404"
NO_SAMPLE: Final = "done with an empty result"

COST: Final = 4.55
"""Credits that the fake says it charges."""


class Bfl(Fake):
    """api.bfl.ai."""

    routes: ClassVar[tuple[Route, ...]] = (
        ("GET", "/v1/get_result", "read"),
        ("POST", "/v1/{model}", "create"),
    )
    refusals: ClassVar[Mapping[str, Reply]] = {
        **REFUSALS,
        Script.BUSY: Reply(429, {"detail": "Too many tasks"}, headers={"Retry-After": f"{WAIT:g}"}),
        Script.ERROR_IN_200: Reply(200, {"detail": "Something broke."}, bought=True),
        Script.BAD_KEY: Reply(403, {"detail": "Not authenticated"}),
        Script.NO_CREDIT: Reply(402, {"detail": "Insufficient credits"}),
        Script.MODEL_GONE: Reply(404, {"detail": "Not Found"}),
        Script.REJECTED: Reply(
            422, {"detail": [{"loc": ["body", "width"], "msg": "multiple of 16", "type": "value"}]}
        ),
    }
    read_faults: ClassVar[Mapping[str, Reply]] = {
        **READ_FAULTS,
        Script.READ_MALFORMED: Reply(body=b'{"status": "Pend'),
    }
    courses: ClassVar[Mapping[str, tuple[Phase, ...]]] = {
        **COURSES,
        CONTENT_MODERATED: COURSES[Script.MODERATED],
    }

    def authorised(self, call: Call) -> bool:
        return call.headers.get("x-key") == KEY and "authorization" not in call.headers

    def understand(self, call: Call) -> Understood:
        fields = dict(call.document)
        for name in ("webhook_url", "webhook_secret"):
            fields.pop(name, None)
        names = ["input_image", *(f"input_image_{number}" for number in range(2, 9))]
        given = [fields.pop(name) for name in names if name in fields]
        prompt = fields.pop("prompt")
        references = tuple(self.fetched(each) for each in given)
        return Understood(call.params["model"], prompt, fields, references)

    def id_of(self, call: Call) -> str:
        return dict(call.query)["id"]

    def accepted(self, order: Order) -> Reply:
        document: dict[str, Any] = {"id": order.id, "cost": COST, "input_mp": 0.0, "output_mp": 1.0}
        if webhook := order.call.document.get("webhook_url"):
            document |= {"status": "Pending", "webhook_url": webhook}
        elif order.script != NO_URL:
            host = self.elsewhere if order.script == FOREIGN_URL else self.url
            document["polling_url"] = f"{host}/v1/get_result?id={order.id}"
        return Reply(200, document)

    def told(self, order: Order, phase: Phase) -> Reply:
        status = {
            Phase.STRANGE: "Pondering",
            Phase.DONE: "Ready",
            Phase.FAILED: "Error",
            Phase.MODERATED: "Request Moderated",
        }.get(phase, "Pending")
        if order.script == CONTENT_MODERATED and phase is Phase.MODERATED:
            status = "Content Moderated"
        document: dict[str, Any] = {
            "id": order.id,
            "status": status,
            "result": None,
            "progress": 0.5 if phase is Phase.RUNNING else None,
            "details": None,
        }
        if phase is Phase.DONE:
            document["result"] = self._result_of(order)
        return Reply(200, document)

    def _result_of(self, order: Order) -> dict[str, Any] | None:
        if order.script == Script.NO_IMAGE:
            return None
        if order.script == NO_SAMPLE:
            return {"prompt": "…", "seed": 1}
        return {"sample": self.image_url(order), "prompt": "…", "seed": 1, "duration": 2.5}

    def read(self, call: Call) -> Reply:
        order = self.orders.get(self.id_of(call))
        if order is not None and order.script == FORGOTTEN_IN_WORDS:
            return Reply(404, {"detail": "Task not found"})
        return super().read(call)

    def unknown_job(self) -> Reply:
        return Reply(200, {"id": "…", "status": "Task not found", "result": None})

    def delivery(self, order: Order, *, at: int) -> tuple[dict[str, str], bytes]:
        del at  # nothing in it is dated
        body = json.dumps(
            {"task_id": order.id, "status": "SUCCESS", "result": self._result_of(order)}
        ).encode()
        proof = hmac.digest(CALLBACK_SECRET.encode(), body, hashlib.sha256).hex()
        return {"content-type": "application/json", "x-bfl-signature": f"sha256={proof}"}, body
