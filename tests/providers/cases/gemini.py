"""What the Gemini API must read in our requests, and what comes of each thing that it does."""

from typing import Any, Final

from calotype.domain.outcomes import Fault
from providers.fakes.gemini import (
    DRAFTS,
    DRAFTS_ONLY,
    EMPTY,
    LIMITED,
    NO_IMAGE_MADE,
    OVERLOADED,
    SPENT,
    TIMED_OUT,
    UNSAFE_IMAGE,
    WRONG_KEY_403,
    Gemini,
)
from providers.protocol import (
    BY_BASE64,
    GOOD,
    MODERATED,
    SENDING,
    UNKNOWN,
    Example,
    Protocol,
    fails,
    retried,
)
from providers.scripts import Script


def asked(**image_config: str) -> dict[str, Any]:
    """The fields of a request besides prompt and references."""
    config: dict[str, Any] = {"responseModalities": ["IMAGE"]}
    return {"generationConfig": config | ({"imageConfig": image_config} if image_config else {})}


FAILED: Final = fails("upstream_failed", Fault.UPSTREAM)
EXAMPLES: Final = (
    Example(
        model="nano-banana-pro",
        parameters={"aspect_ratio": "16:9", "resolution": "2K"},
        reads_model="gemini-3-pro-image",
        reads=asked(aspectRatio="16:9", imageSize="2K"),
    ),
    Example(
        model="nano-banana-2.1",
        parameters={"aspect_ratio": "auto", "resolution": "4K"},
        references=2,
        reads_model="gemini-nano-banana-2.1",
        reads=asked(imageSize="4K"),
    ),
    Example(
        model="nano-banana-pro",
        parameters={"aspect_ratio": "auto", "output_format": "jpg"},
        references=8,
        public=True,
        reads_model="gemini-3-pro-image",
        reads=asked(imageSize="1K"),
    ),
    Example(
        model="nano-banana-2",
        parameters={"aspect_ratio": "1:8", "output_format": "png"},
        reads_model="gemini-3.1-flash-image",
        reads=asked(aspectRatio="1:8", imageSize="1K"),
    ),
    Example(
        model="nano-banana-2-lite",
        parameters={"aspect_ratio": "4:5"},
        references=1,
        reads_model="gemini-3.1-flash-lite-image",
        reads=asked(aspectRatio="4:5"),
    ),
    Example(
        model="nano-banana-2-lite",
        reads_model="gemini-3.1-flash-lite-image",
        reads=asked(),
    ),
)

PROTOCOL: Final = Protocol(
    provider="gemini",
    fake=Gemini,
    polls=False,
    expected={
        **SENDING,
        **BY_BASE64,
        Script.MODERATED: MODERATED,
        Script.NO_IMAGE: FAILED,
        WRONG_KEY_403: fails("upstream_unavailable", Fault.KEY, purchases=0),
        OVERLOADED: retried(Fault.BUSY),
        SPENT: fails("upstream_unavailable", Fault.ACCOUNT, purchases=0),
        TIMED_OUT: UNKNOWN,
        DRAFTS: GOOD,
        DRAFTS_ONLY: FAILED,
        UNSAFE_IMAGE: MODERATED,
        NO_IMAGE_MADE: FAILED,
        LIMITED: fails("upstream_unavailable", Fault.ACCOUNT),
        EMPTY: UNKNOWN,
    },
    meanings={
        WRONG_KEY_403: "answers 403: the key is not allowed to do this",
        OVERLOADED: "answers 503 UNAVAILABLE: overloaded; then takes the job",
        SPENT: "answers 429: the quota of the day is used up",
        TIMED_OUT: "answers 504 DEADLINE_EXCEEDED: it may have taken the job",
        DRAFTS: "thinks aloud, with drafts, before the image",
        DRAFTS_ONLY: "thinks aloud, with drafts, and no image follows",
        UNSAFE_IMAGE: "answers 200 with finishReason IMAGE_SAFETY and no image",
        NO_IMAGE_MADE: "answers 200 with finishReason NO_IMAGE",
        LIMITED: "answers 200 with finishReason PUP_LIMITED_DISABLED: the account is limited",
        EMPTY: "answers 200 with neither an image nor a reason",
    },
    examples=EXAMPLES,
)
