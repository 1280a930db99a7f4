"""The guide to backups, run as it is written: PostgreSQL's own dump, and a bucket."""

import os
import re
import subprocess
import sys
from pathlib import Path

import asyncpg
import obstore
import pytest
from obstore.store import S3Store

import postgres as servers
from acceptance.commands import run, serving
from calotype.client import Calotype
from postgres import PostgresServer
from programs import installed
from s3 import BUCKET, S3Server

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "backup.md"
STEPS = dict(
    re.findall(r"<!-- test: (\w+) -->\n```sh\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
)
PREFIX = "to-be-lost"


def follow(step: str) -> str:
    """A step of the guide; the bucket's place is another."""
    ended = subprocess.run(
        [
            "/bin/sh",
            "-ec",
            STEPS[step].replace("store:images/calotype", f"store:{BUCKET}/{PREFIX}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


async def lose(server: PostgresServer, url: str) -> None:
    """Make an empty database in the place of what was there."""
    name = url.rpartition("/")[2]
    connection = await asyncpg.connect(server.url())
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()


async def tasks(url: str) -> list[tuple[int, str]]:
    """Id and state of each."""
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT id, state FROM tasks")
    await connection.close()
    return [tuple(row) for row in rows]


def images(bucket: S3Store) -> dict[str, bytes]:
    """The results, by where they lie."""
    return {
        found["path"]: bytes(obstore.get(bucket, found["path"]).bytes())
        for found in obstore.list(bucket, "results").collect()
    }


@pytest.fixture
def place(postgres_url: str, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an installation, with what the guide's programs need."""
    rclone = installed("rclone", "rclone")
    monkeypatch.chdir(tmp_path)
    script = tmp_path / ".venv" / "bin" / "calotype"
    script.parent.mkdir(parents=True)
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m calotype "$@"\n')
    script.chmod(0o755)
    settings = {
        "CALOTYPE_DATABASE_URL": postgres_url,
        "CALOTYPE_ASSETS_URL": s3.url(prefix=PREFIX),
        "CALOTYPE_DATA_DIR": str(tmp_path / "data"),
        "CALOTYPE_SECRET": "only-the-tests-know-this-secret-of-theirs",
    }
    lines = [f"{name}='{value}'\n" for name, value in settings.items()]
    (tmp_path / "calotype.env").write_text("".join(lines))
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)  # rclone would refuse it
    store = {"TYPE": "s3", "PROVIDER": "Other", "ENV_AUTH": "true", "NO_CHECK_BUCKET": "true"}
    for name, value in {**store, "ENDPOINT": s3.endpoint, "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"RCLONE_CONFIG_STORE_{name}", value)
    for name, value in {**settings, "CALOTYPE_SANDBOX_SECONDS": "0"}.items():
        monkeypatch.setenv(name, value)
    programs = (servers.PROGRAMS, Path(rclone).parent, os.defpath)
    monkeypatch.setenv("PATH", ":".join(str(each) for each in programs))
    return tmp_path


async def test_a_cluster_is_restored_from_a_dump_and_a_copy_of_its_bucket(
    place: Path, postgres: PostgresServer, postgres_url: str, s3: S3Server
) -> None:
    key = run("keys", "create", "--name", "shop", "--credits", "1").stdout.strip()
    with serving(place / "server.log") as url, Calotype(key, url) as client:
        client.generate("A lighthouse", model="gpt-image-2").wait()
        follow("dump")
    bucket, known = s3.client(PREFIX), await tasks(postgres_url)
    stored = images(bucket)
    assert (len(known), len(stored)) == (1, 1)

    obstore.delete(bucket, [*stored])
    await lose(postgres, postgres_url)
    assert "All is well." in follow("restore")
    assert await tasks(postgres_url) == known
    assert images(bucket) == stored
