"""What Replicate must read in our requests, and what comes of each thing that it does."""

from typing import Final

from calotype.domain.channel import Served
from calotype.domain.outcomes import Fault
from providers.fakes.replicate import (
    ABORTED,
    BUSY_IN_WORDS,
    NO_SUCH_IMAGE,
    ONE_STRING,
    OUT_OF_MEMORY,
    Replicate,
)
from providers.protocol import (
    BY_URL,
    CALLBACKS,
    GOOD,
    MODERATED,
    POLLING,
    SENDING,
    UNUSABLE,
    Example,
    Protocol,
    fails,
    retried,
)
from providers.scripts import Script

VERSION: Final = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
SHAPE: Final = {"aspect_ratio": "16:9", "resolution": "2K"}

PROTOCOL: Final = Protocol(
    provider="replicate",
    fake=Replicate,
    cancels=True,
    expected={
        **SENDING,
        **POLLING,
        **BY_URL,
        **CALLBACKS,
        Script.MODERATED: MODERATED,
        BUSY_IN_WORDS: retried(Fault.BUSY),
        ONE_STRING: GOOD,
        ABORTED: fails("cancelled", Fault.UPSTREAM),
        OUT_OF_MEMORY: fails("upstream_failed", Fault.UPSTREAM),
        NO_SUCH_IMAGE: UNUSABLE,
    },
    meanings={
        BUSY_IN_WORDS: "answers 429 and says how long to wait in the text alone",
        ONE_STRING: "gives the output as a string instead of a list",
        ABORTED: "takes the job and ends it before it begins",
        OUT_OF_MEMORY: "fails with a platform error (E1001)",
        NO_SUCH_IMAGE: "has finished and removed the output already",
    },
    examples=(
        Example(
            model="nano-banana-pro",
            parameters=SHAPE,
            reads_model="google/nano-banana-pro",
            reads={**SHAPE, "output_format": "png"},
        ),
        Example(
            model="nano-banana-pro",
            parameters={"aspect_ratio": "auto", "output_format": "jpg"},
            references=3,
            reads_model="google/nano-banana-pro",
            reads={"resolution": "1K", "output_format": "jpg"},
        ),
        Example(
            model="nano-banana-2",
            parameters={"aspect_ratio": "1:8", "resolution": "4K"},
            references=2,
            public=True,
            reads_model="google/nano-banana-2",
            reads={"aspect_ratio": "1:8", "resolution": "4K", "output_format": "jpg"},
        ),
        Example(
            model="gpt-image-2",
            parameters={"aspect_ratio": "9:16"},
            references=1,
            reads_model="openai/gpt-image-2",
            reads={"aspect_ratio": "9:16", "quality": "medium", "output_format": "png"},
        ),
        Example(
            model="flux-2-pro",
            parameters={"aspect_ratio": "auto", "seed": 7},
            references=1,
            reads_model="black-forest-labs/flux-2-pro",
            reads={
                "aspect_ratio": "match_input_image",
                "resolution": "1 MP",
                "seed": 7,
                "output_format": "jpg",
            },
        ),
        Example(
            model="nano-banana-pro",
            served=Served(id=f"acme/bananas:{VERSION}"),
            reads_model=VERSION,
            reads={"aspect_ratio": "1:1", "resolution": "1K", "output_format": "png"},
        ),
        Example(
            model="nano-banana-pro",
            served=Served(id="deployments/acme/bananas"),
            reads_model="deployments/acme/bananas",
            reads={"aspect_ratio": "1:1", "resolution": "1K", "output_format": "png"},
        ),
    ),
)
