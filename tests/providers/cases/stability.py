"""What Stability must read in our requests, and what comes of each thing that it does."""

from typing import Final

from calotype.domain.channel import Served
from calotype.domain.outcomes import Fault
from providers.fakes.stability import (
    ENDED_BADLY,
    FILTERED,
    FLAGGED_400,
    STRANGE_END,
    Stability,
)
from providers.protocol import BY_BASE64, GOOD, MODERATED, SENDING, Example, Protocol, fails
from providers.scripts import Script

POLICY: Final = fails("content_policy_violation", Fault.POLICY, purchases=0)

PROTOCOL: Final = Protocol(
    provider="stability",
    fake=Stability,
    polls=False,
    expected={
        **SENDING,
        **BY_BASE64,
        Script.ERROR_IN_200: fails("upstream_failed", Fault.UPSTREAM),
        FILTERED: MODERATED,
        FLAGGED_400: POLICY,
        ENDED_BADLY: fails("upstream_failed", Fault.UPSTREAM),
        STRANGE_END: GOOD,
    },
    meanings={
        FILTERED: "answers 200 with an image that its content policy blurred",
        FLAGGED_400: "refuses the prompt by its content policy, with the status of any bad request",
        ENDED_BADLY: "answers 200 with an image and says that it failed",
        STRANGE_END: "answers 200 with an image, and a reason that its documentation does not name",
    },
    # The catalog has no model of Stability's; two of others stand for one of the operator's own.
    examples=(
        Example(
            model="recraft-v4.1",
            served=Served(id="core"),
            parameters={"aspect_ratio": "3:2"},
            reads_model="core",
            reads={"aspect_ratio": "3:2", "output_format": "png"},
        ),
        Example(
            model="flux-2-pro",
            served=Served(id="sd3.5-large"),
            parameters={"seed": 7, "output_format": "jpg"},
            reads_model="sd3.5-large",
            reads={"aspect_ratio": "1:1", "seed": "7", "output_format": "jpeg"},
        ),
        Example(
            model="qwen-image-2.0",
            served=Served(id="ultra"),
            parameters={"aspect_ratio": "21:9", "negative_prompt": "rain"},
            reads_model="ultra",
            reads={"aspect_ratio": "21:9", "negative_prompt": "rain", "output_format": "png"},
        ),
    ),
)
