"""What OpenAI must read in our requests, and what comes of each thing that it does."""

from typing import Final

from calotype.domain.outcomes import Fault
from providers.fakes.openai import BAD_GATEWAY, HARD_LIMIT, OVERLOADED, UNVERIFIED, OpenAI
from providers.protocol import BY_BASE64, SENDING, UNKNOWN, Example, Protocol, fails
from providers.scripts import Script

EXAMPLES: Final = (
    Example(
        model="gpt-image-2",
        parameters={"aspect_ratio": "16:9", "resolution": "4K"},
        reads_model="gpt-image-2",
        reads={"size": "3840x2160", "quality": "medium"},
    ),
    Example(
        model="gpt-image-2",
        references=1,
        reads_model="gpt-image-2",
        reads={"size": "auto", "quality": "medium"},
    ),
    Example(
        model="gpt-image-2",
        parameters={"aspect_ratio": "1:1", "resolution": "2K"},
        references=8,
        reads_model="gpt-image-2",
        reads={"size": "2048x2048", "quality": "medium"},
    ),
    Example(
        model="gpt-image-2.5-flare",
        parameters={"aspect_ratio": "3:4", "output_format": "jpg"},
        reads_model="gpt-image-2.5-flare",
        reads={
            "size": "864x1152",
            "quality": "medium",
            "background": "auto",
            "output_format": "jpeg",
        },
    ),
    Example(
        model="gpt-image-2.5-sunburst",
        parameters={"background": "transparent", "output_format": "png"},
        references=2,
        public=True,
        reads_model="gpt-image-2.5-sunburst",
        reads={
            "size": "auto",
            "quality": "medium",
            "background": "transparent",
            "output_format": "png",
        },
    ),
)

PROTOCOL: Final = Protocol(
    provider="openai",
    fake=OpenAI,
    polls=False,
    expected={
        **SENDING,
        **BY_BASE64,
        Script.ERROR_IN_200: fails("upstream_failed", Fault.UPSTREAM),
        HARD_LIMIT: fails("upstream_unavailable", Fault.ACCOUNT, purchases=0),
        UNVERIFIED: fails("upstream_unavailable", Fault.ACCOUNT, purchases=0),
        OVERLOADED: UNKNOWN,
        BAD_GATEWAY: UNKNOWN,
    },
    meanings={
        HARD_LIMIT: "answers 400: the operator's spending limit there is reached",
        UNVERIFIED: "answers 403: the operator's organisation is not verified",
        OVERLOADED: "answers 409 (or 408): it may have taken the job",
        BAD_GATEWAY: "answers 502 with a web page: it may have taken the job",
    },
    examples=EXAMPLES,
)
