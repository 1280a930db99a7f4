"""Valid requests of every kind that has a body or parameters: what the fuzzer begins from."""

import json
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from harness import FORM, GENERATIONS, Server, form, picture

JSON: Final = "application/json"


class Message(NamedTuple):
    """A request before it is written out; ``Content-Length`` or chunks come with the writing."""

    name: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    @property
    def kind(self) -> str:
        """Its media type."""
        return dict(self.headers).get("Content-Type", "").partition(";")[0]


async def samples(server: Server) -> tuple[Message, ...]:
    """Requests that this server answers with 2xx."""
    task = (await server.accepted(prompt="a pier"))["task_id"]
    upload = await server.call("POST", "/v1/files", data=picture("WEBP"), headers=_RAW)
    image = urlsplit(upload.json["url"])
    await server.call("POST", "/mcp", json=_PING)  # the first one waits for an import
    key = ("Authorization", f"Bearer {server.key}")

    def asked(name: str, method: str, target: str, *more: tuple[str, str]) -> Message:
        return Message(name, method, target, (key, *more))

    def sent(name: str, target: str, document: Any, method: str = "POST") -> Message:
        body = json.dumps(document).encode()
        return Message(name, method, target, (key, ("Content-Type", JSON)), body)

    def filled(name: str, target: str, *parts: Any) -> Message:
        return Message(name, "POST", target, (key, *FORM.items()), form(*parts))

    reference = upload.json["reference"]
    order = {
        "model": "gpt-image-2",
        "prompt": "a lighthouse",
        "n": 1,
        "aspect_ratio": "16:9",
        "resolution": "2K",
        "response_format": "url",
        "image_input": ["https://example.com/reference.png", reference],
        "callback_url": "https://example.com/hook",
        "metadata": {"scene": "harbour"},
        "deadline_seconds": 600,
    }
    texts = [(name, str(order[name])) for name in ("model", "prompt", "n", "aspect_ratio")]
    openai = {"model": "gpt-image-2", "prompt": "a lighthouse", "n": 1, "size": "1024x1024"}
    call = {"name": "list_models", "arguments": {}}
    rpc = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    return (
        sent("submission", GENERATIONS, order),
        Message("chat", "POST", GENERATIONS, (key, ("Content-Type", JSON)), _chat(order)),
        filled("form", GENERATIONS, *texts, ("image", picture(), "a.png")),
        filled(
            "mixed form",
            GENERATIONS,
            ("image[]", picture("JPEG"), "b.jpg"),
            ("image_input[]", reference),
            *texts,
            ("metadata", json.dumps(order["metadata"])),
            ("image", picture("WEBP"), "c.webp"),
        ),
        sent("batch", f"{GENERATIONS}/batch", {"requests": [order, {**order, "n": 2}]}),
        asked("list", "GET", "/v1/tasks?limit=3&state=waiting&metadata.scene=harbour"),
        asked("task", "GET", f"/v1/tasks/{task}"),
        asked("wait", "GET", f"/v1/tasks/{task}?wait=0&since=1"),
        asked("cancel", "POST", f"/v1/tasks/{task}/cancel"),
        asked("delete", "DELETE", f"/v1/tasks/{task}"),
        sent("settings", "/v1/webhooks", {"url": "https://example.com/hook"}, "PUT"),
        sent("rotation", "/v1/webhooks/rotate", {"overlap_seconds": 60}),
        asked("deliveries", "GET", "/v1/webhooks/deliveries?limit=2&state=pending"),
        filled("file form", "/v1/files", ("file", picture("JPEG"), "d.jpg")),
        Message("file", "POST", "/v1/files", (key, ("Content-Type", "image/png")), picture()),
        asked("files", "GET", "/v1/files?limit=2"),
        asked("image", "GET", f"{image.path}?{image.query}", ("Range", "bytes=0-9")),
        asked("catalog", "GET", "/v1/models", ("If-None-Match", '"none"')),
        asked("balance", "GET", "/v1/credits/balance"),
        sent("openai", "/openai/v1/images/generations", {**openai, "model": "unknown"}),
        filled(
            "edit", "/openai/v1/images/edits", ("image", picture(), "e.png"), ("model", "unknown")
        ),
        sent("agent", "/mcp", rpc),
    )


_PING: Final = {"jsonrpc": "2.0", "id": 0, "method": "ping"}
_RAW: Final = {"Content-Type": "application/octet-stream"}


def _chat(order: dict[str, Any]) -> bytes:
    """The same in a script of many bytes a letter, with escapes."""
    prompt = '灯台 \U0001f5fc "\\" \n' + "é" * 300
    return json.dumps({**order, "prompt": prompt}, ensure_ascii=False).encode()
