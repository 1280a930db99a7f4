"""What can be loaded, and what an operator reads where it cannot."""

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from calotype.providers.diffusers.families import FAMILIES
from calotype.providers.diffusers.loading import Unloadable, load
from calotype.providers.diffusers.wire import Load
from local.weights import tiny

pytestmark = pytest.mark.filterwarnings("default")  # libraries warn of one another


@pytest.fixture
def copy(weights_folder: Path, tmp_path: Path) -> Path:
    """Weights that a test may spoil."""
    return Path(shutil.copytree(tiny("sd", weights_folder), tmp_path / "copy"))


def refused(weights: Path | str, **settings: Any) -> tuple[str, str]:
    with pytest.raises(Unloadable) as caught:
        load(Load(weights=str(weights), **settings))
    return caught.value.code, caught.value.message


@pytest.mark.parametrize("name", FAMILIES)
def test_the_table_names_arguments_that_the_library_has(name: str) -> None:
    family = FAMILIES[name]
    usual = {"prompt", "num_inference_steps", "generator", "callback_on_step_end"}
    usual |= {family.guidance, *(["negative_prompt"] if family.negative_prompt else [])}
    text = set(inspect.signature(getattr(diffusers, name).__call__).parameters)
    assert usual | {"width", "height"} <= text
    assert ("negative_prompt" in text) == family.negative_prompt
    if family.image_class is None:
        assert "image" in text
        return
    image = set(inspect.signature(getattr(diffusers, family.image_class).__call__).parameters)
    assert usual | {"image", "strength"} <= image
    assert ({"width", "height"} <= image) == family.image_sized


def test_both_pipelines_share_their_weights(weights_folder: Path) -> None:
    model, ready = load(Load(weights=str(tiny("sd", weights_folder)), device="cpu"))
    assert model.image.unet is model.text.unet
    assert model.image.vae is model.text.vae
    assert ready.picture_bytes == 0


def test_a_picture_is_drawn_before_all_is_ready(weights_folder: Path) -> None:
    order = Load(weights=str(tiny("sd", weights_folder)), device="cpu", warm_up=(512, 512))
    _, ready = load(order)
    assert (ready.pipeline, ready.device, ready.references) == ("StableDiffusionPipeline", "cpu", 1)
    assert ready.memory_bytes > 10_000_000
    assert ready.picture_bytes > 0
    assert ready.seconds > 0


def test_weights_of_half_precision_only_are_found(copy: Path) -> None:
    for file in copy.glob("*/*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    model, _ = load(Load(weights=str(copy), device="cpu", dtype="bfloat16"))
    assert model.text.unet.dtype == torch.bfloat16


def test_a_folder_that_is_not_there_is_named() -> None:
    assert refused("/no/such/folder") == ("missing", "there is no folder /no/such/folder.")


def test_weights_that_were_not_pulled_say_how_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    code, message = refused("example/none")
    assert code == "missing"
    assert message.endswith("Fetch it with: calotype local pull example/none")


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    code, message = refused(tmp_path)
    assert code == "unfit"
    assert "has no model_index.json" in message


@pytest.mark.parametrize("name", ["StableVideoDiffusionPipeline", ["mine", "Mine"], None])
def test_a_class_that_is_not_supported_is_refused(copy: Path, name: object) -> None:
    (copy / "model_index.json").write_text(json.dumps({"_class_name": name}))
    code, message = refused(copy)
    assert code == "unfit"
    assert "is not supported. These are: Flux2KleinPipeline, " in message


@pytest.mark.parametrize("text", ["{", "[1]", "null", ""])
def test_an_index_that_is_none_is_named(copy: Path, text: str) -> None:
    (copy / "model_index.json").write_text(text)
    code, message = refused(copy)
    assert code == "unfit"
    assert f"{copy}/model_index.json is not as diffusers writes it: " in message


def test_pickles_are_never_read(copy: Path) -> None:
    (file,) = (copy / "unet").glob("*.safetensors")
    file.rename(file.with_suffix(".bin"))
    code, message = refused(copy)
    assert code == "unfit"
    assert "the unet of" in message
    assert "pickles" in message


def test_a_part_without_weights_is_missed(copy: Path) -> None:
    (file,) = (copy / "unet").glob("*.safetensors")
    file.unlink()
    code, message = refused(copy)
    assert (code, "lacks its safetensors" in message) == ("missing", True)


def test_a_part_that_is_not_there_is_missed(copy: Path) -> None:
    shutil.rmtree(copy / "tokenizer")
    code, message = refused(copy)
    assert (code, "lacks its tokenizer" in message) == ("missing", True)


def test_spoilt_weights_are_refused_with_what_the_library_says(copy: Path) -> None:
    (file,) = (copy / "unet").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1000])
    code, message = refused(copy, device="cpu")
    assert code in {"missing", "unfit"}
    assert "cannot be loaded: " in message


def test_a_device_that_is_not_there_is_refused(weights_folder: Path) -> None:
    code, message = refused(tiny("sd", weights_folder), device="cuda:99")
    assert code == "unfit"
    assert message.startswith("device cuda:99 is not there: torch ")


def test_half_precision_on_a_cpu_is_refused(weights_folder: Path) -> None:
    code, message = refused(tiny("sd", weights_folder), device="cpu", dtype="float16")
    assert (code, "float32 or bfloat16" in message) == ("unfit", True)


def test_offload_on_a_cpu_is_refused(weights_folder: Path) -> None:
    code, message = refused(tiny("sd", weights_folder), device="cpu", offload="model")
    assert (code, message.startswith("offload is from a GPU")) == ("unfit", True)


@pytest.mark.parametrize("kind", ["sd", "klein"])
def test_safety_without_a_checker_is_refused(weights_folder: Path, kind: str) -> None:
    code, message = refused(tiny(kind, weights_folder), device="cpu", safety=True)
    assert (code, "brings no safety checker" in message) == ("unfit", True)


def test_a_warm_up_of_an_odd_size_is_refused(weights_folder: Path) -> None:
    code, message = refused(tiny("sd", weights_folder), device="cpu", warm_up=(100, 64))
    assert (code, "a multiple of 8" in message) == ("unfit", True)
