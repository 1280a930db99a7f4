"""What ModelArk must read in our requests, and what comes of each thing that it does."""

from typing import Any, Final

from calotype.domain.channel import Served
from calotype.domain.outcomes import Fault
from providers.fakes.seedream import (
    DOTTED,
    IN_BASE64,
    MODERATED_IMAGE,
    MODERATED_RESULT,
    NOT_OPEN,
    ONE_FAILED,
    Seedream,
)
from providers.protocol import BY_URL, GOOD, MODERATED, SENDING, Example, Protocol, fails
from providers.scripts import Script

ALWAYS: Final[dict[str, Any]] = {"watermark": False, "response_format": "url"}
POLICY: Final = fails("content_policy_violation", Fault.POLICY, purchases=0)

PROTOCOL: Final = Protocol(
    provider="seedream",
    fake=Seedream,
    expected={
        **SENDING,
        **BY_URL,
        Script.ERROR_IN_200: fails("upstream_failed", Fault.UPSTREAM),
        MODERATED_IMAGE: POLICY,
        DOTTED: POLICY,
        MODERATED_RESULT: MODERATED,
        ONE_FAILED: fails("upstream_failed", Fault.UPSTREAM),
        NOT_OPEN: fails("upstream_unavailable", Fault.MODEL, purchases=0),
        IN_BASE64: GOOD,
    },
    meanings={
        MODERATED_IMAGE: "refuses a reference by its content policy",
        DOTTED: "refuses the prompt by its content policy, under a code that goes on after a dot",
        MODERATED_RESULT: "answers 200, and in place of the image with a policy error",
        ONE_FAILED: "answers 200, and in place of the image with an error",
        NOT_OPEN: "has the model, and the operator's account there has not switched it on",
        IN_BASE64: "gives the image inside the answer all the same",
    },
    examples=(
        Example(
            model="seedream-4.5",
            parameters={"aspect_ratio": "21:9", "resolution": "4K"},
            reads_model="seedream-4-5-251128",
            reads={**ALWAYS, "size": "6048x2592"},
        ),
        Example(
            model="seedream-4.5",
            references=1,
            reads_model="seedream-4-5-251128",
            reads={**ALWAYS, "size": "2048x2048"},
        ),
        Example(
            model="seedream-5-lite",
            parameters={"aspect_ratio": "3:2", "resolution": "3K", "output_format": "png"},
            references=4,
            reads_model="seedream-5-0-260128",
            reads={**ALWAYS, "size": "3744x2496", "output_format": "png"},
        ),
        Example(
            model="seedream-5-pro",
            served=Served(id="seedream-5-0-pro-dated"),
            references=2,
            public=True,
            reads_model="seedream-5-0-pro-dated",
            reads={**ALWAYS, "size": "1024x1024", "output_format": "jpeg"},
        ),
        Example(
            model="seedream-5.5",
            served=Served(id="doubao-seedream-5-5-dated"),
            parameters={"resolution": "1.5K"},
            reads_model="doubao-seedream-5-5-dated",
            reads={**ALWAYS, "size": "1536x1536", "output_format": "jpeg"},
        ),
    ),
)
