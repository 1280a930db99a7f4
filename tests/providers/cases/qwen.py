"""What Model Studio must read in our requests, and what comes of each thing that it does."""

from typing import Any, Final

from calotype.domain.outcomes import Fault
from providers.fakes.qwen import (
    BAD_KEY_IN_200,
    BROKE,
    BUSY_IN_200,
    MODERATED_IN_200,
    NO_MONEY_IN_200,
    REFUSED_IN_200,
    Qwen,
)
from providers.protocol import BY_URL, SENDING, UNKNOWN, Example, Protocol, fails, retried

ALWAYS: Final[dict[str, Any]] = {"watermark": False, "n": 1}

PROTOCOL: Final = Protocol(
    provider="qwen",
    fake=Qwen,
    expected={
        **SENDING,
        **BY_URL,
        REFUSED_IN_200: fails("upstream_rejected", Fault.REQUEST, purchases=0),
        BUSY_IN_200: retried(Fault.BUSY),
        MODERATED_IN_200: fails("content_policy_violation", Fault.POLICY, purchases=0),
        NO_MONEY_IN_200: fails("upstream_unavailable", Fault.ACCOUNT, purchases=0),
        BAD_KEY_IN_200: fails("upstream_unavailable", Fault.KEY, purchases=0),
        BROKE: UNKNOWN,
    },
    meanings={
        REFUSED_IN_200: "finds the request invalid, with a success status",
        BUSY_IN_200: "has no room, with a success status, then takes the job",
        MODERATED_IN_200: "refuses the prompt by its content policy, with a success status",
        NO_MONEY_IN_200: "says with a success status that the account is empty",
        BAD_KEY_IN_200: "says with a success status that it does not know the key",
        BROKE: "answers the send with 500 and a code: it may have taken the job",
    },
    examples=(
        Example(
            model="qwen-image-2.0",
            parameters={"aspect_ratio": "16:9", "resolution": "2K"},
            reads_model="qwen-image-2.0",
            reads={**ALWAYS, "size": "2560*1440"},
        ),
        Example(
            model="qwen-image-2.0-pro",
            parameters={"negative_prompt": "rain", "seed": 7},
            references=1,
            reads_model="qwen-image-2.0-pro",
            reads={**ALWAYS, "size": "1024*1024", "negative_prompt": "rain", "seed": 7},
        ),
        Example(
            model="qwen-image-3.0",
            parameters={"output_format": "jpg"},
            references=3,
            reads_model="qwen-image-3.0",
            reads={**ALWAYS, "size": "1360*768"},
        ),
        Example(
            model="qwen-image-3.0-pro",
            parameters={"aspect_ratio": "21:9", "resolution": "2K"},
            references=2,
            public=True,
            reads_model="qwen-image-3.0-pro",
            reads={**ALWAYS, "size": "3024*1296"},
        ),
    ),
)
