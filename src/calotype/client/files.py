"""Where images go: what their files are called, and files that are there whole or not at all."""

import contextlib
import errno
import mimetypes
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit

from calotype.client.documents import Image

_SUFFIX: Final = re.compile(r"\.[A-Za-z0-9_-]{1,16}")
"""Of a file that is named as the server says."""


def numbered(target: Path, place: int) -> Path:
    """Where the image at this place goes."""
    return target.with_name(f"{target.stem}-{place}{target.suffix}")


def suffix_of(image: Image) -> str:
    """The ending of an image's file, with its dot."""
    guessed = mimetypes.guess_extension(image.content_type or "", strict=False)
    suffix = guessed or Path(urlsplit(image.url).path).suffix
    return suffix if _SUFFIX.fullmatch(suffix) else ".image"


def replaceable(target: Path) -> Path | None:
    """The file to put in the target's place, behind links; None for a device or a pipe.

    Raises:
        OSError: it is a folder, or cannot be reached.

    """
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    return target.resolve() if stat.S_ISREG(mode) else None


@contextlib.contextmanager
def beside(target: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new file in the same folder, which is gone after the block unless it was renamed.

    Nothing here is awaited, so that no cancelling can come between.
    """
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    file = partial.open("xb")
    try:
        with file:
            yield partial, file
    finally:
        partial.unlink(missing_ok=True)
