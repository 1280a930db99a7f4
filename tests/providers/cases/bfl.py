"""What Black Forest Labs must read in our requests, and what comes of each thing that it does."""

from typing import Final

from providers.fakes.bfl import (
    CONTENT_MODERATED,
    FOREIGN_URL,
    FORGOTTEN_IN_WORDS,
    NO_SAMPLE,
    NO_URL,
    Bfl,
)
from providers.protocol import (
    BY_URL,
    CALLBACKS,
    GOOD,
    MODERATED,
    POLLING,
    SENDING,
    UNKNOWN,
    UNUSABLE,
    Example,
    Protocol,
)
from providers.scripts import Script

PROTOCOL: Final = Protocol(
    provider="bfl",
    fake=Bfl,
    expected={
        **SENDING,
        **{script: what for script, what in POLLING.items() if script != Script.CANCELLED},
        **BY_URL,
        **CALLBACKS,
        Script.MODERATED: MODERATED,
        Script.LOST: UNKNOWN,
        CONTENT_MODERATED: MODERATED,
        FOREIGN_URL: GOOD,
        NO_URL: GOOD,
        FORGOTTEN_IN_WORDS: UNKNOWN,
        NO_SAMPLE: UNUSABLE,
    },
    meanings={
        CONTENT_MODERATED: "takes the job and withholds its image by its content policy",
        FOREIGN_URL: "wants to be asked about the job at a host that is not its own",
        NO_URL: "does not say where to ask about the job",
        FORGOTTEN_IN_WORDS: "no longer knows a job that it took, and says so with 404",
        NO_SAMPLE: "says that it is done, and the result has no URL",
    },
    examples=(
        Example(
            model="flux-2-pro",
            parameters={"aspect_ratio": "16:9", "resolution": "2K", "seed": 7},
            reads_model="flux-2-pro",
            reads={"width": 2560, "height": 1440, "seed": 7, "output_format": "jpeg"},
        ),
        Example(
            model="flux-2-pro",
            parameters={"aspect_ratio": "auto", "output_format": "png"},
            references=8,
            reads_model="flux-2-pro",
            reads={"width": 1152, "height": 864, "output_format": "png"},
        ),
        Example(
            model="flux-2-max",
            parameters={"aspect_ratio": "2:3"},
            references=3,
            public=True,
            reads_model="flux-2-max",
            reads={"width": 832, "height": 1248, "output_format": "jpeg"},
        ),
        Example(
            model="flux-2-flex",
            parameters={"steps": 28, "guidance": 2.5, "seed": 0},
            reads_model="flux-2-flex",
            reads={
                "width": 1024,
                "height": 1024,
                "steps": 28,
                "guidance": 2.5,
                "seed": 0,
                "output_format": "jpeg",
            },
        ),
        Example(
            model="flux-2-klein-4b",
            parameters={"aspect_ratio": "3:4", "resolution": "2K"},
            references=4,
            reads_model="flux-2-klein-4b",
            reads={"width": 1728, "height": 2304, "output_format": "jpeg"},
        ),
        Example(
            model="flux-2-klein-9b",
            parameters={"aspect_ratio": "auto", "output_format": "png"},
            reads_model="flux-2-klein-9b",
            reads={"width": 1024, "height": 1024, "output_format": "png"},
        ),
    ),
)
