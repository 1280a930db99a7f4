"""The Xenodia API as its documentation has it: the task form, and the older answer at once."""

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
    image,
)
from providers.fakes.exchange import Call, Reply
from providers.scripts import Script

AT_ONCE: Final = "image at once (old servers)"
AT_ONCE_EMPTY: Final = "answered at once without an image"
RELATIVE: Final = "result by a relative URL"
OTHER_REQUEST: Final = "key was used for another request"
OLD_FAILURE: Final = "failed at once (502)"
UPSTREAM_REJECTED: Final = "its own upstream refused"
NO_CHANNEL: Final = "no channel left there"
UNKNOWN_FAILURE: Final = "failed by an unknown code"
SHOUTED_STATE: Final = "state in capitals"
KEY_CHANGED: Final = "key unknown at a question"

COST: Final = 60_000
_TEXT: Final = ("model", "prompt", "n", "response_format", "async")
_FAILURES: Final[Mapping[str, tuple[str, str]]] = {
    Script.FAILED: ("upstream_failed", "The upstream failed at it."),
    Script.MODERATED: ("content_policy_violation", "The prompt breaks a rule."),
    Script.CANCELLED: ("cancelled", "It was cancelled."),
    UPSTREAM_REJECTED: ("upstream_rejected", "The upstream refused the request."),
    NO_CHANNEL: ("no_channel_available", "No channel takes this request now."),
    UNKNOWN_FAILURE: ("flux_capacitor_empty", "Great Scott."),
}


def problem(
    status: int,
    code: str,
    message: str,
    *,
    headers: Mapping[str, str] | None = None,
    bought: bool = False,
) -> Reply:
    """An error of the API."""
    document = {"error": "trouble", "message": message, "type": "some_error", "code": code}
    return Reply(status, document, headers=headers or {}, bought=bought)


