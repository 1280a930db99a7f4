"""What kie.ai must read in our requests, and what comes of each thing that it does."""

from typing import Final

from calotype.domain.outcomes import Fault
from providers.fakes.kie import (
    KEY_CHANGED,
    MAINTENANCE,
    NO_ANSWER_UPSTREAM,
    NO_ID,
    NOT_FOUND,
    NOT_VISIBLE,
    RESULT_BROKEN_JSON,
    RESULT_EMPTY,
    RUN_BROKE,
    RUN_REJECTED,
    RUN_TIMED_OUT,
    Kie,
)
from providers.protocol import (
    BY_URL,
    CALLBACKS,
    GOOD,
    MODERATED,
    POLLING,
    SENDING,
    UNKNOWN,
    Example,
    Protocol,
    dropped,
    fails,
    retried,
)
from providers.scripts import Script

_WIDE: Final = {"aspect_ratio": "16:9", "resolution": "2K"}
_UNUSABLE: Final = fails("upstream_malformed_response", Fault.UPSTREAM)

PROTOCOL: Final = Protocol(
    provider="kie",
    fake=Kie,
    expected={
        **SENDING,
        **dropped(POLLING, Script.CANCELLED),  # nobody can cancel a task there
        **BY_URL,
        **CALLBACKS,
        Script.MODERATED: MODERATED,
        MAINTENANCE: retried(Fault.BUSY),
        NO_ANSWER_UPSTREAM: UNKNOWN,
        NO_ID: UNKNOWN,
        NOT_VISIBLE: GOOD,
        NOT_FOUND: GOOD,
        KEY_CHANGED: GOOD,
        RUN_TIMED_OUT: fails("upstream_failed", Fault.UPSTREAM),
        RUN_BROKE: fails("upstream_failed", Fault.UPSTREAM),
        RUN_REJECTED: fails("upstream_rejected", Fault.REQUEST),
        Script.NO_IMAGE: _UNUSABLE,
        RESULT_EMPTY: _UNUSABLE,
        RESULT_BROKEN_JSON: _UNUSABLE,
    },
    meanings={
        MAINTENANCE: "is under maintenance (455), then takes the job",
        NO_ANSWER_UPSTREAM: "says at the send that its own upstream gave nothing (408)",
        NO_ID: "says that it took the job and names no id",
        NOT_VISIBLE: "does not show a job at once that it took (422)",
        NOT_FOUND: "does not find a job at once that it took (404)",
        KEY_CHANGED: "does not know the key at one question (401)",
        RUN_TIMED_OUT: "says of a job that its own upstream gave nothing (408)",
        RUN_BROKE: "says of a job that it failed, by the envelope (501)",
        RUN_REJECTED: "takes the job and finds the request invalid (`failCode` 422)",
        RESULT_EMPTY: "has finished, and the result is an empty text",
        RESULT_BROKEN_JSON: "has finished, and the result is broken JSON",
    },
    examples=(
        Example(
            model="nano-banana-pro",
            parameters=_WIDE,
            reads_model="nano-banana-pro",
            reads={**_WIDE, "output_format": "png"},
        ),
        Example(
            model="nano-banana-pro",
            parameters={"aspect_ratio": "auto", "output_format": "jpg"},
            references=3,
            reads_model="nano-banana-pro",
            reads={"aspect_ratio": "auto", "resolution": "1K", "output_format": "jpg"},
        ),
        Example(
            model="nano-banana-2",
            parameters={"aspect_ratio": "1:8", "resolution": "4K"},
            references=2,
            public=True,
            reads_model="nano-banana-2",
            reads={"aspect_ratio": "1:8", "resolution": "4K", "output_format": "jpg"},
        ),
        Example(
            model="nano-banana-2-lite",
            references=1,
            reads_model="nano-banana-2-lite",
            reads={"aspect_ratio": "auto"},
        ),
        Example(
            model="gpt-image-2",
            parameters={"aspect_ratio": "9:16", "resolution": "4K"},
            reads_model="gpt-image-2-text-to-image",
            reads={"aspect_ratio": "9:16", "resolution": "4K"},
        ),
        Example(
            model="gpt-image-2",
            references=4,
            reads_model="gpt-image-2-image-to-image",
            reads={"aspect_ratio": "auto", "resolution": "1K"},
        ),
        Example(
            model="flux-2-pro",
            parameters={"aspect_ratio": "auto", "resolution": "2K"},
            reads_model="flux-2/pro-text-to-image",
            reads={"aspect_ratio": "1:1", "resolution": "2K"},
        ),
        Example(
            model="flux-2-flex",
            parameters={"aspect_ratio": "auto"},
            references=2,
            reads_model="flux-2/flex-image-to-image",
            reads={"aspect_ratio": "auto", "resolution": "1K"},
        ),
        Example(
            model="seedream-5-pro",
            parameters={"aspect_ratio": "21:9", "resolution": "2K"},
            reads_model="seedream/5-pro-text-to-image",
            reads={"aspect_ratio": "21:9", "quality": "high", "output_format": "jpeg"},
        ),
        Example(
            model="seedream-5-lite",
            parameters={"resolution": "4K", "output_format": "png"},
            references=2,
            reads_model="seedream/5-lite-image-to-image",
            reads={"aspect_ratio": "1:1", "quality": "ultra", "output_format": "png"},
        ),
        Example(
            model="seedream-4.5",
            references=1,
            public=True,
            reads_model="seedream/4.5-edit",
            reads={"aspect_ratio": "1:1", "quality": "basic"},
        ),
        Example(
            model="qwen-image-3.0",
            parameters={"negative_prompt": "people", "seed": 7},
            reads_model="qwen3/text-to-image",
            reads={
                "image_size": "16:9",
                "resolution": "1K",
                "output_format": "png",
                "negative_prompt": "people",
                "seed": 7,
            },
        ),
        Example(
            model="qwen-image-3.0-pro",
            parameters={"aspect_ratio": "2:3", "resolution": "2K", "output_format": "jpg"},
            reads_model="qwen3/pro-text-to-image",
            reads={"image_size": "2:3", "resolution": "2K", "output_format": "jpeg"},
        ),
    ),
)
