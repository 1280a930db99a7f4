"""The guide to backups, run as it is written: PostgreSQL's own dump, and a bucket."""

import os
import re
import subprocess
import sys
from pathlib import Path

import asyncpg
import obstore
import pytest

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


async def make_database(server: PostgresServer) -> None:
    """An empty one, in the place of what was there."""
    connection = await asyncpg.connect(server.url())
    await connection.execute("DROP DATABASE IF EXISTS backed_up WITH (FORCE)")
    await connection.execute("CREATE DATABASE backed_up")
    await connection.close()


@pytest.fixture
def place(
    postgres: PostgresServer, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The folder of an installation, with what the guide's programs need."""
    rclone = installed("rclone", "rclone")
    monkeypatch.chdir(tmp_path)
    script = tmp_path / ".venv" / "bin" / "calotype"
    script.parent.mkdir(parents=True)
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m calotype "$@"\n')
    script.chmod(0o755)
    settings = {
        "CALOTYPE_DATABASE_URL": postgres.url("backed_up"),
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
    place: Path, postgres: PostgresServer, s3: S3Server
) -> None:
    await make_database(postgres)
    run("migrate")
    key = run("keys", "create", "--name", "shop", "--credits", "1").stdout.strip()
    with serving(place / "server.log") as url, Calotype(key, url) as client:
        task = client.generate("A lighthouse", model="gpt-image-2").wait()
        picture = client.download(task.result[0].url)
        follow("dump")

    bucket = s3.client(PREFIX)
    for found in obstore.list(bucket).collect():
        obstore.delete(bucket, found["path"])
    await make_database(postgres)
    assert "All is well." in follow("restore")
    with serving(place / "server.log") as url, Calotype(key, url) as client:
        again = client.task(task.id)
        assert client.download(again.result[0].url) == picture
        assert client.balance().available_micro_usdc == 1_000_000 - 60_000
        client.generate("Another one", model="gpt-image-2").wait()
    assert "All is well." in run("doctor").stdout
