"""Programs of users, as mypy sees them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = "\n".join(
    re.findall(
        r"```python\n(.*?)```",
        (ROOT / "docs/guides/python-client.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
)
BLOCKING = """
from pathlib import Path
from calotype.client import Calotype, Task, TaskTimeout, WaitTimeout


def make(client: Calotype, picture: bytearray) -> list[Path]:
    task = client.generate("A boat", model="m", references=[picture, memoryview(picture)])
    try:
        return task.wait(60).save("boat.png")
    except TaskTimeout as error:
        return error.task.wait().save("boat.png")


def wait(task: Task) -> Task:
    try:
        return task.wait(60)
    except WaitTimeout as error:
        print(error.task.progress)
        return task.wait()
"""
ASYNCIO = """
from pathlib import Path
from calotype.client import AsyncCalotype, AsyncTask, AsyncTaskTimeout


async def make(client: AsyncCalotype, picture: bytearray) -> AsyncTask:
    task = await client.generate("A boat", model="m", references=[picture, Path("a.png"), b"b"])
    try:
        return await task.wait(timeout=60)
    except AsyncTaskTimeout as error:
        return await error.task.wait()
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mypy has found out already."""
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.parametrize(
    "program", [GUIDE, BLOCKING, ASYNCIO], ids=["the guide", "blocking", "asyncio"]
)
def test_a_program_of_a_user_is_typed(program: str, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={cache}", "program.py"]
    environment = {"PATH": os.defpath, "MYPYPATH": str(ROOT / "src")}
    found = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
