"""What OpenRouter must read in our requests, and what comes of each thing that it does."""

from typing import Final

from calotype.domain.outcomes import Fault
from providers.fakes.openrouter import (
    EDGE_TIMED_OUT,
    FORBIDDEN,
    MODERATED_IN_200,
    OVERLOADED,
    REFUSED,
    TIMED_OUT,
    OpenRouter,
)
from providers.protocol import (
    BY_BASE64,
    MODERATED,
    SENDING,
    UNKNOWN,
    Example,
    Protocol,
    fails,
    retried,
)
from providers.scripts import Script

AI_STUDIO: Final = {"provider": {"only": ["google-ai-studio"]}}
CHAT: Final = {"modalities": ["image", "text"]}
EXAMPLES: Final = (
    Example(
        model="nano-banana-pro",
        parameters={"aspect_ratio": "16:9", "resolution": "4K"},
        reads_model="google/gemini-3-pro-image",
        reads={"aspect_ratio": "16:9", "resolution": "4K", **AI_STUDIO},
    ),
    Example(
        model="nano-banana-pro",
        parameters={"aspect_ratio": "auto", "output_format": "jpg"},
        references=8,
        reads_model="google/gemini-3-pro-image",
        reads={"resolution": "1K", **AI_STUDIO},
    ),
    Example(
        model="nano-banana-2.1",
        parameters={"resolution": "2K"},
        references=2,
        public=True,
        reads_model="google/gemini-nano-banana-2.1",
        reads={"resolution": "2K"},
    ),
    Example(
        model="nano-banana-2",
        parameters={"aspect_ratio": "8:1"},
        reads_model="google/gemini-3.1-flash-image",
        reads={"aspect_ratio": "8:1", "resolution": "1K"},
    ),
    Example(
        model="nano-banana-2-lite",
        parameters={"aspect_ratio": "3:2"},
        reads_model="google/gemini-3.1-flash-lite-image",
        reads={"image_config": {"aspect_ratio": "3:2"}, **CHAT},
    ),
    Example(
        model="nano-banana-2-lite",
        references=3,
        reads_model="google/gemini-3.1-flash-lite-image",
        reads=CHAT,
    ),
    Example(
        model="nano-banana-2-lite",
        references=2,
        public=True,
        reads_model="google/gemini-3.1-flash-lite-image",
        reads=CHAT,
    ),
    Example(
        model="gpt-image-2",
        parameters={"aspect_ratio": "9:16", "resolution": "4K"},
        reads_model="openai/gpt-image-2",
        reads={"size": "2160x3840", "quality": "medium"},
    ),
    Example(
        model="gpt-image-2",
        references=1,
        reads_model="openai/gpt-image-2",
        reads={"quality": "medium"},
    ),
    Example(
        model="flux-2-pro",
        parameters={"aspect_ratio": "4:3", "seed": 7},
        references=1,
        reads_model="black-forest-labs/flux.2-pro",
        reads={"aspect_ratio": "4:3", "seed": 7, "output_format": "jpeg"},
    ),
    Example(
        model="seedream-4.5",
        parameters={"aspect_ratio": "21:9", "resolution": "4K"},
        reads_model="bytedance-seed/seedream-4.5",
        reads={"aspect_ratio": "21:9", "resolution": "4K"},
    ),
)

PROTOCOL: Final = Protocol(
    provider="openrouter",
    fake=OpenRouter,
    polls=False,
    expected={
        **SENDING,
        **BY_BASE64,
        Script.ERROR_503: retried(Fault.BUSY),
        Script.ERROR_IN_200: fails("upstream_failed", Fault.UPSTREAM),
        FORBIDDEN: fails("upstream_unavailable", Fault.ACCOUNT, purchases=0),
        REFUSED: fails("content_policy_violation", Fault.POLICY, purchases=0),
        OVERLOADED: retried(Fault.BUSY),
        TIMED_OUT: UNKNOWN,
        EDGE_TIMED_OUT: UNKNOWN,
        MODERATED_IN_200: MODERATED,
    },
    meanings={
        FORBIDDEN: "answers 403 without saying what was flagged: a guardrail of the account",
        REFUSED: "answers 403: the model's provider refused by its policy",
        OVERLOADED: "answers 529: overloaded; then takes the job",
        TIMED_OUT: "answers 408: it may have taken the job",
        EDGE_TIMED_OUT: "answers 524: it may have taken the job",
        MODERATED_IN_200: "answers 200, and in place of the image with what was flagged",
    },
    examples=EXAMPLES,
)
