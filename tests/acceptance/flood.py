"""An upstream that answers everyone at once with one large image: ``flood.py SIDE CROWD [WAY]``.

It holds every request until ``CROWD`` of them are there, then sends each the same PNG of ``SIDE``
by ``SIDE`` pixels (three bytes a pixel, uncompressed), as fast as it is taken: as base64 in JSON,
or behind a URL where ``WAY`` is ``url``.
"""

import asyncio
import base64
import io
import os
import sys

from aiohttp import web
from PIL import Image

PIECE = 262_144


def picture(side: int) -> bytes:
    """A PNG."""
    image = Image.frombytes("RGB", (side, side), os.urandom(3 * side * side))
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=0)
    return file.getvalue()


def written_out(image: bytes) -> bytes:
    """The answer that holds an image."""
    return b'{"created": 1, "data": [{"b64_json": "%b"}]}' % base64.b64encode(image)


async def serve(side: int, crowd: int, way: str) -> None:
    """Serve until killed; prints the port."""
    image = picture(side)
    body = memoryview(image if way == "url" else written_out(image))
    here, everyone = 0, asyncio.Event()

    async def create(request: web.Request) -> web.StreamResponse:
        nonlocal here
        await request.read()
        here += 1
        if here >= crowd:
            everyone.set()
        await everyone.wait()
        if way == "url":
            url = f"http://{request.host}/image.png"
            return web.json_response({"created": 1, "data": [{"url": url}]})
        return await send(request, "application/json")

    async def send(request: web.Request, kind: str = "image/png") -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": kind})
        response.content_length = len(body)
        await response.prepare(request)
        for start in range(0, len(body), PIECE):
            await response.write(body[start : start + PIECE])
        return response

    app = web.Application()
    app.router.add_post("/{path:.*}", create)
    app.router.add_get("/image.png", send)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1000)
    await site.start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), "".join(sys.argv[3:])))
