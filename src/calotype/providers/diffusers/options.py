"""What a channel of local pictures is set up with."""

import importlib.util
import re
from pathlib import Path
from typing import Final, get_args

import msgspec

from calotype.domain.channel import Channel
from calotype.domain.wire import Upstream
from calotype.providers.diffusers.wire import Dtype, Load, Offload
from calotype.providers.kind import SetUpFault
from calotype.tables import joined

BATCH: Final = 4
"""Most pictures drawn at once, where a channel says nothing."""
CPU_BATCH: Final = 1
"""The same on a CPU, which gains nothing by more."""
MOST: Final = 64
"""Of a batch."""
_WINDOW_MS: Final = 20
_LONGEST_WINDOW_MS: Final = 10_000
_DEVICE: Final = re.compile(r"auto|cpu|cuda(:[0-9]{1,2})?")
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_LIBRARIES: Final = ("torch", "diffusers")

OPTIONS: Final = {
    "weights": (
        "a folder of weights as diffusers saves them, or the owner/name of a repository that "
        "`calotype local pull` fetched; a relative folder begins where calotype.toml lies; left "
        "out: the repository of the model"
    ),
    "device": "auto (default: the first GPU, else the CPU), cpu, cuda or cuda:N",
    "dtype": "auto (default: bfloat16 on a GPU, float32 on a CPU), float32, bfloat16 or float16",
    "offload": "none (default), model or sequential: what waits in main memory until it is used",
    "compile": '"true": compile the model at start; slow to start, faster to draw',
    "safety": '"true": ask the checker that comes with the weights; without one they are refused',
    "batch": f"most pictures drawn at once, 1 to {MOST} (default {BATCH}, on a CPU {CPU_BATCH})",
    "batch_window_ms": "how long a picture waits for company, in milliseconds (default 20)",
    "warm_up": '"false": load the weights at the first task, not at the start',
}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a channel, read.

    Args:
        load: the order that loads the weights, warm-up apart.
        batch: most pictures drawn at once; None: what fits the device that ``auto`` comes to.
        window_seconds: how long a picture waits for company.
        warm_up: load with the worker's start.

    """

    load: Load
    batch: int | None
    window_seconds: float
    warm_up: bool

    def most(self, device: str) -> int:
        """Most pictures drawn at once on a device."""
        if self.batch is not None:
            return self.batch
        return CPU_BATCH if device == "cpu" else BATCH


def read(channel: Channel, data: Path | None = None) -> Options:
    """The options of a channel.

    Args:
        channel: whose they are.
        data: the folder in which what is compiled is kept; None: it is not to be loaded.

    Raises:
        SetUpFault: one is no such value.

    """
    said = channel.options
    device = said.get("device", "auto")
    if not _DEVICE.fullmatch(device):
        raise _fault("device", f"'{device}' is no device; write auto, cpu, cuda or cuda:0.")
    _choice(channel, "dtype", get_args(Dtype))
    _choice(channel, "offload", get_args(Offload))
    load = Load(
        weights=said.get("weights", ""),
        device=device,
        dtype=said.get("dtype", "auto"),  # type: ignore[arg-type]  # just judged
        offload=said.get("offload", "none"),  # type: ignore[arg-type]  # just judged
        compile=_switch(channel, "compile", default=False),
        compiled="" if data is None else str((data / "compiled").absolute()),
        safety=_switch(channel, "safety", default=False),
    )
    window = _number(channel, "batch_window_ms", most=_LONGEST_WINDOW_MS)
    return Options(
        load=load,
        batch=_number(channel, "batch", least=1, most=MOST),
        window_seconds=_WINDOW_MS / 1000 if window is None else window / 1000,
        warm_up=_switch(channel, "warm_up", default=True),
    )


def set_up(channel: Channel, upstream: Upstream, beside: Path) -> Channel:
    """The channel with its weights named, and with as many tasks at a time as its engine can use.

    That is what is drawn, and as much again that gathers meanwhile.

    Raises:
        SetUpFault: an option is wrong, or it is not said what to draw with.

    """
    options = read(channel)
    said = {**channel.options, "weights": _weights(channel, upstream, beside)}
    return msgspec.structs.replace(
        channel,
        options=said,
        concurrency=channel.concurrency or 2 * options.most(options.load.device),
    )


def check_here(channel: Channel) -> None:
    """See, without importing them, whether the libraries and a folder of weights are here.

    Raises:
        SetUpFault: something is not.

    """
    lacking = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if lacking:
        message = f"diffusers needs {' and '.join(lacking)}; run pip install 'calotype[local]'."
        raise SetUpFault(message, key="provider")
    weights = channel.options["weights"]
    if Path(weights).is_absolute() and not _is_folder(Path(weights)):
        message = f"there is no folder {weights}; put the weights there, or name the folder."
        raise _fault("weights", message)


def _weights(channel: Channel, upstream: Upstream, beside: Path) -> str:
    """The id of a repository of the hub, or a folder, absolute."""
    models = channel.models or {}
    if own := [name for name, served in models.items() if served.id or served.edit]:
        message = "the weights are named by options.weights; take the id out."
        raise SetUpFault(message, key=joined("models", own[0]))
    said = channel.options.get("weights")
    if said is None:
        known = {wire.id for name in models if (wire := upstream.wire(name)) is not None}
        if len(known) > 1:
            message = (
                "one channel draws with one set of weights; give each model a channel of its own."
            )
            raise SetUpFault(message, key="models")
        said = known.pop()
    try:
        folder = (beside / Path(said).expanduser()).absolute()
    except RuntimeError:
        raise _fault("weights", f"there is no such home folder as in '{said}'.") from None
    if said.startswith((".", "/", "~")) or (said and _is_folder(folder)):
        return str(folder)
    if not _HUB_ID.fullmatch(said):
        message = (
            f"'{said}' is no folder and no repository; write ./folder, or owner/name as the hub "
            "has it."
        )
        raise _fault("weights", message)
    return said


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # too long a name, or within what we may not look into
        return False


def _choice(channel: Channel, name: str, known: tuple[str, ...]) -> None:
    said = channel.options.get(name, known[0])
    if said not in known:
        raise _fault(name, f"there is no '{said}'; write one of {', '.join(known)}.")


def _switch(channel: Channel, name: str, *, default: bool) -> bool:
    said = channel.options.get(name, "true" if default else "false")
    if said not in {"true", "false"}:
        raise _fault(name, f'\'{said}\' is neither; write "true" or "false".')
    return said == "true"


def _number(channel: Channel, name: str, *, least: int = 0, most: int) -> int | None:
    said = channel.options.get(name)
    if said is None:
        return None
    if not (re.fullmatch(r"[0-9]{1,9}", said) and least <= int(said) <= most):
        raise _fault(name, f"'{said}' is out of bounds; write a whole number, {least} to {most}.")
    return int(said)


def _fault(name: str, message: str) -> SetUpFault:
    return SetUpFault(message, key=f"options.{name}")
