"""Staged images become durable in a folder: those that wait together share a trip to a thread."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from calotype.assets.staging import StagedFile, to_its_end

CROWD: Final = 8
"""For each trip under way so many more have to wait before another one begins beside it.

On a quick disk one thread at a time costs least: each of its system calls contends with the event
loop for the interpreter. On a slow one, syncs that wait side by side bring more images home.
"""


class _Order:
    """An image that is to get its place."""

    def __init__(self, staged: StagedFile, key: str) -> None:
        self.staged = staged
        self.key = key
        self.folder = key.rpartition("/")[0]
        self.fault: OSError | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Publisher:
    """Gives images their places under ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._waiting: list[_Order] = []
        self._trips = 0
        self._synced: set[str] = set()
        """Folders in it that are known to be on the disk."""

    async def publish(self, staged: StagedFile, key: str) -> None:
        """Return when the image is durable under its key.

        Raises:
            OSError: it may be there or not; stage it anew to publish it again.

        """
        order = _Order(staged, key)
        self._waiting.append(order)
        if len(self._waiting) > self._trips * CROWD:
            self._begin()
        await to_its_end(order.done)

    def _begin(self) -> None:
        orders, self._waiting = self._waiting, []
        self._trips += 1
        work = asyncio.get_running_loop().run_in_executor(None, self._publish, orders)
        work.add_done_callback(lambda done: self._end(orders, done.exception()))

    def _end(self, orders: list[_Order], fault: BaseException | None) -> None:
        self._trips -= 1
        if self._waiting:
            self._begin()
        for order in orders:
            if (trouble := order.fault or fault) is not None:
                order.done.set_exception(trouble)
            else:
                order.done.set_result(None)

    def _publish(self, orders: list[_Order]) -> None:
        """Step by step for all: by its first sync, a file system mostly writes them all."""
        for step in (self._write, _sync, self._name):
            for order in orders:
                if order.fault is None:
                    try:
                        step(order)
                    except OSError as error:
                        order.fault = error
        for folder in {order.folder for order in orders if order.fault is None}:
            try:
                _sync_folder(self._root / folder)
            except OSError as error:
                for order in orders:
                    if order.folder == folder:
                        order.fault = error

    def _write(self, order: _Order) -> None:
        """One that is in memory gets its name first: its sync then brings that to the disk, too."""
        self._in_its_folder(order, order.staged.write_as)

    def _name(self, order: _Order) -> None:
        self._in_its_folder(order, order.staged.rename)

    def _in_its_folder(self, order: _Order, step: Callable[[Path], None]) -> None:
        path = self._root / order.key
        try:
            self._make_folders(order.folder)
            step(path)
        except FileNotFoundError:  # somebody removed the folder meanwhile
            self._synced.clear()
            self._make_folders(order.folder)
            step(path)

    def _make_folders(self, folder: str) -> None:
        """Make a folder durable with those that it is in, the outermost first."""
        if folder and folder not in self._synced:
            parent = folder.rpartition("/")[0]
            self._make_folders(parent)
            if not self._root.exists():
                self._root.mkdir(parents=True, exist_ok=True)
                _sync_folder(self._root.parent)
            (self._root / folder).mkdir(exist_ok=True)
            _sync_folder(self._root / parent)
            self._synced.add(folder)


def _sync(order: _Order) -> None:
    order.staged.sync()


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
