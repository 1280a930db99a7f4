"""What fal must read in our requests, and what comes of each thing that it does."""

from typing import Final

from calotype.domain.outcomes import Fault
from providers.fakes.fal import (
    DATA_URL,
    FAILED_IN_RESULT,
    FOREIGN_URLS,
    FOUND_IN_WORDS,
    INVALID_INPUT,
    MODERATED_AT_ONCE,
    NEVER_STARTED,
    NO_URLS,
    RESULT_500,
    RESULT_FINAL,
    RESULT_MALFORMED,
    RESULT_RETRYABLE,
    Fal,
)
from providers.protocol import (
    BY_BASE64,
    BY_URL,
    CALLBACKS,
    GOOD,
    MODERATED,
    POLLING,
    SENDING,
    UNKNOWN,
    Example,
    Protocol,
    fails,
)
from providers.scripts import Script

SHAPE: Final = {"aspect_ratio": "16:9", "resolution": "2K"}
BROKE: Final = fails("upstream_failed", Fault.UPSTREAM)

PROTOCOL: Final = Protocol(
    provider="fal",
    fake=Fal,
    cancels=True,
    shared_secret=False,
    expected={
        **SENDING,
        **POLLING,
        **BY_URL,
        **BY_BASE64,
        **CALLBACKS,
        Script.MODERATED: MODERATED,
        Script.LOST: UNKNOWN,
        MODERATED_AT_ONCE: SENDING[Script.MODERATED],
        FAILED_IN_RESULT: BROKE,
        INVALID_INPUT: fails("upstream_rejected", Fault.REQUEST),
        FOUND_IN_WORDS: BROKE,
        NEVER_STARTED: BROKE,
        RESULT_500: GOOD,
        RESULT_RETRYABLE: GOOD,
        RESULT_FINAL: BROKE,
        RESULT_MALFORMED: GOOD,
        FOREIGN_URLS: GOOD,
        NO_URLS: GOOD,
        DATA_URL: GOOD,
    },
    meanings={
        MODERATED_AT_ONCE: "refuses the send itself by its content policy",
        FAILED_IN_RESULT: "calls a job completed, and its result is an error",
        INVALID_INPUT: "takes the job, and its run cannot use the reference",
        FOUND_IN_WORDS: "gives an error as the result, and no type of it",
        NEVER_STARTED: "takes the job and finds no runner for it",
        RESULT_500: "answers the first question for the result with 502",
        RESULT_RETRYABLE: "answers the same with 503 and says that it may be asked again",
        RESULT_FINAL: "answers the question for the result with 500 and says that this is final",
        RESULT_MALFORMED: "answers the first question for the result with broken JSON",
        FOREIGN_URLS: "names URLs of the job that are on another host",
        NO_URLS: "names the job's id alone",
        DATA_URL: "gives the image as a data URL",
    },
    examples=(
        Example(
            model="nano-banana-pro",
            parameters=SHAPE,
            reads_model="fal-ai/nano-banana-pro",
            reads={**SHAPE, "output_format": "png", "num_images": 1},
        ),
        Example(
            model="nano-banana-pro",
            parameters={"aspect_ratio": "auto", "output_format": "jpg"},
            references=3,
            reads_model="fal-ai/nano-banana-pro/edit",
            reads={
                "aspect_ratio": "auto",
                "resolution": "1K",
                "output_format": "jpeg",
                "num_images": 1,
            },
        ),
        Example(
            model="nano-banana-2",
            parameters={"aspect_ratio": "21:9", "resolution": "4K"},
            references=2,
            public=True,
            reads_model="fal-ai/nano-banana-2/edit",
            reads={
                "aspect_ratio": "21:9",
                "resolution": "4K",
                "output_format": "jpeg",
                "num_images": 1,
            },
        ),
        Example(
            model="gpt-image-2",
            parameters={"aspect_ratio": "9:16", "resolution": "4K"},
            reads_model="openai/gpt-image-2",
            reads={
                "image_size": {"width": 2160, "height": 3840},
                "quality": "medium",
                "output_format": "png",
                "num_images": 1,
            },
        ),
        Example(
            model="gpt-image-2",  # auto: the nearest to the reference, which is 64 by 48
            references=1,
            reads_model="openai/gpt-image-2/edit",
            reads={
                "image_size": {"width": 1152, "height": 864},
                "quality": "medium",
                "output_format": "png",
                "num_images": 1,
            },
        ),
        Example(
            model="flux-2-pro",
            parameters={"aspect_ratio": "3:2", "resolution": "2K", "seed": 7},
            reads_model="fal-ai/flux-2-pro",
            reads={
                "image_size": {"width": 2496, "height": 1664},
                "seed": 7,
                "output_format": "jpeg",
            },
        ),
        Example(
            model="flux-2-pro",
            parameters={"aspect_ratio": "auto", "output_format": "png"},
            references=2,
            reads_model="fal-ai/flux-2-pro/edit",
            reads={"image_size": {"width": 1152, "height": 864}, "output_format": "png"},
        ),
    ),
)
