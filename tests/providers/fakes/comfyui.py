"""ComfyUI as its documentation has it: a queue, jobs, a history, files, and a WebSocket."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from aiohttp import web

from providers.fakes.base import REFUSALS, WAIT, Fake, Order, Phase, Route, Understood
from providers.fakes.exchange import Call, Reply
from providers.scripts import Script

OLDER: Final = "older server"
NODE_MISSING: Final = "custom node missing"
MISSING: Final = Reply(404, body=b"404: Not Found", content_type="text/plain")
SAVES: Final = "SaveImage"


def problem(status: int, kind: str, message: str, node_error: str = "") -> Reply:
    """An error of the API; that of a node's input comes with the whole's."""
    nodes: dict[str, Any] = {}
    if node_error:
        errors = [{"type": node_error, "message": "Value not in list", "details": "ckpt_name"}]
        nodes["4"] = {"errors": errors, "class_type": "Loader", "dependent_outputs": ["9"]}
    error = {"type": kind, "message": message, "details": "", "extra_info": {}}
    return Reply(status, {"error": error, "node_errors": nodes})


@dataclass
class ComfyUI(Fake):
    """A server of the newer kind; what is sent as ``OLDER`` it treats as an older one would."""

    routes: ClassVar[tuple[Route, ...]] = (
        ("POST", "/prompt", "create"),
        ("GET", "/api/jobs/{id}", "job"),
        ("POST", "/api/jobs/{id}/cancel", "cancel"),
        ("GET", "/queue", "queue"),
        ("POST", "/queue", "change_queue"),
        ("POST", "/interrupt", "interrupt"),
        ("GET", "/history/{id}", "history"),
        ("GET", "/view", "view"),
        ("POST", "/upload/image", "upload"),
        ("GET", "/ws", "socket"),
    )
    refusals: ClassVar[Mapping[str, Reply]] = {
        **REFUSALS,
        Script.BUSY: Reply(429, {"error": "busy"}, headers={"Retry-After": f"{WAIT:g}"}),
        Script.BAD_KEY: Reply(401, {"error": "Unauthorized"}),
        Script.MODEL_GONE: problem(
            400, "prompt_outputs_failed_validation", "Prompt failed", "value_not_in_list"
        ),
        NODE_MISSING: problem(400, "missing_node_type", "Node 'Magic' not found."),
        Script.REJECTED: problem(
            400, "prompt_outputs_failed_validation", "Prompt failed", "value_bigger_than_max"
        ),
    }

    speaks: bool = True
    """Whether there is a WebSocket."""
    sockets: dict[str, web.WebSocketResponse] = field(default_factory=dict)
    """By the id of the client, as the server keeps them."""
    connected: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    """Released with every WebSocket."""

    def understand(self, call: Call) -> Understood:
        body = dict(call.document)
        assert str(uuid.UUID(body.pop("prompt_id"))) == call.document["prompt_id"]
        assert body.pop("client_id")
        graph = body.pop("prompt")
        assert not body, f"the API has no {', '.join(body)}"
        by_class: dict[str, list[dict[str, Any]]] = {}
        for node in graph.values():
            by_class.setdefault(node["class_type"], []).append(node["inputs"])
        (sampler,) = by_class["KSampler"]
        (loader,) = by_class["CheckpointLoaderSimple"]
        sizes = [*by_class.get("EmptyLatentImage", ()), *by_class.get("ImageScale", ())]
        fields = {name: sampler[name] for name in ("seed", "steps", "cfg")}
        fields |= {name: sizes[0][name] for name in ("width", "height")}
        fields["batch"] = sizes[0].get("batch_size", 1)
        fields["negative"] = graph[sampler["negative"][0]]["inputs"]["text"]
        prompt = graph[sampler["positive"][0]]["inputs"]["text"]
        names = [inputs["image"] for inputs in by_class.get("LoadImage", ())]
        references = tuple(self.files[name] for name in names)
        return Understood(loader["ckpt_name"], prompt, fields, references)

    def new_id(self, call: Call) -> str:
        if self._next_script == OLDER:
            return str(uuid.uuid5(uuid.NAMESPACE_OID, str(len(self.orders))))
        return str(call.document["prompt_id"])

    @property
    def _next_script(self) -> str:
        sent = self.sends - 1
        return self.plan[sent] if sent < len(self.plan) else Script.ACCEPT

    def accepted(self, order: Order) -> Reply:
        return Reply(200, {"prompt_id": order.id, "number": 1, "node_errors": {}})

    def job(self, call: Call) -> Reply:
        order = self.orders.get(call.params["id"])
        if order is not None and order.script == OLDER:
            return MISSING
        return self.read(call)

    def told(self, order: Order, phase: Phase) -> Reply:
        status = {
            Phase.QUEUED: "pending",
            Phase.RUNNING: "in_progress",
            Phase.STRANGE: "pondering",
            Phase.DONE: "completed",
            Phase.FAILED: "failed",
            Phase.CANCELLED: "cancelled",
        }[phase]
        document: dict[str, Any] = {"id": order.id, "status": status, "priority": 1}
        if phase is Phase.DONE:
            document["outputs"] = self._outputs(order)
        if phase is Phase.FAILED:
            document["execution_error"] = self._broken(order)
        return Reply(200, document)

    def unknown_job(self) -> Reply:
        return Reply(404, {"error": "Job not found"})

    def _outputs(self, order: Order) -> dict[str, Any]:
        """Every node that shows images, the one that saves last."""
        graph = order.call.document["prompt"]
        found: dict[str, Any] = {"preview": {"images": [self._file(order, 1, kind="temp")]}}
        for node, content in graph.items():
            if content["class_type"] == SAVES:
                saved = [] if order.script == Script.NO_IMAGE else [self._file(order, 0)]
                found[node] = {"images": saved, "animated": [False]}
        return found

    @staticmethod
    def _file(order: Order, index: int, kind: str = "output") -> dict[str, str]:
        return {"filename": f"{order.id} {index}_.png", "subfolder": "calotype", "type": kind}

    @staticmethod
    def _broken(order: Order) -> dict[str, Any]:
        return {
            "prompt_id": order.id,
            "node_id": "3",
            "node_type": "KSampler",
            "exception_type": "RuntimeError",
            "exception_message": "Allocation on device",
            "traceback": ["/srv/operator/ComfyUI/nodes.py"],
        }

    def queue(self, call: Call) -> Reply:  # noqa: ARG002 -- it is the same for all
        document: dict[str, list[Any]] = {"queue_running": [], "queue_pending": []}
        for order in self.orders.values():
            order.reads += 1
            phase = self.phase(order)
            entry = [1, order.id, order.call.document["prompt"], {}, ["9"]]
            if phase is Phase.QUEUED:
                document["queue_pending"].append(entry)
            if phase is Phase.RUNNING:
                document["queue_running"].append(entry)
        return Reply(200, document)

    def history(self, call: Call) -> Reply:
        order = self.orders.get(call.params["id"])
        if order is None or order.cancelled or order.script == Script.LOST:
            return Reply(200, {})
        phase = self.phase(order)
        ended: list[Any] = ["execution_success", {"prompt_id": order.id}]
        if phase is Phase.FAILED:
            ended = ["execution_error", self._broken(order)]
        if phase is Phase.CANCELLED:
            ended = ["execution_interrupted", {"prompt_id": order.id}]
        status = {
            "status_str": "success" if phase is Phase.DONE else "error",
            "completed": phase is Phase.DONE,
            "messages": [["execution_start", {"prompt_id": order.id}], ended],
        }
        entry = {"prompt": [], "outputs": self._outputs(order), "status": status, "meta": {}}
        return Reply(200, {order.id: entry})

    def cancel(self, call: Call) -> Reply:
        order = self.orders.get(call.params["id"])
        if order is not None and order.script == OLDER:
            return replace(MISSING, status=405)
        if order is not None:
            order.cancelled = True
        return Reply(200, {"cancelled": order is not None})

    def change_queue(self, call: Call) -> Reply:
        for each in call.document["delete"]:
            self.orders[each].cancelled = True
        return Reply(200, body=b"")

    def interrupt(self, call: Call) -> Reply:
        self.orders[call.document["prompt_id"]].cancelled = True
        return Reply(200, body=b"")

    def view(self, call: Call) -> Reply:
        where = dict(call.query)
        assert where.keys() == {"filename", "subfolder", "type"}
        assert (where["subfolder"], where["type"]) == ("calotype", "output")
        order, _, index = where["filename"].removesuffix("_.png").partition(" ")
        return self._result(replace(call, path=f"/results/{order}/{index}.png"))

    def upload(self, call: Call) -> Reply:
        parts = {part.name: part for part in call.parts}
        name, folder = str(parts["image"].filename), parts["subfolder"].text
        assert parts["type"].text == "input"
        assert parts["overwrite"].text == "true"
        self.keep(parts["image"].data, f"{folder}/{name}")
        return Reply(200, {"name": name, "subfolder": folder, "type": "input"})

    def socket(self, call: Call) -> Reply:  # noqa: ARG002 -- reached where there is no WebSocket
        return MISSING

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Fake]:
        async with super().running() as fake:
            try:
                yield fake
            finally:
                for socket in list(self.sockets.values()):
                    await socket.close()

    async def _serve(self, call: Call, request: web.BaseRequest) -> web.StreamResponse:
        if call.path != "/ws" or not self.speaks or not self.authorised(call):
            return await super()._serve(call, request)
        self.calls.append(call)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client = dict(call.query)["clientId"]
        self.sockets[client] = socket
        self.connected.release()
        async for _ in socket:
            pass
        if self.sockets.get(client) is socket:
            del self.sockets[client]
        return socket
