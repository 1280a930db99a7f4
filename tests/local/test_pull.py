"""``calotype local pull`` against a hub on loopback."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from local.engines import engine
from local.hub import COMMIT, Hub, running_hub
from local.weights import tiny

INDEX: Final = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "safety_checker": [None, None],
}
WANTED: Final = {
    "model_index.json": json.dumps(INDEX).encode(),
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": bytes(range(256)) * 4000,
    "tokenizer/vocab.json": b'{"a": 0}',
}
UNWANTED: Final = {
    "whole.safetensors": b"one file for other programs",
    "unet/diffusion_pytorch_model.bin": b"a pickle",
    "unet/diffusion_pytorch_model.fp16.safetensors": b"the same, in 16 bits",
    "unet/custom.py": b"print('mine')",
    "safety_checker/model.safetensors": b"none is named",
    "README.md": b"# Tiny",
}
WEIGHTS: Final = "unet/diffusion_pytorch_model.safetensors"


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with running_hub(Hub({**WANTED, **UNWANTED})) as running:
        yield running


async def pull(hub: Hub, folder: Path, *arguments: str, token: str = "") -> Ended:
    variables = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "HOME": str(folder),
        "HF_TOKEN": token,
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": ":".join(sys.path),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "calotype", "local", "pull", *arguments),
        env={name: value for name, value in variables.items() if value},
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


def lying(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file() and ".cache" not in file.parts]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


async def test_only_settings_and_safetensors_come_and_a_second_pull_fetches_nothing(
    hub: Hub, tmp_path: Path
) -> None:
    ended = await pull(hub, tmp_path, "ours/tiny")
    assert ended.code == 0, ended.err
    assert lying(Path(ended.out.strip())) == WANTED
    assert "ours/tiny at c0ffeec0ffee: 4 files, 1000.2 KiB, of which 1000.0 KiB" in ended.err
    first = len(hub.asked)
    again = await pull(hub, tmp_path, "ours/tiny")
    assert (again.code, again.out, len(hub.asked)) == (0, ended.out, first)
    assert "of which 0 bytes are to be fetched" in again.err


async def test_the_engine_loads_by_its_name_what_was_pulled(
    weights_folder: Path, tmp_path: Path
) -> None:
    async with running_hub(Hub(lying(tiny("sd", weights_folder)))) as hub:
        ended = await pull(hub, tmp_path, "ours/tiny")
        assert Path(ended.out.strip()).name == COMMIT
    with engine(HF_HUB_CACHE=str(tmp_path / "hf/hub")) as started:
        ready = started.load("ours/tiny", device="cpu")
        assert ready.pipeline == "StableDiffusionPipeline"


async def test_a_download_that_is_cut_goes_on_where_it_stopped(tmp_path: Path) -> None:
    # The hub's library writes 10 MB at a time, and what was not written is lost with the cut.
    files = {**WANTED, WEIGHTS: bytes(range(256)) * 96 * 1024}
    async with running_hub(Hub(files, cut={WEIGHTS: 1})) as hub:
        ended = await pull(hub, tmp_path, "ours/tiny", "--to", "here", "--revision", "v1")
        assert ended.code == 0, ended.err
        assert lying(tmp_path / "here") == files
        ranges = [said for path, said in hub.asked if path == WEIGHTS]
        assert ranges == [None, f"bytes={10 * 1024 * 1024}-"]


async def test_a_file_with_another_hash_is_refused_removed_and_fetched_anew(
    hub: Hub, tmp_path: Path
) -> None:
    hub.spoiled.add(WEIGHTS)
    ended = await pull(hub, tmp_path, "ours/tiny")
    assert (ended.code, ended.out) == (1, "")
    assert f"{WEIGHTS}: not what the hub has, and removed" in ended.err
    hub.spoiled.clear()
    mended = await pull(hub, tmp_path, "ours/tiny")
    assert mended.code == 0, mended.err
    assert lying(Path(mended.out.strip())) == WANTED


async def test_what_is_gated_wants_a_token_and_no_message_shows_it(
    hub: Hub, tmp_path: Path
) -> None:
    hub.token = "hf_secretsecret"
    refused = await pull(hub, tmp_path, "ours/tiny")
    assert refused.code == 1
    assert "ours/tiny is gated: accept its terms" in refused.err
    taken = await pull(hub, tmp_path, "ours/tiny", token=hub.token)
    assert taken.code == 0, taken.err
    assert hub.token not in taken.out + taken.err


async def test_what_the_hub_does_not_have_is_named(hub: Hub, tmp_path: Path) -> None:
    unknown = await pull(hub, tmp_path, "ours/none")
    assert (unknown.code, unknown.out) == (1, "")
    assert "The hub has no ours/none, or not for you" in unknown.err
    revision = await pull(hub, tmp_path, "ours/tiny", "--revision", "v9")
    assert "ours/tiny has no such revision" in revision.err
    odd = await pull(hub, tmp_path, "a/b/c")
    assert (odd.code, "a/b/c is no repository" in odd.err) == (2, True)


async def test_without_a_network_there_is_one_line_and_its_cure(tmp_path: Path) -> None:
    ended = await pull(Hub({}, url="http://127.0.0.1:9"), tmp_path, "ours/tiny")
    assert ended.code == 1
    assert "The hub cannot be reached" in ended.err
    assert "Traceback" not in ended.err


async def test_weights_that_are_only_pickles_are_refused_before_they_come(tmp_path: Path) -> None:
    files = {path: content for path, content in WANTED.items() if path != WEIGHTS}
    files["unet/diffusion_pytorch_model.bin"] = b"a pickle"
    async with running_hub(Hub(files)) as hub:
        ended = await pull(hub, tmp_path, "ours/tiny")
        assert ended.code == 2
        assert "The unet of ours/tiny has no safetensors" in ended.err
        assert [path for path, _ in hub.asked] == ["model_index.json"]


async def test_weights_in_16_bits_come_where_there_are_no_others(tmp_path: Path) -> None:
    half = "unet/diffusion_pytorch_model.fp16.safetensors"
    files = {path: content for path, content in WANTED.items() if path != WEIGHTS}
    async with running_hub(Hub({**files, half: b"16 bits"})) as hub:
        ended = await pull(hub, tmp_path, "ours/tiny")
        assert lying(Path(ended.out.strip())) == {**files, half: b"16 bits"}


async def test_an_index_that_is_none_is_refused_before_anything_large_comes(
    tmp_path: Path,
) -> None:
    async with running_hub(Hub({**WANTED, "model_index.json": b"[1]"})) as hub:
        ended = await pull(hub, tmp_path, "ours/tiny")
        assert ended.code == 2
        (line,) = ended.err.splitlines()
        assert line.startswith("The model_index.json of ours/tiny is not as diffusers writes it")
        assert [path for path, _ in hub.asked] == ["model_index.json"]
