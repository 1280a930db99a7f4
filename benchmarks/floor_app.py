"""The floor: an application that does nothing, on the same server with the same settings."""

import socket

import uvicorn
import uvloop

BODY = b'{"status":"ok"}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"15")]


async def app(scope: dict[str, object], receive: object, send: object) -> None:
    """Read the body, answer a constant."""
    if scope["type"] != "http":
        return
    if not callable(receive) or not callable(send):
        raise TypeError("not ASGI")
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


async def main() -> None:
    """Serve on a free port and print it."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        app, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False
    )
    print(f"listens on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    uvloop.run(main())
