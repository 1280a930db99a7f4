"""What stable-diffusion.cpp must read in our requests, and what comes of all that it does."""

from typing import Final

from calotype.domain.channel import Served
from providers.fakes.sdcpp import EXPIRED, LOADED, SdCpp
from providers.free import AGAIN, SENT_AGAIN
from providers.protocol import BY_BASE64, POLLING, SENDING, Example, Protocol, dropped
from providers.scripts import Script

PROTOCOL: Final = Protocol(
    provider="sdcpp",
    fake=SdCpp,
    cancels=True,
    expected={
        **dropped(SENDING, Script.NO_CREDIT, Script.MODERATED),
        **SENT_AGAIN,
        **dropped(POLLING, Script.MODERATED),
        **BY_BASE64,
        Script.LOST: AGAIN,
        EXPIRED: AGAIN,
    },
    meanings={EXPIRED: "has finished the job and dropped it since (410)"},
    examples=(
        Example(
            model="flux-2-klein-4b",
            served=Served(id=LOADED),
            parameters={"aspect_ratio": "16:9", "seed": 7},
            reads_model="",
            reads={
                "width": 1360,
                "height": 768,
                "seed": 7,
                "batch_count": 1,
                "output_format": "jpeg",
            },
        ),
        Example(
            model="flux-2-klein-4b",
            served=Served(id=LOADED.removesuffix(".gguf")),
            parameters={"aspect_ratio": "auto", "resolution": "2K", "output_format": "png"},
            references=3,
            reads_model="",
            reads={
                "width": 2304,
                "height": 1728,
                "seed": -1,
                "batch_count": 1,
                "output_format": "png",
            },
        ),
        Example(
            model="qwen-image-2.0",
            parameters={"negative_prompt": "rain"},
            reads_model="",
            reads={
                "width": 1024,
                "height": 1024,
                "seed": -1,
                "negative_prompt": "rain",
                "batch_count": 1,
            },
        ),
        Example(
            model="flux-2-flex",
            parameters={"steps": 9},
            reads_model="",
            reads={
                "width": 1024,
                "height": 1024,
                "seed": -1,
                "sample_params": {"sample_steps": 9},
                "batch_count": 1,
                "output_format": "jpeg",
            },
        ),
    ),
)
