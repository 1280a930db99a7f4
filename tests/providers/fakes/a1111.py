"""AUTOMATIC1111's web UI as its documentation has it: the answer to the send holds the image."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from aiohttp import web

from providers.fakes.base import REFUSALS, WAIT, Fake, Order, Phase, Route, Understood
from providers.fakes.exchange import Call, Reply
from providers.scripts import Script

OUT_OF_MEMORY: Final = "run out of memory"
GRID_FIRST: Final = "a grid before the image"
MAPS_AFTER: Final = "maps of an extension after the image"
CHECKPOINT: Final = "sd_xl_base_1.0.safetensors [31e35c80fc]"
FIELDS: Final = frozenset(
    {
        *("prompt", "negative_prompt", "seed", "width", "height", "steps", "cfg_scale"),
        *("batch_size", "n_iter", "override_settings", "send_images", "save_images"),
        *("force_task_id", "init_images", "denoising_strength", "resize_mode", "sampler_name"),
    }
)


def problem(
    status: int,
    error: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: str = "",
    bought: bool = False,
) -> Reply:
    """An error as the API writes it."""
    document = {"error": error, "detail": detail, "body": "", "errors": errors}
    return Reply(status, document, headers=headers or {}, bought=bought)


@dataclass
class A1111(Fake):
    """A server that is started with ``--api`` and, for these tests, behind a proxy with a key."""

    routes: ClassVar[tuple[Route, ...]] = (
        ("POST", "/sdapi/v1/txt2img", "create"),
        ("POST", "/sdapi/v1/img2img", "create"),
        ("GET", "/sdapi/v1/sd-models", "checkpoints"),
        ("GET", "/sdapi/v1/progress", "progress"),
        ("POST", "/sdapi/v1/interrupt", "interrupt"),
    )
    refusals: ClassVar[Mapping[str, Reply]] = {
        **REFUSALS,
        Script.BUSY: Reply(429, {"error": "busy"}, headers={"Retry-After": f"{WAIT:g}"}),
        Script.ERROR_500: problem(
            500, "RuntimeError", "", errors="mat1 and mat2 differ", bought=True
        ),
        OUT_OF_MEMORY: problem(
            500, "OutOfMemoryError", "", errors="CUDA out of memory.", bought=True
        ),
        Script.BAD_KEY: problem(401, "HTTPException", "Incorrect username or password"),
        Script.MODEL_GONE: problem(404, "HTTPException", "Sampler not found"),
        Script.REJECTED: Reply(422, {"detail": [{"loc": ["body", "width"], "msg": "no"}]}),
    }

    at_it: asyncio.Event | None = None
    """The answer to a send waits for this."""
    interrupts_held: asyncio.Event | None = None
    """An interrupt waits for this."""
    interrupt_came: asyncio.Event = field(default_factory=asyncio.Event)
    state: dict[str, Any] = field(default_factory=lambda: {"progress": 0.0, "state": {"job": ""}})
    """What the server says of its progress."""

    def checkpoints(self, call: Call) -> Reply:  # noqa: ARG002 -- it is the same for all
        name = CHECKPOINT.partition(".")[0] + ".0"
        entry = {
            "title": CHECKPOINT,
            "model_name": name,
            "hash": "31e35c80fc",
            "sha256": None,
            "filename": f"/models/Stable-diffusion/{name}.safetensors",
            "config": None,
        }
        return Reply(200, [entry])

    def understand(self, call: Call) -> Understood:
        sent: dict[str, Any] = dict(call.document)
        strange = sent.keys() - FIELDS
        assert not strange, f"the API has no {', '.join(strange)}"
        assert sent["width"] % 8 == sent["height"] % 8 == 0
        sent.pop("force_task_id", None)
        settings = sent.pop("override_settings", {})
        assert settings.keys() <= {"sd_model_checkpoint"}
        images = sent.pop("init_images", ())
        assert bool(images) == call.path.endswith("img2img")
        references = tuple(self.fetched(each) for each in images)
        model = settings.get("sd_model_checkpoint", "")
        return Understood(model, sent.pop("prompt"), sent, references)

    def accepted(self, order: Order) -> Reply:
        images = [self.image_base64(order)]
        info: dict[str, Any] = {"seed": 1, "all_seeds": [1], "index_of_first_image": 0}
        if order.script == GRID_FIRST:
            images.insert(0, self.image_base64(order, 1))
            info["index_of_first_image"] = 1
        if order.script == MAPS_AFTER:
            images.append(self.image_base64(order, 1))
        if order.script == Script.NO_IMAGE:
            images = []
        document = {"images": images, "parameters": {}, "info": json.dumps(info)}
        return Reply(200, document)

    def told(self, order: Order, phase: Phase) -> Reply:  # noqa: ARG002 -- the base's
        raise AssertionError("there are no jobs to ask about")

    def progress(self, call: Call) -> Reply:
        assert call.query == (("skip_current_image", "true"),)
        return Reply(200, {"eta_relative": 1.0, "current_image": None, **self.state})

    def interrupt(self, call: Call) -> Reply:  # noqa: ARG002 -- it is the same for all
        if self.at_it is not None:
            self.at_it.set()
        return Reply(200, {})

    async def _serve(self, call: Call, request: web.BaseRequest) -> web.StreamResponse:
        if self.at_it is not None and call.path.endswith("2img"):
            await self.at_it.wait()
        if self.interrupts_held is not None and call.path.endswith("interrupt"):
            self.interrupt_came.set()
            await self.interrupts_held.wait()
        return await super()._serve(call, request)
