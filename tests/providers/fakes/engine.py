"""An engine for tests: the protocol of ``diffusers/wire.py`` by hand, a plain picture, no torch.

What it does is steered by words in the prompts, as the sandbox's prompts do; each order is written
to the file that ``PYTHON_ENGINE_LOG`` names. A picture is drawn when the file beside that log named
``go`` is there, or at once for a prompt without ``hold``.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from PIL import Image

STEPS = 4
LOG = Path(os.environ["PYTHON_ENGINE_LOG"])  # noqa: TID251 -- it is told nothing else
GO = LOG.parent / "go"
stopped: set[str] = set()
orders: list[dict[str, Any]] = []
came = threading.Condition()
line = threading.Lock()


def tell(**event: Any) -> None:
    with line:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()


def note(**what: Any) -> None:
    with LOG.open("a") as file:
        file.write(json.dumps({"pid": os.getpid(), **what}) + "\n")


def read() -> None:
    for text in sys.stdin:
        order = json.loads(text)
        with came:
            if order["type"] == "stop":
                if order["id"] not in stopped:
                    stopped.add(order["id"])
                    tell(type="ended", id=order["id"], code="cancelled", message="stopped")
            else:
                orders.append(order)
            came.notify()
    os._exit(0)


def next_order() -> dict[str, Any]:
    with came:
        came.wait_for(lambda: orders)
        return orders.pop(0)


def load(order: dict[str, Any]) -> None:
    note(load=order)
    weights = order["weights"]
    if "missing" in weights:
        tell(type="broken", code="missing", message=f"There is nothing in {weights}.")
        os._exit(1)
    if "crashing" in weights:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    while "slow" in weights and not GO.exists():
        time.sleep(0.01)
    tell(
        type="ready",
        pipeline="Fake",
        device="cuda:0",
        references=4,
        seconds=0.1,
        memory_bytes=1,
        picture_bytes=100,
        free_bytes=250 if "tight" in weights else 0,
    )


def draw(order: dict[str, Any]) -> None:
    pictures = order["pictures"]
    note(
        draw=[each["prompt"] for each in pictures],
        **{k: v for k, v in order.items() if k != "pictures"},
        seeds=[each["seed"] for each in pictures],
        references=[
            [len(Path(file).read_bytes()) for file in each["references"]]
            for each in pictures
            if "references" in each
        ],
    )
    words = " ".join(each["prompt"] for each in pictures)
    for done in range(1, STEPS + 1):
        tell(type="step", done=done, of=STEPS)
        if done == 2:
            while (
                "hold" in words and not GO.exists() and not {e["id"] for e in pictures} <= stopped
            ):
                time.sleep(0.01)
            if "die" in words:
                os.kill(os.getpid(), signal.SIGKILL)
            if "leave" in words:
                os._exit(7)
            if "always-full" in words or ("full" in words and len(pictures) > 1):
                for each in pictures:
                    tell(
                        type="ended",
                        id=each["id"],
                        code="out_of_memory",
                        message="CUDA out of memory",
                    )
                os._exit(3)
    for each in pictures:
        if each["id"] in stopped:
            continue
        code = next(
            (code for code in ("unsafe", "unfit", "failed") if code in each["prompt"]), None
        )
        if code:
            tell(type="ended", id=each["id"], code=code, message=f"it is {code}")
        else:
            Image.new("RGB", (order["width"], order["height"])).save(each["file"], "PNG")
            tell(type="drawn", id=each["id"])


def main() -> None:
    threading.Thread(target=read, daemon=True).start()
    load(next_order())
    while True:
        draw(next_order())


if __name__ == "__main__":
    main()
