"""What a device's memory has in use, and whether an error says that it is full."""

from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


def is_full(error: BaseException) -> bool:
    """Tell whether this is how torch, or a library below it, says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch has no class of its own for a CPU's memory, nor safetensors for a map that failed.
    text = str(error).lower()
    return any(phrase in text for phrase in ("out of memory", "allocate memory"))


def in_use(device: torch.device) -> int:
    """Bytes that torch holds on a GPU, or that this process has resident; 0: not known."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return _resident("VmRSS")


def forget_peak(device: torch.device) -> None:
    """Measure the peak from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _PROCESS.exists():
        (_PROCESS / "clear_refs").write_text("5")  # proc(5): resets the peak of resident memory


def peak(device: torch.device) -> int:
    """Most bytes in use since the last ``forget_peak``; 0: not known."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _resident("VmHWM")


def free(device: torch.device) -> int:
    """Bytes left on a GPU; 0: not known, as a container's limit hides a CPU's."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0


def _resident(field: str) -> int:
    if not _PROCESS.exists():
        return 0
    for line in (_PROCESS / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return 0
