"""What a worker and an engine say to each other: orders go in, events come out, as lines of JSON.

An engine is a process that holds one set of weights on one device. It is told to load once, and
then draws one batch at a time; a stop may come in between.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

Device = str
"""``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Offload = Literal["none", "model", "sequential"]
EndCode = Literal["cancelled", "out_of_memory", "unsafe", "unfit", "failed"]
"""``unfit``: these weights cannot do what was asked."""
OUT_OF_MEMORY: Final = 3
"""The exit code of an engine that ran out of memory."""


class Load(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """Load the weights; the first order, and the only one of its kind.

    Args:
        weights: a folder, or the id of a repository in the hub's cache.
        compiled: a folder in which ``compile`` leaves what it makes to the next engine; empty: that
            for temporary files.
        warm_up: draw one picture of this width and height before telling that all is ready.

    """

    weights: str
    device: Device = "auto"
    dtype: Dtype = "auto"
    offload: Offload = "none"
    compile: bool = False
    compiled: str = ""
    safety: bool = False
    warm_up: tuple[int, int] | None = None


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """One picture of a batch.

    Args:
        id: the worker's name for it.
        references: files of reference images; as many in every picture of a batch.
        file: where it goes, as PNG.

    """

    id: str
    prompt: str
    seed: int
    file: str
    negative_prompt: str = ""
    references: tuple[str, ...] = ()


class Draw(msgspec.Struct, frozen=True, kw_only=True, tag="draw"):
    """Draw a batch: pictures that share all but prompt, seed and references.

    Args:
        width: pixels.
        height: pixels.
        strength: how far an image-to-image pipeline may leave its reference, 0 to 1.

    """

    pictures: tuple[Picture, ...]
    width: int
    height: int
    steps: int
    guidance: float
    strength: float | None = None


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """Do not draw this picture, or stop drawing it at the next step."""

    id: str


Order = Load | Draw | Stop


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The weights are loaded.

    Args:
        pipeline: the name of the pipeline's class.
        device: what ``auto`` came to.
        references: most reference images that a picture may have.
        seconds: that loading and warming up took.
        memory_bytes: the device's memory in use by the weights; resident memory on a CPU.
        picture_bytes: the most that the picture of the warm-up took beside them; 0: not known.
        free_bytes: that are left on the device; 0: not known.

    """

    pipeline: str
    device: str
    references: int
    seconds: float
    memory_bytes: int
    picture_bytes: int = 0
    free_bytes: int = 0


class Step(msgspec.Struct, frozen=True, kw_only=True, tag="step"):
    """The batch at hand came one step further."""

    done: Annotated[int, Meta(ge=0)]
    of: Annotated[int, Meta(gt=0)]


class Drawn(msgspec.Struct, frozen=True, kw_only=True, tag="drawn"):
    """A picture lies whole in its file."""

    id: str


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """A picture will not come.

    Args:
        message: for the operator.

    """

    id: str
    code: EndCode
    message: str


class Broken(msgspec.Struct, frozen=True, kw_only=True, tag="broken"):
    """The weights cannot be loaded; the process ends.

    Args:
        message: for the operator: what is wrong, and what would be right.

    """

    code: Literal["out_of_memory", "unfit", "missing"]
    message: str


Event = Ready | Step | Drawn | Ended | Broken
"""Every picture of a batch ends in one ``Drawn`` or ``Ended``; then the next may be ordered."""
