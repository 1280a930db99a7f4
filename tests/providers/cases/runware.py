"""What Runware must read in our requests, and what comes of each thing that it does."""

from typing import Any, Final

from calotype.domain.channel import Served
from calotype.domain.outcomes import Fault
from providers.fakes.runware import (
    AT_ONCE,
    BUSY_IN_200,
    FLAGGED,
    IN_BASE64,
    IN_DATA,
    NO_ACK,
    PROVIDER_BROKE,
    REFUSED_IN_200,
    RUN_MODERATED,
    Runware,
)
from providers.protocol import (
    BY_BASE64,
    BY_URL,
    GOOD,
    MODERATED,
    POLLING,
    SENDING,
    UNKNOWN,
    Example,
    Protocol,
    Table,
    fails,
    retried,
)
from providers.scripts import Script

FOUND_AGAIN: Final[Table] = dict.fromkeys(
    (
        *(Script.ERROR_500, Script.ERROR_503, Script.CUT_BEFORE, Script.CUT_WITHIN),
        *(Script.SILENT, Script.MALFORMED, Script.ERROR_IN_200, Script.REDIRECTED),
    ),
    GOOD,
)
"""The answer is lost and the task is not: it is asked for by our own UUID."""
PNG: Final[dict[str, Any]] = {"outputFormat": "PNG"}

PROTOCOL: Final = Protocol(
    provider="runware",
    fake=Runware,
    recovers=True,
    expected={
        **SENDING,
        **FOUND_AGAIN,
        **POLLING,
        **BY_URL,
        **BY_BASE64,
        Script.LOST: UNKNOWN,
        REFUSED_IN_200: fails("upstream_rejected", Fault.REQUEST, purchases=0),
        BUSY_IN_200: retried(Fault.BUSY),
        PROVIDER_BROKE: fails("upstream_failed", Fault.UPSTREAM),
        NO_ACK: GOOD,
        AT_ONCE: GOOD,
        RUN_MODERATED: MODERATED,
        FLAGGED: MODERATED,
        IN_DATA: fails("upstream_failed", Fault.UPSTREAM),
        IN_BASE64: GOOD,
    },
    meanings={
        REFUSED_IN_200: "finds the request invalid, with a success status",
        BUSY_IN_200: "has no room, with a success status, then takes the job",
        PROVIDER_BROKE: "says at the send that its own upstream failed",
        NO_ACK: "takes the job and acknowledges nothing",
        AT_ONCE: "answers the send with the image, though it was to be fetched",
        RUN_MODERATED: "takes the job and ends it by its content policy",
        FLAGGED: "has finished, and marks the image as unsafe",
        IN_DATA: "fails at the job and says so in another place",
        IN_BASE64: "gives the image inside the answer all the same",
    },
    examples=(
        Example(
            model="gpt-image-2",
            parameters={"aspect_ratio": "16:9", "resolution": "2K"},
            reads_model="openai:gpt-image@2",
            reads={**PNG, "width": 2048, "height": 1152},
        ),
        Example(
            model="gpt-image-2",
            references=3,
            reads_model="openai:gpt-image@2",
            reads={**PNG, "width": 1152, "height": 864},
        ),
        Example(
            model="flux-2-pro",
            served=Served(id="bfl:5@1"),
            parameters={"aspect_ratio": "3:2", "resolution": "2K", "seed": 7},
            references=2,
            public=True,
            reads_model="bfl:5@1",
            reads={"width": 2496, "height": 1664, "seed": 7, "outputFormat": "JPG"},
        ),
        Example(
            model="nano-banana-pro",
            served=Served(id="google:4@2", edit="{id}-edit"),
            parameters={"aspect_ratio": "auto", "resolution": "2K"},
            references=1,
            reads_model="google:4@2-edit",
            reads={**PNG, "width": 2400, "height": 1792},
        ),
        Example(
            model="qwen-image-3.0",
            served=Served(id="alibaba:1@1"),
            parameters={"negative_prompt": "rain", "aspect_ratio": "1:1"},
            reads_model="alibaba:1@1",
            reads={**PNG, "width": 1024, "height": 1024, "negativePrompt": "rain"},
        ),
    ),
)
