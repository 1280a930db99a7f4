"""A hub on loopback: repositories of files, as ``huggingface_hub`` asks for them."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

COMMIT: Final = "c0ffee" * 6 + "beef"
_LARGE: Final = ".safetensors"


@dataclass
class Hub:
    """What it has, and how it misbehaves.

    Args:
        files: of its one repository, by their paths.
        cut: break off in the middle of each download of these, so often.
        spoiled: send other bytes of these, of the right length.
        token: that a gated file asks for.
        name: of the repository.

    """

    files: Mapping[str, bytes]
    cut: dict[str, int] = field(default_factory=dict)
    spoiled: set[str] = field(default_factory=set)
    token: str | None = None
    name: str = "ours/tiny"
    url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """The paths that were sent, each with its ``Range``."""


_HUB: Final = web.AppKey("hub", Hub)


@asynccontextmanager
async def running_hub(hub: Hub) -> AsyncIterator[Hub]:
    """Serve it on a port of its own."""
    app = web.Application()
    app[_HUB] = hub
    app.router.add_get(f"/api/models/{hub.name}", _revision)
    app.router.add_get(f"/api/models/{hub.name}/revision/{{revision}}", _revision)
    app.router.add_get(f"/api/models/{hub.name}/tree/{{revision}}", _tree)
    app.router.add_get(f"/{hub.name}/resolve/{{revision}}/{{path:.+}}", _file)
    app.router.add_route("*", "/{rest:.*}", _unknown)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    hub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield hub
    finally:
        await runner.cleanup()


async def _revision(request: web.Request) -> web.Response:
    if request.match_info.get("revision", "main") not in {"main", "v1", COMMIT}:
        return web.Response(status=404, headers={"X-Error-Code": "RevisionNotFound"})
    name = request.app[_HUB].name
    return web.json_response({"id": name, "modelId": name, "sha": COMMIT})


async def _tree(request: web.Request) -> web.Response:
    hub: Hub = request.app[_HUB]
    listed = []
    for path, content in hub.files.items():
        entry: dict[str, Any] = {
            "type": "file",
            "path": path,
            "size": len(content),
            "oid": _git(content),
        }
        if path.endswith(_LARGE):
            entry["lfs"] = {"oid": _sha(content), "size": len(content), "pointerSize": 130}
        listed.append(entry)
    return web.json_response(listed)


async def _file(request: web.Request) -> web.StreamResponse:
    hub: Hub = request.app[_HUB]
    path = request.match_info["path"]
    if hub.token and request.headers.get("Authorization") != f"Bearer {hub.token}":
        return web.Response(status=403, headers={"X-Error-Code": "GatedRepo"})
    content = hub.files[path]
    etag = _sha(content) if path.endswith(_LARGE) else _git(content)
    headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(content))}
    if request.method == "HEAD":
        return web.Response(headers=headers | {"Content-Length": str(len(content))})
    begin = request.http_range.start or 0
    hub.asked.append((path, request.headers.get("Range")))
    sent = bytes(byte ^ 1 for byte in content) if path in hub.spoiled else content
    headers["Content-Length"] = str(len(content) - begin)
    if begin:
        headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
    answer = web.StreamResponse(status=206 if begin else 200, headers=headers)
    await answer.prepare(request)
    if hub.cut.get(path, 0):
        hub.cut[path] -= 1
        await answer.write(sent[begin : begin + (len(sent) - begin) // 2])
        await asyncio.sleep(0)
        assert request.transport is not None
        request.transport.close()
        return answer
    await answer.write(sent[begin:])
    return answer


async def _unknown(request: web.Request) -> web.Response:  # noqa: ARG001 -- a handler
    return web.Response(status=401, headers={"X-Error-Code": "RepoNotFound"})


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
