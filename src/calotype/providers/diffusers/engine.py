"""The process that draws: ``python -P -m calotype.providers.diffusers.engine``.

It reads an order a line on its standard input and writes an event a line on its standard output.
It ends when its input ends, with 3 when memory ran out, and with 1 when it cannot load or draw on.
"""

import os
import queue
import signal
import threading
import traceback
from pathlib import Path
from typing import BinaryIO

import msgspec

from calotype.providers.diffusers.desk import Desk
from calotype.providers.diffusers.wire import OUT_OF_MEMORY, Broken, Draw, Load, Order, Stop


def main() -> None:
    """Serve one worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which ends this
    os.environ["HF_HUB_OFFLINE"] = "1"  # noqa: TID251 -- told to libraries; nothing is fetched here
    orders, line = _take_standard_streams()
    desk = Desk(line)
    waiting: queue.SimpleQueue[Load | Draw] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(orders, desk, waiting), daemon=True).start()
    try:
        _work(desk, waiting)
    except Exception:  # noqa: BLE001 -- both threads end the process, whatever went wrong
        traceback.print_exc()
        os._exit(1)


def _take_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """Keep both for orders and events; a library that prints then writes to standard error."""
    orders = os.fdopen(os.dup(0), "rb")
    line = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return orders, line


def _read(orders: BinaryIO, desk: Desk, waiting: "queue.SimpleQueue[Load | Draw]") -> None:
    """Read orders while a batch is drawn, and end the process with its worker."""
    decoder = msgspec.json.Decoder(Order)
    try:
        for text in orders:
            order = decoder.decode(text)
            if isinstance(order, Stop):
                desk.end(order.id, "cancelled", "It was stopped.")
                continue
            if isinstance(order, Draw):
                desk.take(picture.id for picture in order.pictures)
            waiting.put(order)
    except Exception:  # noqa: BLE001 -- both threads end the process, whatever went wrong
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _work(desk: Desk, waiting: "queue.SimpleQueue[Load | Draw]") -> None:
    order = waiting.get()
    if not isinstance(order, Load):
        raise TypeError("The first order has to be to load.")
    if order.compile and order.compiled:
        # A part of it torch keeps beside other temporary files, whatever it is told elsewhere.
        Path(order.compiled).mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"] = order.compiled  # noqa: TID251 -- told to torch
    from calotype.providers.diffusers import drawing, loading, memory  # and with them torch

    try:
        model, ready = loading.load(order)
    except loading.Unloadable as error:
        desk.tell(Broken(code=error.code, message=error.message))
        os._exit(OUT_OF_MEMORY if error.code == "out_of_memory" else 1)
    desk.tell(ready)
    while True:
        order = waiting.get()
        if not isinstance(order, Draw):
            raise TypeError("Weights are loaded once.")
        try:
            drawing.draw(model, order, desk)
        except Exception as error:
            if memory.is_full(error):
                os._exit(OUT_OF_MEMORY)
            raise


if __name__ == "__main__":
    main()