class Xenodia(Fake):
    """api.xenodia.xyz, old and new, with a cancel that is not documented yet."""

    routes: ClassVar[tuple[Route, ...]] = (
        ("POST", "/v1/images/generations", "create"),
        ("GET", "/v1/tasks/{id}", "read"),
        ("POST", "/v1/tasks/{id}/cancel", "cancel"),
        ("GET", "/v1/assets/{id}.png", "asset"),
    )
    refusals: ClassVar[Mapping[str, Reply]] = {
        **REFUSALS,
        Script.BUSY: problem(
            429, "rate_limited", "Too many requests.", headers={"Retry-After": f"{WAIT:g}"}
        ),
        Script.ERROR_503: problem(503, "service_unavailable", "No database.", bought=True),
        OLD_FAILURE: problem(502, "generation_failed", "The generation failed.", bought=True),
        OTHER_REQUEST: problem(409, "idempotency_conflict", "Used before.", bought=True),
        AT_ONCE_EMPTY: Reply(200, {"created": 1_760_000_000, "data": []}, bought=True),
        Script.BAD_KEY: problem(401, "invalid_api_key", "The API key is unknown."),
        Script.NO_CREDIT: problem(402, "insufficient_balance", "The balance is too low."),
        Script.MODEL_GONE: problem(400, "unknown_model", "There is no such model."),
        Script.REJECTED: problem(400, "invalid_parameter", "resolution must be 1K, 2K or 4K."),
        Script.MODERATED: problem(400, "content_policy_violation", "The prompt breaks a rule."),
    }
    read_faults: ClassVar[Mapping[str, Reply]] = {
        **READ_FAULTS,
        Script.READ_500: problem(500, "internal_error", "Something broke."),
        KEY_CHANGED: problem(401, "invalid_api_key", "The API key is unknown."),
    }
    courses: ClassVar[Mapping[str, tuple[Phase, ...]]] = {
        **COURSES,
        UPSTREAM_REJECTED: (Phase.RUNNING, Phase.FAILED),
        NO_CHANNEL: (Phase.QUEUED, Phase.FAILED),
        UNKNOWN_FAILURE: (Phase.RUNNING, Phase.FAILED),
    }

    def authorised(self, call: Call) -> bool:
        if call.path.startswith("/v1/assets/"):  # signed URLs: no key belongs there
            return "authorization" not in call.headers
        return super().authorised(call)

    def understand(self, call: Call) -> Understood:
        if call.parts:
            return self._understand_form(call)
        fields = dict(call.document)
        urls = fields.pop("image_input", [])
        return self._understood(fields, tuple(self.fetched(url) for url in urls))

    def _understand_form(self, call: Call) -> Understood:
        fields: dict[str, Any] = {}
        references: list[bytes] = []
        for part in call.parts:
            if part.name == "image":
                assert part.filename
                references.append(part.data)
            elif part.name == "image_input":
                references.append(self.fetched(part.text))
            else:
                assert part.name not in fields
                fields[part.name] = part.text
        fields["n"] = int(fields["n"])
        fields["async"] = {"true": True, "false": False}[fields["async"]]
        return self._understood(fields, tuple(references))

    def _understood(self, fields: dict[str, Any], references: tuple[bytes, ...]) -> Understood:
        model, prompt, n, form, later = (fields.pop(name) for name in _TEXT)
        assert (n, form, later) == (1, "url", True)
        return Understood(model, prompt, fields, references)

    def accepted(self, order: Order) -> Reply:
        if order.script == AT_ONCE:
            return Reply(200, {"created": 1_760_000_000, "data": [{"url": self.image_url(order)}]})
        where = f"/v1/tasks/{order.id}"
        document = {
            "task_id": order.id,
            "object": "task",
            "model": "some-model",
            "type": "image",
            "state": "waiting",
            "created_at": 1_760_000_000,
            "poll_url": where,
            "recommended_poll_interval_ms": 1500,
            "eta_hint_seconds": 30,
        }
        return Reply(202, document, headers={"Location": where})

    def told(self, order: Order, phase: Phase) -> Reply:
        state, progress = {
            Phase.QUEUED: ("queuing", 0),
            Phase.RUNNING: ("generating", 40),
            Phase.STRANGE: ("pondering", 41),
            Phase.DONE: ("success", 100),
            Phase.FAILED: ("fail", 40),
            Phase.MODERATED: ("fail", 40),
            Phase.CANCELLED: ("fail", 0),
        }[phase]
        final = state in {"success", "fail"}
        actual = COST if phase is Phase.DONE else 0
        document = {
            "task_id": order.id,
            "request_id": "req_1",
            "model": "some-model",
            "type": "image",
            "state": state.upper() if order.script == SHOUTED_STATE else state,
            "progress": progress,
            "request": {"prompt": "…"},
            "result": {"created": 1_760_000_001, "data": self._data(order)}
            if phase is Phase.DONE
            else {},
            "error": self._error(order) if state == "fail" else {},
            "billing": {
                "status": "reserved" if not final else "committed" if actual else "released",
                "reserve_amount_micro_usdc": COST,
                "actual_amount_micro_usdc": actual,
                "released_amount_micro_usdc": COST - actual if final else 0,
            },
            "created_at": 1_760_000_000,
            "updated_at": 1_760_000_001,
        }
        if not final:
            document["recommended_poll_interval_ms"] = 1500
        return Reply(200, document)

    def _data(self, order: Order) -> list[dict[str, str]]:
        if order.script == Script.NO_IMAGE:
            return []
        if order.script == RELATIVE:
            return [{"url": f"/v1/assets/{order.id}.png?expires=1&signature=x"}]
        return [{"url": self.image_url(order)}]

    def _error(self, order: Order) -> dict[str, object]:
        script = Script.CANCELLED if order.cancelled else order.script
        code, message = _FAILURES[script]
        return {"code": code, "message": message, "type": "upstream_error", "retryable": False}

    def unknown_job(self) -> Reply:
        return problem(404, "task_not_found", "There is no such task.")

    def cancel(self, call: Call) -> Reply:
        order = self.orders.get(call.params["id"])
        if order is None:
            return self.unknown_job()
        order.cancelled = True
        return self.told(order, Phase.QUEUED)

    def asset(self, call: Call) -> Reply:
        assert dict(call.query)["signature"] == "x"
        return Reply(body=image(0), content_type="image/png")
