"""``make bench-local``: pictures a second from an engine, beside diffusers called plainly.

Both draw the same batches in turns, with the same weights, device, dtype, steps and size, and save
PNG. Weights are a folder, or random ones of a real configuration: speed does not depend on values.
"""

import argparse
import asyncio
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from calotype.providers.diffusers.engines import MODULE, Engine
from calotype.providers.diffusers.wire import Draw, Drawn, Event, Load, Picture
from local.weights import tiny
from table import Figures, Floor, console

BATCHES = (1, 4, 8)
_PROMPT = "a lighthouse on a cliff at dusk"
_SILENT_SECONDS = 3600.0
_CLIP = {"vocab_size": 49408, "bos_token_id": 512, "eos_token_id": 513}
"""Sizes of the real one; the marks are those of the tiny tokenizer."""


async def measure(folder: Path, weights: Path, options: argparse.Namespace) -> None:
    """Take turns, and show the medians."""
    figures = Figures()
    pipeline = _plain(weights, options)
    engine = await Engine.start(MODULE, silent_seconds=_SILENT_SECONDS)
    try:
        load = Load(weights=str(weights), device=options.device, dtype=options.dtype)
        ready = await engine.load(load)
        for batch in options.batches:
            order = _order(folder, batch, options)
            await _engine_seconds(engine, order)  # the first of a shape is slower
            _plain_seconds(pipeline, order)
            for _ in range(options.runs):
                ours = batch / await _engine_seconds(engine, order)
                plain = batch / _plain_seconds(pipeline, order)
                figures.add(
                    f"{ready.pipeline} on {ready.device}, batch {batch}",
                    ours,
                    " images/s",
                    floor=Floor(plain, "plain diffusers"),
                )
    finally:
        await engine.end()
    figures.show()


def _order(folder: Path, batch: int, options: argparse.Namespace) -> Draw:
    return Draw(
        pictures=tuple(
            Picture(id=str(place), prompt=_PROMPT, seed=place, file=str(folder / f"{place}.png"))
            for place in range(batch)
        ),
        width=options.size,
        height=options.size,
        steps=options.steps,
        guidance=0.0,
    )


async def _engine_seconds(engine: Engine, order: Draw) -> float:
    ends: list[Event] = []
    began = time.perf_counter()
    await engine.draw(order, ends.append)
    spent = time.perf_counter() - began
    if sum(isinstance(one, Drawn) for one in ends) < len(order.pictures):
        raise RuntimeError(f"The engine did not draw: {ends[-1]}")
    return spent


def _plain(weights: Path, options: argparse.Namespace) -> Any:
    dtype = getattr(torch, options.dtype)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(weights, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(options.device)


def _plain_seconds(pipeline: Any, order: Draw) -> float:
    began = time.perf_counter()
    images = pipeline(
        prompt=[each.prompt for each in order.pictures],
        generator=[torch.Generator().manual_seed(each.seed) for each in order.pictures],
        width=order.width,
        height=order.height,
        num_inference_steps=order.steps,
        guidance_scale=order.guidance,
    ).images
    for each, image in zip(order.pictures, images, strict=True):
        image.save(each.file, "PNG")
    return time.perf_counter() - began


def random_weights(name: str, folder: Path, dtype: str) -> Path:
    """Save random weights of a real configuration; only the vocabulary's words are tiny ones'."""
    if name == "tiny":
        return tiny("sd", folder)
    kind, parts = {"sd-turbo": ("sd", _sd_turbo), "sdxl-turbo": ("sdxl", _sdxl_turbo)}[name]
    base = diffusers.DiffusionPipeline.from_pretrained(tiny(kind, folder))
    pipeline = type(base)(**{**base.components, **parts()}, **_unchecked(kind))
    pipeline.to(dtype=getattr(torch, dtype)).save_pretrained(folder / name)
    return folder / name


def _unchecked(kind: str) -> dict[str, bool]:
    return {"requires_safety_checker": False} if kind == "sd" else {}


def _sd_turbo() -> dict[str, Any]:
    """As of stabilityai/sd-turbo: the sizes of Stable Diffusion 2.1."""
    return {
        "unet": diffusers.UNet2DConditionModel(
            sample_size=64,
            cross_attention_dim=1024,
            attention_head_dim=[5, 10, 20, 20],
            use_linear_projection=True,
        ),
        "vae": _vae(),
        "text_encoder": _text(transformers.CLIPTextModel, hidden=1024, layers=23, heads=16),
    }


def _sdxl_turbo() -> dict[str, Any]:
    """As of stabilityai/sdxl-turbo: the sizes of Stable Diffusion XL."""
    return {
        "unet": diffusers.UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=[1, 2, 10],
            attention_head_dim=[5, 10, 20],
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        ),
        "vae": _vae(),
        "text_encoder": _text(transformers.CLIPTextModel, hidden=768, layers=12, heads=12),
        "text_encoder_2": _text(
            transformers.CLIPTextModelWithProjection, hidden=1280, layers=32, heads=20
        ),
    }


def _vae() -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
    )


def _text(model: Callable[[Any], Any], *, hidden: int, layers: int, heads: int) -> Any:
    config = transformers.CLIPTextConfig(
        **_CLIP,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        projection_dim=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
    )
    return model(config).eval()


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--weights", type=Path, help="a folder as diffusers saves it")
    weights.add_argument("--random", choices=["tiny", "sd-turbo", "sdxl-turbo"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16" if torch.cuda.is_available() else "float32")
    parser.add_argument("--size", type=int, default=512, help="of both sides, in pixels; 512")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5, help="turns of each batch; 5")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="calotype-bench-") as name:
        folder = Path(name)
        found = options.weights or random_weights(options.random, folder, options.dtype)
        console.print(f"torch {torch.__version__}, {options.size} px, steps: {options.steps}")
        asyncio.run(measure(folder, found, options))


if __name__ == "__main__":
    main()
