"""One drawing process: orders in on standard input, replies out on standard output."""

import signal
import sys

import msgspec

from calotype.providers.sandbox.drawing import Picture, draw
from calotype.providers.sandbox.studio import Order, Reply


def main() -> None:
    """Draw until the input ends."""
    # These reach the whole group; the server decides when its processes end, by the input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        sys.stdout.buffer.write(msgspec.json.encode(_serve(order)) + b"\n")
        sys.stdout.buffer.flush()


def _serve(order: Order) -> Reply:
    picture = Picture(
        prompt=order.prompt,
        model=order.model,
        width=order.width,
        height=order.height,
        format=order.format,
        label=order.label,
        references=order.references,
        place=order.place,
    )
    try:
        draw(picture, order.target)
    except Exception as error:  # noqa: BLE001 -- the process boundary: the server logs it
        return Reply(error=f"{type(error).__name__}: {error}")
    return Reply()


if __name__ == "__main__":
    main()
