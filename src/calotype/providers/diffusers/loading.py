"""Loads weights into a pipeline: from the disk alone, and never from a pickle."""

import re
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import diffusers
import huggingface_hub
import msgspec
import torch
import transformers
from huggingface_hub.errors import LocalEntryNotFoundError

from calotype.providers.diffusers import memory
from calotype.providers.diffusers.families import FAMILIES, Family
from calotype.providers.diffusers.wire import Dtype, Load, Ready

_INDEX = "model_index.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_LONGEST = 1000
"""Characters of a library's message that an operator reads."""


class Unloadable(Exception):
    """The weights cannot be loaded."""

    def __init__(self, code: Literal["out_of_memory", "unfit", "missing"], message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Model(NamedTuple):
    """Weights, ready to draw.

    Args:
        text: the pipeline that draws from a prompt.
        image: the one that draws from references; it shares all its parts with the other.

    """

    family: Family
    text: Any
    image: Any
    device: torch.device

    @property
    def multiple(self) -> int:
        """What width and height have to be a multiple of."""
        return int(self.text.vae_scale_factor) * self.family.patch


def load(order: Load) -> tuple[Model, Ready]:
    """Load what is ordered and draw one picture if that is ordered too.

    Raises:
        Unloadable: with what is wrong.

    """
    began = time.monotonic()
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
    device = _device(order.device)
    dtype = _dtype(order.dtype, device)
    folder = _folder(order.weights)
    name, parts = _index(folder)
    _check_safety(order, parts)
    _check_files(folder, parts, order.weights)
    try:
        model = _assemble(order, folder, name, device, dtype)
        memory.forget_peak(device)
        at_rest = memory.in_use(device)
        if order.warm_up:
            _warm_up(model, *order.warm_up)
    except Unloadable:
        raise
    except Exception as error:
        if memory.is_full(error):
            raise Unloadable(
                "out_of_memory",
                f"{order.weights} does not fit into the memory of {device}: take smaller "
                f"weights, or a GPU with more memory or with offload. {said(error)}",
            ) from error
        message = f"{order.weights} cannot be loaded: {said(error)}"
        if isinstance(error, OSError):
            raise Unloadable("missing", f"{message} Fetch the weights anew.") from error
        raise Unloadable("unfit", message) from error
    return model, Ready(
        pipeline=name,
        device=str(device),
        references=model.family.references,
        seconds=round(time.monotonic() - began, 3),
        memory_bytes=at_rest,
        picture_bytes=max(0, memory.peak(device) - at_rest) if order.warm_up else 0,
        free_bytes=memory.free(device),
    )


def said(error: Exception) -> str:
    """Say an error of a library in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST]


def _device(asked: str) -> torch.device:
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "cpu" or (asked == "auto" and not there):
        return torch.device("cpu")
    number = int(asked.partition(":")[2] or 0)
    if number >= there:
        raise Unloadable(
            "unfit",
            f"device {asked} is not there: torch {torch.__version__} sees {there} GPUs on this "
            "machine. Set device to cpu or to one that it sees.",
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def _dtype(asked: Dtype, device: torch.device) -> torch.dtype:
    if device.type == "cpu":
        if asked == "float16":
            raise Unloadable(
                "unfit", "a CPU does not draw in float16: set dtype to float32 or bfloat16."
            )
        return torch.bfloat16 if asked == "bfloat16" else torch.float32
    with torch.cuda.device(device):
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if asked == "bfloat16" and not has_bfloat16:
        raise Unloadable(
            "unfit", f"{device} has no bfloat16: set dtype to float16, or to auto, which knows."
        )
    if asked == "auto":
        return torch.bfloat16 if has_bfloat16 else torch.float16
    return torch.float32 if asked == "float32" else getattr(torch, asked)


def _folder(weights: str) -> Path:
    if Path(weights).is_dir():
        return Path(weights)
    if not _HUB_ID.fullmatch(weights):
        raise Unloadable("missing", f"there is no folder {weights}.")
    try:
        index = huggingface_hub.hf_hub_download(weights, _INDEX, local_files_only=True)
    except LocalEntryNotFoundError as error:
        raise Unloadable(
            "missing",
            f"{weights} is not on this machine. Fetch it with: calotype local pull {weights}",
        ) from error
    return Path(index).parent


def _index(folder: Path) -> tuple[str, dict[str, Any]]:
    """Name the pipeline's class, and its parts by name."""
    file = folder / _INDEX
    if not file.exists():
        raise Unloadable(
            "unfit",
            f"{folder} has no {_INDEX}: weights are a folder as diffusers saves it, with "
            "one folder for each part.",
        )
    try:
        index = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Unloadable(
            "unfit", f"{file} is not as diffusers writes it: {error}. Fetch the weights anew."
        ) from error
    name = index.get("_class_name")
    if not isinstance(name, str) or name not in FAMILIES:  # a list names code of its own
        raise Unloadable(
            "unfit",
            f"{folder} is for {name}, which is not supported. These are: {', '.join(FAMILIES)}.",
        )
    parts = {
        part: value
        for part, value in index.items()
        if isinstance(value, list) and value[:1] != [None]
    }
    return name, parts


def _check_safety(order: Load, parts: dict[str, Any]) -> None:
    if not order.safety:
        parts.pop("safety_checker", None)
    elif "safety_checker" not in parts:
        raise Unloadable(
            "unfit",
            f"{order.weights} brings no safety checker: set safety to false, or use others.",
        )


def _check_files(folder: Path, parts: dict[str, Any], weights: str) -> None:
    """See that every part is there and that none needs a pickle, which could run anything."""
    for part in parts:
        files = [file.name for file in (folder / part).glob("*")]
        if not files:
            raise Unloadable(
                "missing",
                f"{weights} lacks its {part}: fetch it whole, as calotype local pull does.",
            )
        if "config.json" not in files or any(name.endswith(".safetensors") for name in files):
            continue
        if any(name.endswith(_PICKLES) for name in files):
            raise Unloadable(
                "unfit",
                f"the {part} of {weights} has no safetensors, only pickles, which can run anything "
                "and are not read. Take a version of it with safetensors.",
            )
        raise Unloadable(
            "missing", f"the {part} of {weights} lacks its safetensors: fetch it whole."
        )


def _assemble(
    order: Load, folder: Path, name: str, device: torch.device, dtype: torch.dtype
) -> Model:
    settings: dict[str, Any] = {}
    if not order.safety and name == "StableDiffusionPipeline":
        settings = {"safety_checker": None, "requires_safety_checker": False}
    if not any(_is_plain(file.name) for file in folder.glob("*/*.safetensors")):
        settings["variant"] = "fp16"
    text = getattr(diffusers, name).from_pretrained(
        folder,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        **settings,
    )
    family = FAMILIES[name]
    image = text
    if family.image_class:
        image = getattr(diffusers, family.image_class).from_pipe(text, dtype=dtype)
    for pipeline in (text, image):
        pipeline.set_progress_bar_config(disable=True)
    _place(order, text, image, device)
    _quicken(order, text, device)
    return Model(family, text, image, device)


def _is_plain(file: str) -> bool:
    return ".fp16" not in file


def _place(order: Load, text: Any, image: Any, device: torch.device) -> None:
    if order.offload == "none":
        text.to(device)
        return
    if device.type == "cpu":
        raise Unloadable(
            "unfit", "offload is from a GPU to the memory of its host: set it to none."
        )
    text.vae.enable_tiling()  # changes pictures a little where tiles meet, and bounds their memory
    if order.offload == "sequential":
        text.enable_sequential_cpu_offload(device=device)
        return
    for pipeline in {id(text): text, id(image): image}.values():
        pipeline.enable_model_cpu_offload(device=device)


def _quicken(order: Load, text: Any, device: torch.device) -> None:
    text.vae.enable_slicing()  # a batch is decoded one by one, in the memory of one
    unet = getattr(text, "unet", None)
    if unet is not None and device.type == "cuda":
        unet.to(memory_format=torch.channels_last)
        text.vae.to(memory_format=torch.channels_last)
    if order.compile:
        (unet or text.transformer).compile()


def _warm_up(model: Model, width: int, height: int) -> None:
    if width % model.multiple or height % model.multiple:
        raise Unloadable("unfit", f"sides have to be a multiple of {model.multiple} pixels.")
    model.text(prompt=[""], width=width, height=height, num_inference_steps=1)
