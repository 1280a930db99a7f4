"""An upstream that answers everyone at once with the same large image: ``flood.py SIDE CROWD``.

It holds every request until ``CROWD`` of them are there, then sends each the same PNG of ``SIDE``
by ``SIDE`` pixels (three bytes a pixel, uncompressed) as base64 in JSON, as fast as it is taken.
"""

import asyncio
import base64
import io
import os
import sys

from aiohttp import web
from PIL import Image

PIECE = 262_144


def answer(side: int) -> memoryview:
    """The body that everyone gets."""
    image = Image.frombytes("RGB", (side, side), os.urandom(3 * side * side))
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=0)
    return memoryview(
        b'{"created": 1, "data": [{"b64_json": "%b"}]}' % base64.b64encode(file.getvalue())
    )


async def serve(side: int, crowd: int) -> None:
    """Serve until killed; prints the port."""
    body, here, everyone = answer(side), 0, asyncio.Event()

    async def create(request: web.Request) -> web.StreamResponse:
        nonlocal here
        await request.read()
        here += 1
        if here >= crowd:
            everyone.set()
        await everyone.wait()
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = len(body)
        await response.prepare(request)
        for start in range(0, len(body), PIECE):
            await response.write(body[start : start + PIECE])
        return response

    app = web.Application()
    app.router.add_post("/{path:.*}", create)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1000)
    await site.start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
