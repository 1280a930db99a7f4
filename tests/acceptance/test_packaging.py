"""What `make dist` builds, installed into an environment that knows nothing of the checkout."""

import json
import re
import signal
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "calotype"
SECONDS = 100


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    """What a command prints; it sees nothing of our own environment."""
    ended = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def build(source: Path, target: Path, *kinds: str) -> Sequence[Path]:
    """Build by the backend of the lock; nothing is fetched."""
    chosen = [word for kind in kinds for word in ("--target", kind)]
    run(sys.executable, "-m", "hatchling", "build", "-d", target, *chosen, folder=source)
    return sorted(target.iterdir())


def content(wheel: Path) -> set[str]:
    """The files of the package in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if name.startswith("calotype/")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source distribution."""
    wheel, source = build(ROOT, tmp_path_factory.mktemp("dist"), "sdist", "wheel")
    return wheel, source


def test_the_wheel_holds_every_file_of_the_package(built: tuple[Path, Path]) -> None:
    files = {
        file.relative_to(PACKAGE.parent).as_posix()
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert content(built[0]) == files
    assert {
        "calotype/py.typed",
        "calotype/catalog/gpt-image-2.toml",
        "calotype/console/static/console.css",
        "calotype/console/templates/base.html",
        "calotype/store/postgres/migrations/0001_initial.sql",
        "calotype/store/sqlite/migrations/0001_initial.sql",
    } <= files


def test_the_source_distribution_builds_the_same_wheel(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    wheel, source = built
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (again,) = build(tmp_path / source.name.removesuffix(".tar.gz"), tmp_path / "again", "wheel")
    assert again.name == wheel.name
    assert content(again) == content(wheel)


def test_the_installed_wheel_makes_an_image_without_the_checkout(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    place = tmp_path / "new"
    venv.create(place, symlinks=True)
    python, calotype = place / "bin" / "python", place / "bin" / "calotype"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", "--no-compile", built[0], folder=tmp_path)
    ours = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=place)
    # What the wheel depends on; how this environment finds the checkout is not read from here.
    (Path(ours.strip()) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    found = run(python, "-c", "import calotype; print(calotype.__file__)", folder=tmp_path)
    assert Path(found.strip()).is_relative_to(place)

    known = {"CALOTYPE_SANDBOX_SECONDS": "0", "CALOTYPE_DATA_DIR": str(tmp_path / "data")}
    key = run(
        calotype, "keys", "create", "--name", "me", "--credits", "1", folder=tmp_path, **known
    )
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [calotype, "serve", "--port", "0"],
            cwd=tmp_path,
            env=known,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as server,
    ):
        try:
            assert server.stdout is not None
            ready = re.search(r"listens on (http://\S+)", server.stdout.readline())
            assert ready, (tmp_path / "log").read_text()
            client = {"CALOTYPE_BASE_URL": ready[1], "CALOTYPE_API_KEY": key.strip()}
            made = ("generate", "A lighthouse", "--model", "gpt-image-2", "--output", "a.png")
            run(calotype, *made, folder=tmp_path, **client)
            for page in ("console", "docs", "llms.txt", "v1/models/brands/openai/image"):
                with urllib.request.urlopen(f"{ready[1]}/{page}", timeout=SECONDS) as answer:  # noqa: S310 -- our own
                    assert answer.status == 200
            with urllib.request.urlopen(f"{ready[1]}/openapi.json", timeout=SECONDS) as answer:  # noqa: S310 -- same
                assert json.load(answer)["openapi"] == "3.1.0"
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(SECONDS)
    assert server.returncode == 0, (tmp_path / "log").read_text()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
