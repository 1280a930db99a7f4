"""Images before people's eyes: in the terminal, or in the viewer that the desktop has."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from calotype.cli import show
from calotype.cli.inline import Graphics, drawn, graphics, terminal_has_sixel

_PROGRAMS: Final = {"darwin": "open"}
_ELSEWHERE: Final = "xdg-open"


class Viewer:
    """Shows images in the terminal that stdout is.

    Args:
        wanted: None shows them where the terminal can; True also says where it cannot.

    """

    def __init__(self, *, wanted: bool | None) -> None:
        self._wanted = wanted
        self._graphics: Graphics | None = None
        self._judged = wanted is False

    def show(self, path: Path) -> None:
        """Show the image of a file, if that can be done."""
        if not self._judged:
            self._graphics = self._judge()
            self._judged = True
        if self._graphics is None:
            return
        try:
            text = drawn(path, self._graphics, columns=shutil.get_terminal_size().columns)
        except OSError as error:
            show.note(f"{path} cannot be shown here ({error}).")
            return
        sys.stdout.write(text)
        sys.stdout.flush()

    def _judge(self) -> Graphics | None:
        found = None
        if sys.stdout.isatty():
            environment = os.environ  # noqa: TID251 -- what the terminal says of itself
            found = graphics(environment, has_sixel=terminal_has_sixel)
        if found is None and self._wanted:
            show.note(
                "--show: images are shown in terminals that know the graphics of kitty or iTerm2, "
                "or sixels; this one does not, or is behind tmux or screen."
                if sys.stdout.isatty()
                else "--show: what stdout goes to is no terminal."
            )
        return found


def open_outside(path: Path) -> None:
    """Open a file or a folder with the program that the desktop has for it."""
    if sys.platform == "win32":
        os.startfile(path)  # noqa: S606 -- no shell, and the path is ours
        return
    name = _PROGRAMS.get(sys.platform, _ELSEWHERE)
    program = shutil.which(name)
    if program is None:
        show.note(f"--open: there is no {name} on this machine; the file is {path}.")
        return
    quiet = subprocess.DEVNULL
    subprocess.Popen(  # noqa: S603 -- no shell; the path is absolute, so never an option
        [program, str(path.absolute())],
        stdin=quiet,
        stdout=quiet,
        stderr=quiet,
        start_new_session=True,
    )
