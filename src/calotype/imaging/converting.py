"""One converting process: orders in on standard input, replies out on standard output."""

import resource
import signal
import sys
import warnings
from typing import assert_never

import msgspec

from calotype.imaging import fitting, pixels
from calotype.imaging.conversion import (
    GRACE_SECONDS,
    LONGEST_SECONDS,
    MEMORY,
    Convert,
    Fit,
    NotConvertible,
    Order,
    Reply,
    Shrink,
)
from calotype.imaging.signature import Sign
from calotype.imaging.signing import sign


def main() -> None:
    """Convert until the input ends."""
    # These reach the whole group; the server decides when its processes end, by the input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")  # of strangers' files; they would fill the server's log
    pixels.prepare()
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        # A signal that nobody handles, so that it ends the process in the midst of a decoder.
        signal.setitimer(signal.ITIMER_REAL, LONGEST_SECONDS + GRACE_SECONDS)
        try:
            reply = _serve(order)
        except MemoryError:
            _answer(Reply("image", "The image takes too much memory to convert."))
            return  # as a fresh process has more
        signal.setitimer(signal.ITIMER_REAL, 0)
        _answer(reply)


def _answer(reply: Reply) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(reply) + b"\n")
    sys.stdout.buffer.flush()


def _serve(order: Order) -> Reply:
    try:
        match order:
            case Convert():
                return Reply(content_type=pixels.convert(order))
            case Shrink():
                pixels.shrink(order)
            case Fit():
                fitting.fit(order)
            case Sign():
                return _signed(order)
            case unknown:
                assert_never(unknown)
    except MemoryError:
        raise
    except NotConvertible as error:
        return Reply("image", str(error))
    except Exception as error:  # noqa: BLE001 -- the process boundary: decoders fail in every way
        if isinstance(error, OSError) and error.errno is not None:  # one of a decoder has none
            return Reply("system", "The conversion broke off.")
        return Reply("image", "The image cannot be decoded; it is damaged or was cut short.")
    return Reply()


def _signed(order: Sign) -> Reply:
    try:
        sign(order)
    except Exception as error:  # noqa: BLE001 -- the library's errors have no class in common
        return Reply("system", f"it could not be signed: {type(error).__name__}: {error}")
    return Reply()


if __name__ == "__main__":
    main()
