"""Draws one batch."""

import contextlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from calotype.providers.diffusers import memory
from calotype.providers.diffusers.desk import Desk
from calotype.providers.diffusers.loading import Model, said
from calotype.providers.diffusers.wire import Draw, Picture, Step

USUAL_STRENGTH = 0.6


class _AllStopped(Exception):
    """Nobody waits for what is being drawn."""


def draw(model: Model, order: Draw, desk: Desk) -> None:
    """Draw a batch and tell the end of each of its pictures.

    Raises:
        Exception: after which nothing more can be drawn: memory ran out, or the GPU gave up.

    """
    try:
        calls = _calls(model, order, desk)
        for number, pictures in enumerate(calls):
            with contextlib.suppress(_AllStopped):
                _call(model, order, pictures, desk, steps_of=(number, len(calls)))
    except Exception as error:  # whatever a library raises ends the pictures at hand
        full = memory.is_full(error)
        for picture in order.pictures:
            desk.end(picture.id, "out_of_memory" if full else "failed", said(error))
        if full or isinstance(error, torch.AcceleratorError):
            raise


def _calls(model: Model, order: Draw, desk: Desk) -> list[list[Picture]]:
    """Part a batch into what one call of the pipeline can draw, without what none can."""
    calls: dict[Hashable, list[Picture]] = {}
    for picture in order.pictures:
        if reason := _misfit(model, order, picture):
            desk.end(picture.id, "unfit", reason)
        else:
            calls.setdefault(_alike(model, picture), []).append(picture)
    return list(calls.values())


def _misfit(model: Model, order: Draw, picture: Picture) -> str | None:
    """Say why these weights cannot draw this, if so: the library would round, or leave out."""
    family = model.family
    if order.width % model.multiple or order.height % model.multiple:
        return f"Width and height have to be a multiple of {model.multiple}."
    if picture.negative_prompt and not family.negative_prompt:
        return "These weights take no negative prompt."
    if len(picture.references) > family.references:
        return f"These weights take at most {family.references} reference images."
    if not family.image_class:
        return None if order.strength is None else "These weights take no strength."
    if picture.references and int(order.steps * _strength(order)) < 1:
        return f"Steps times strength ({_strength(order)}) has to be 1 or more."
    return None


def _strength(order: Draw) -> float:
    return USUAL_STRENGTH if order.strength is None else order.strength


def _alike(model: Model, picture: Picture) -> Hashable:
    """Tell which pictures go into one call.

    Pictures with a negative prompt and without differ, as some classes treat none as nothing and
    not as an empty text.
    """
    references = bool(picture.references) if model.family.image_class else picture.references
    return bool(picture.negative_prompt), references


def _call(
    model: Model, order: Draw, pictures: list[Picture], desk: Desk, *, steps_of: tuple[int, int]
) -> None:
    """Draw these in one call, which is the first number of that many."""
    number, calls = steps_of

    def after_step(pipeline: Any, step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
        if not any(desk.wants(picture.id) for picture in pictures):
            raise _AllStopped
        steps = pipeline.num_timesteps
        desk.tell(Step(done=number * steps + step + 1, of=calls * steps))
        return values

    pictures = [picture for picture in pictures if desk.wants(picture.id)]
    if not pictures:
        return
    try:
        arguments = _arguments(model, order, pictures)
    except FileNotFoundError:  # whoever stops a picture takes its references away, too
        if all(desk.wants(picture.id) for picture in pictures):
            raise
        _call(model, order, pictures, desk, steps_of=steps_of)
        return
    pipeline = model.image if pictures[0].references else model.text
    try:
        output = pipeline(**arguments, callback_on_step_end=after_step)
    finally:
        pipeline.maybe_free_model_hooks()  # which a pipeline that is stopped has not done
    unsafe = getattr(output, "nsfw_content_detected", None) or [False] * len(pictures)
    for picture, image, found in zip(pictures, output.images, unsafe, strict=True):
        if found:
            desk.end(picture.id, "unsafe", "The safety checker of these weights refused it.")
        else:
            _save(picture, image, desk)


def _arguments(model: Model, order: Draw, pictures: list[Picture]) -> dict[str, Any]:
    """Say an order in the words of the pipeline's class."""
    family = model.family
    arguments: dict[str, Any] = {
        "prompt": [picture.prompt for picture in pictures],
        "num_inference_steps": order.steps,
        family.guidance: order.guidance,
        # Of the CPU, so that a seed means the same noise on every device.
        "generator": [torch.Generator().manual_seed(picture.seed) for picture in pictures],
    }
    negatives = [picture.negative_prompt or family.blank_negative for picture in pictures]
    if any(negative is not None for negative in negatives):
        arguments["negative_prompt"] = negatives
    references = pictures[0].references
    if family.image_sized or not references:
        arguments |= {"width": order.width, "height": order.height}
    if references and family.image_class:
        size = (order.width, order.height)
        images = [ImageOps.fit(_read(picture.references[0]), size) for picture in pictures]
        arguments |= {"strength": _strength(order), "image": images}
    elif references:
        arguments["image"] = [_read(file) for file in references]
    return arguments


def _read(file: str) -> Image.Image:
    with Image.open(file) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def _save(picture: Picture, image: Image.Image, desk: Desk) -> None:
    file = Path(picture.file)
    draft = file.with_name(f"{file.name}.part")
    try:
        image.save(draft, "PNG")
    except FileNotFoundError:  # whoever stops a picture takes its folder away
        if desk.wants(picture.id):
            raise
        return
    desk.finish(picture.id, draft, file)
