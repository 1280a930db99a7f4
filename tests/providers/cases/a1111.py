"""What an A1111 server must read in our requests, and what comes of each thing that it does."""

from typing import Final

from calotype.domain.channel import Served
from calotype.domain.outcomes import Fault
from providers.fakes.a1111 import A1111, CHECKPOINT, GRID_FIRST, MAPS_AFTER, OUT_OF_MEMORY
from providers.free import SENT_AGAIN
from providers.protocol import BY_BASE64, GOOD, SENDING, Example, Protocol, dropped, fails
from providers.scripts import Script

ALWAYS: Final = {"n_iter": 1, "batch_size": 1, "send_images": True, "save_images": False}

PROTOCOL: Final = Protocol(
    provider="a1111",
    fake=A1111,
    polls=False,
    expected={
        **dropped(SENDING, Script.NO_CREDIT, Script.MODERATED),
        **SENT_AGAIN,
        **BY_BASE64,
        Script.ERROR_500: fails("upstream_failed", Fault.UPSTREAM),
        OUT_OF_MEMORY: fails("upstream_failed", Fault.UPSTREAM),
        GRID_FIRST: GOOD,
        MAPS_AFTER: GOOD,
    },
    meanings={
        OUT_OF_MEMORY: "answers the send with 500, as its memory was not enough",
        GRID_FIRST: "puts a grid of all images before the image",
        MAPS_AFTER: "puts an extension's picture after the image",
    },
    examples=(
        Example(
            model="qwen-image-2.0",
            served=Served(id=CHECKPOINT),
            parameters={"aspect_ratio": "16:9", "seed": 7, "negative_prompt": "rain"},
            reads_model=CHECKPOINT,
            reads={**ALWAYS, "width": 1360, "height": 768, "seed": 7, "negative_prompt": "rain"},
        ),
        Example(
            model="flux-2-flex",
            parameters={"steps": 9, "guidance": 3.5},
            reads_model="",
            reads={
                **ALWAYS,
                "width": 1024,
                "height": 1024,
                "seed": -1,
                "steps": 9,
                "cfg_scale": 3.5,
            },
        ),
    ),
)
