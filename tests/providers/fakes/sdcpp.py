"""stable-diffusion.cpp's server as its documentation has it: a queue of jobs, images in base64."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from providers.fakes.base import READ_FAULTS, REFUSALS, WAIT, Fake, Order, Phase, Route, Understood
from providers.fakes.exchange import Call, Reply
from providers.scripts import Script

EXPIRED: Final = "job expired"
LOADED: Final = "flux-2-klein-4b-Q4_0.gguf"
FIELDS: Final = frozenset(
    {
        *("prompt", "negative_prompt", "width", "height", "seed", "batch_count", "strength"),
        *("ref_images", "init_image", "sample_params", "output_format", "output_compression"),
    }
)


def problem(status: int, error: str, headers: Mapping[str, str] | None = None) -> Reply:
    """An error of the API."""
    return Reply(status, {"error": error}, headers=headers or {})


class SdCpp(Fake):
    """A server that has one model loaded."""

    routes: ClassVar[tuple[Route, ...]] = (
        ("GET", "/sdcpp/v1/capabilities", "capabilities"),
        ("POST", "/sdcpp/v1/img_gen", "create"),
        ("GET", "/sdcpp/v1/jobs/{id}", "read"),
        ("POST", "/sdcpp/v1/jobs/{id}/cancel", "cancel"),
    )
    refusals: ClassVar[Mapping[str, Reply]] = {
        **REFUSALS,
        Script.BUSY: problem(429, "job queue is full", {"Retry-After": f"{WAIT:g}"}),
        Script.ERROR_500: Reply(
            500, {"error": "server_error", "message": "bad allocation"}, bought=True
        ),
        Script.BAD_KEY: problem(401, "Unauthorized"),
        Script.MODEL_GONE: problem(404, "Not Found"),
        Script.REJECTED: problem(400, "invalid generation parameters"),
    }
    read_faults: ClassVar[Mapping[str, Reply]] = {
        **READ_FAULTS,
        EXPIRED: problem(410, "job expired"),
    }
    model: str = LOADED

    def capabilities(self, call: Call) -> Reply:  # noqa: ARG002 -- it is the same for all
        model = {
            "name": self.model,
            "stem": self.model.rpartition(".")[0],
            "path": f"/models/{self.model}",
        }
        limits = {
            "min_width": 64,
            "max_width": 4096,
            "min_height": 64,
            "max_height": 4096,
            "max_batch_count": 8,
            "max_queue_size": 64,
        }
        document = {
            "model": model,
            "current_mode": "img_gen",
            "supported_modes": ["img_gen"],
            "output_formats": ["png", "jpeg"],
            "limits": limits,
            "samplers": ["euler", "euler_a"],
            "loras": [],
        }
        return Reply(200, document)

    def understand(self, call: Call) -> Understood:
        sent: dict[str, Any] = dict(call.document)
        strange = sent.keys() - FIELDS
        assert not strange, f"the API has no {', '.join(strange)}"
        images = [*sent.pop("ref_images", ())]
        if start := sent.pop("init_image", None):
            images.append(start)
        prompt = sent.pop("prompt")
        return Understood("", prompt, sent, tuple(self.fetched(each) for each in images))

    def accepted(self, order: Order) -> Reply:
        document = {
            "id": order.id,
            "kind": "img_gen",
            "status": "queued",
            "created": 1_760_000_000,
            "poll_url": f"/sdcpp/v1/jobs/{order.id}",
        }
        return Reply(202, document)

    def told(self, order: Order, phase: Phase) -> Reply:
        status = {
            Phase.QUEUED: "queued",
            Phase.RUNNING: "generating",
            Phase.STRANGE: "pondering",
            Phase.DONE: "completed",
            Phase.FAILED: "failed",
            Phase.CANCELLED: "cancelled",
        }[phase]
        document: dict[str, Any] = {
            "id": order.id,
            "kind": "img_gen",
            "status": status,
            "queue_position": 2 if phase is Phase.QUEUED else 0,
            "result": None,
            "error": None,
        }
        if phase is Phase.DONE:
            images = [{"index": 0, "b64_json": self.image_base64(order)}]
            document["result"] = {
                "output_format": "png",
                "images": [] if order.script == Script.NO_IMAGE else images,
            }
        if phase is Phase.FAILED:
            document["error"] = {"code": "generation_failed", "message": "no results"}
        if phase is Phase.CANCELLED:
            document["error"] = {"code": "cancelled", "message": "job cancelled by client"}
        return Reply(200, document)

    def unknown_job(self) -> Reply:
        return problem(404, "job not found")

    def cancel(self, call: Call) -> Reply:
        order = self.orders.get(call.params["id"])
        if order is None:
            return self.unknown_job()
        if order.reads > 1:
            return problem(409, "job is currently generating and cannot be interrupted yet")
        order.cancelled = True
        return self.told(order, Phase.CANCELLED)
