"""Files as far as the system has them in memory: asked from the event loop, it waits for no disk.

Each of these says "not at once" where the disk would be asked, where the system cannot tell (only
Linux can), and where something is wrong; the same is then to be tried in a thread, the usual way.
"""

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

SHORT: Final = "An image on the disk has fewer bytes than were stored."

_OPENAT2: Final = 437
"""The system call's number, the same on every machine that came after it."""
_HERE: Final = -100
"""AT_FDCWD"""
_CACHED: Final = 0x20
"""RESOLVE_CACHED"""
_READ_NOW: Final = getattr(os, "RWF_NOWAIT", None)


class _How(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


_HOW: Final = _How(os.O_RDONLY | os.O_CLOEXEC, 0, _CACHED)
_system_call: Final = ctypes.CDLL(None).syscall if sys.platform == "linux" else None


def open_now(path: Path) -> int | None:
    """A descriptor for reading, to be closed; None: not at once."""
    if _system_call is None:
        return None
    name = os.fsencode(path)
    descriptor: int = _system_call(_OPENAT2, _HERE, name, ctypes.byref(_HOW), ctypes.sizeof(_HOW))
    return descriptor if descriptor >= 0 else None


def read_now(descriptor: int, *, start: int, count: int) -> bytearray | None:
    """So many bytes of a file; None: not at once, or not so many."""
    if _READ_NOW is None:
        return None
    data = bytearray(count)
    try:
        read = os.preadv(descriptor, [data], start, _READ_NOW)
    except OSError:
        return None
    return data if read == count else None


def is_in_memory(descriptor: int, *, start: int, count: int) -> bool:
    """Whether a part of a file is in memory, judged by both its ends."""
    return all(
        read_now(descriptor, start=place, count=1) is not None
        for place in (start, start + count - 1)
    )
