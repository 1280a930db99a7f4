"""The server starts quickly and lightly because it imports no more than it needs."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from harness import OUR_CODE

NEEDED_LATER = {
    "PIL": "pictures are opened in processes of their own",
    "asyncpg": "only with PostgreSQL",
    "calotype.api.docs_page": "only for who reads the documentation",
    "calotype.api.openapi": "only for who reads the documentation",
    "calotype.cli.generate": "another command",
    "calotype.cli.tasks": "another command",
    "calotype.console.pages": "only for who visits the console",
    "c2pa": "only with a certificate",
    "cryptography": "only with a certificate, or callbacks from fal",
    "httpx2": "only for agents",
    "mcp": "only for agents",
    "mcp_types": "only for agents",
    "obstore": "only with a cloud store",
    "opentelemetry": "only with traces",
    "prometheus_client": "only with metrics",
    "pyvips": "pictures are converted in processes of their own",
    "rich": "only the command line's tables",
    "sse_starlette": "only for agents",
    "structlog": "only with something to tell",
}


async def test_an_idle_embedded_server_has_imported_nothing_that_it_may_never_need(
    tmp_path: Path,
) -> None:
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "importtime", "-m", "calotype", "serve", "--port", "0"),
        env={"CALOTYPE_DATA_DIR": str(tmp_path), **OUR_CODE},
        cwd=tmp_path,
        stdout=PIPE,
        stderr=PIPE,
        limit=1 << 24,
    )
    assert server.stdout is not None
    reading = asyncio.create_task(_imported(server))
    assert b"listens" in await server.stdout.readline()
    server.kill()  # its last words would import what writes them
    imported = await reading
    await server.wait()
    assert {"calotype", "uvicorn"} <= imported
    assert {name: NEEDED_LATER[name] for name in imported & NEEDED_LATER.keys()} == {}


async def _imported(server: asyncio.subprocess.Process) -> set[str]:
    assert server.stderr is not None
    told = (await server.stderr.read()).decode()
    return set(re.findall(r"^import time:.*\| +([\w.]+)$", told, re.MULTILINE))
