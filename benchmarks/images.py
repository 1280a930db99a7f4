"""``make bench ARGS=--assets``: images on their way in and out, their speed and their memory.

Downloads stand beside a plain nginx that sends the same files with sendfile, in turns with it in
one run: one worker there, one process here, one core for the client. Memory is by how much the
server and its children grew at their peak over idle, shared by how much was in flight.
"""

import asyncio
import getpass
import io
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import aiohttp
import msgspec

from downloaders import Downloads
from mock_upstream import picture
from programs import installed
from servers import HERE, Process, calotype, client, finished, submit
from table import Rows

ROUNDS: Final = 5
SECONDS: Final = 2.0
"""Of each download run."""
SIDES: Final = {"65 KB": 147, "3 MB": 1000, "20 MB": 2582}
"""Pixels of a picture, which are three bytes each."""
CLIENTS: Final = (1, 64, 1000)
REFERENCES: Final = 16
REFERENCE_SIDE: Final = 3162
AT_ONCE: Final = (1, 4)
"""Requests with so many references."""
RESULTS: Final = 200
SIDE: Final = 2600
"""Pixels of a result: 20 MB."""
AT_REST: Final = 0.03
"""Seconds of CPU in a fifth of a second: whoever spends more has something to do."""

_NGINX: Final = """
{user}worker_processes 1;
worker_rlimit_nofile 8192;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""
_CHANNEL: Final = """
[[channels]]
id = 20
slug = "flood"
name = "Flood"
provider = "openai-compatible"
base_url = "http://127.0.0.1:{port}/v1"
models = {{ "gpt-image-2" = "flood" }}
"""


async def measure(folder: Path, rows: Rows) -> None:
    """Every figure of images, on SQLite and a disk."""
    await downloads(folder / "downloads", rows)
    for requests in AT_ONCE:
        await references(folder / f"references-{requests}", rows, requests=requests)
    for way in ("base64", "url"):
        await results(folder / f"results-{way}", rows, way=way)


async def downloads(folder: Path, rows: Rows) -> None:
    """Each size to one, to many and to very many clients, in turns with nginx."""
    async with calotype(folder, "--no-worker") as (server, key), client(server, key) as http:
        paths = {name: await _uploaded(http, picture(side)) for name, side in SIDES.items()}
        async with nginx(folder) as floor:
            for name, path in paths.items():
                plain = _plain(folder / "assets", path)
                for clients in CLIENTS:
                    await _side_by_side(
                        f"download {name}, {clients:,} at a time",
                        (server, path),
                        (floor, plain),
                        clients=clients,
                        rows=rows,
                    )
        await _slow_clients(server, paths["20 MB"], rows)


async def _side_by_side(
    path: str, ours: tuple[Process, str], floor: tuple[int, str], *, clients: int, rows: Rows
) -> None:
    server, image = ours
    runs, ratios, grown = [], list[float](), list[float]()
    await _downloaded(server.port, image, clients)  # what it grows by once and for all
    for _ in range(ROUNDS):
        bare = await _downloaded(*floor, clients)
        await _settled(server)
        idle = _idle(server)
        run = await _downloaded(server.port, image, clients)
        grown.append((server.peak_mib() * 1024 - idle) / clients)
        ratios.append(_rate(run) / _rate(bare))
        runs.append((run, bare))
    run, bare = sorted(runs, key=lambda pair: _rate(pair[0]))[ROUNDS // 2]
    rows.beside(
        path,
        f"{_rate(run):,.0f} MB/s",
        latency=f"{run.p50_ms:.1f} / {run.p99_ms:.1f} ms",
        floor=f"{_rate(bare):,.0f} MB/s",
        ratio=f"{median(ratios):.2f}",
        goal="≥ 0.5 of nginx",
        note=f"ratio {min(ratios):.2f} to {max(ratios):.2f}, {max(grown):,.0f} KiB each"
        + (f", {bad} broke" if (bad := sum(each.bad for pair in runs for each in pair)) else ""),
    )


async def _slow_clients(server: Process, path: str, rows: Rows) -> None:
    """Clients that ask for a large image and take nothing of it; a quick one meanwhile."""
    await _settled(server)
    before = _idle(server)
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    writers = []
    for _ in range(max(CLIENTS)):
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        slow.setblocking(False)
        await asyncio.get_running_loop().sock_connect(slow, ("127.0.0.1", server.port))
        slow.send(request)
        writers.append(slow)
    await _settled(server)
    quick = await _downloaded(server.port, path, 1)
    each = (server.peak_mib() * 1024 - before) / len(writers)
    for slow in writers:
        slow.close()
    rows.add(
        f"{len(writers):,} clients that take nothing of 20 MB",
        f"{each:,.0f} KiB each",
        goal="< 1 MB each",
        note=f"one that takes all meanwhile: {_rate(quick):,.0f} MB/s",
    )


async def references(folder: Path, rows: Rows, *, requests: int) -> None:
    """Requests with as many references as a model takes, all at once."""
    image = picture(REFERENCE_SIDE)
    async with calotype(folder, "--no-worker") as (server, key), client(server, key) as http:
        await _uploaded(http, picture(SIDES["65 KB"]))
        idle = _idle(server)
        await asyncio.gather(*(_upload(http, [image] * REFERENCES) for _ in range(requests)))
        grown = server.peak_mib() * 1024 - idle
    _tell_growth(
        rows,
        f"{requests} requests of {REFERENCES} references of {len(image) / 1e6:.0f} MB",
        grown,
        in_flight=requests * REFERENCES,
    )


async def results(folder: Path, rows: Rows, *, way: str) -> None:
    """Very many large results that come in at once."""
    command = [sys.executable, str(HERE.parent / "tests/acceptance/flood.py")]
    flood = await asyncio.create_subprocess_exec(
        *command, str(SIDE), str(RESULTS), way, stdout=asyncio.subprocess.PIPE
    )
    if flood.stdout is None:
        raise SystemExit("no output")
    port = (await flood.stdout.readline()).decode().strip()
    configuration = _written(folder / "calotype.toml", _CHANNEL.format(port=port))
    try:
        settings = {"CALOTYPE_CONFIG": str(configuration)}
        async with calotype(folder, **settings) as (server, key), client(server, key) as http:
            idle = _idle(server)
            tasks = [
                (await submit(http, model="gpt-image-2", channel_id=20))["task_id"]
                for _ in range(RESULTS)
            ]
            for task in tasks:
                await finished(http, task)
            grown = server.peak_mib() * 1024 - idle
    finally:
        flood.kill()
        await flood.wait()
    _tell_growth(rows, f"{RESULTS} results of 20 MB as {way}", grown, in_flight=RESULTS)


def _tell_growth(rows: Rows, path: str, grown: float, *, in_flight: int) -> None:
    rows.add(
        path,
        f"{grown / in_flight:,.0f} KiB each",
        goal="< 1 MB each",
        note=f"{grown / 1024:,.0f} MiB in all",
    )


async def _uploaded(http: aiohttp.ClientSession, image: bytes) -> str:
    """The signed path of an image that was sent as a reference."""
    accepted = await _upload(http, [image])
    async with http.get(accepted["poll_url"]) as answer:
        task = await answer.json()
    url: str = task["request"]["image_input"][0]
    return "/v1/assets/" + url.partition("/v1/assets/")[2]


async def _upload(http: aiohttp.ClientSession, images: list[bytes]) -> dict[str, Any]:
    form = aiohttp.FormData({"model": "gpt-image-2", "prompt": "a lighthouse"})
    for image in images:
        form.add_field("image[]", io.BytesIO(image), filename="a.png", content_type="image/png")
    async with http.post("/v1/images/generations", data=form) as answer:
        accepted: dict[str, Any] = await answer.json()
        if answer.status != 202:
            raise SystemExit(f"refused: {accepted}")
        return accepted


def _plain(root: Path, path: str) -> str:
    """Where nginx has the image of a signed path."""
    name = path.partition("?")[0].rpartition("/")[2]
    (file,) = root.rglob(name)
    return f"/{file.relative_to(root)}"


@asynccontextmanager
async def nginx(data: Path) -> AsyncIterator[int]:
    """An nginx over the stored images; yields its port."""
    program = installed("nginx", "nginx-light")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    folder = Path.cwd() / data / "nginx"
    configured = _NGINX.format(
        user=f"user {getpass.getuser()};\n" if os.geteuid() == 0 else "",
        folder=folder,
        port=port,
        root=folder.parent / "assets",
    )
    configuration = _written(folder / "nginx.conf", configured)
    process = await asyncio.create_subprocess_exec(
        *(program, "-p", str(folder), "-c", str(configuration)), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionError:
                await asyncio.sleep(0.01)
        yield port
    finally:
        process.terminate()
        await process.wait()


def _written(path: Path, text: str) -> Path:
    """A file in a folder of its own."""
    path.parent.mkdir()
    path.write_text(text)
    return path


async def _downloaded(port: int, path: str, clients: int) -> Downloads:
    command = [sys.executable, str(HERE / "downloaders.py")]
    process = await asyncio.create_subprocess_exec(
        *(*command, str(port), path, str(clients), str(SECONDS)), stdout=asyncio.subprocess.PIPE
    )
    return msgspec.json.decode((await process.communicate())[0], type=Downloads)


async def _settled(server: Process) -> None:
    """Wait until the server has nothing more to do, for clients that have hung up either."""
    while True:
        spent = server.cpu_seconds()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        await reader.read()
        writer.close()
        await asyncio.sleep(0.2)
        if server.cpu_seconds() - spent < AT_REST:
            return


def _rate(run: Downloads) -> float:
    """MB a second."""
    return run.received / run.seconds / 1e6


def _idle(server: Process) -> float:
    """Memory now, in KiB; the peak counts from here on."""
    server.reset_peak()
    return server.memory_mib() * 1024
