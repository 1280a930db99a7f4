"""What a Xenodia server must read in our requests, and what comes of each thing that it does."""

from typing import Final

from calotype.domain.channel import Served
from calotype.domain.outcomes import Fault
from providers.fakes.xenodia import (
    AT_ONCE,
    AT_ONCE_EMPTY,
    KEY_CHANGED,
    NO_CHANNEL,
    OLD_FAILURE,
    OTHER_REQUEST,
    RELATIVE,
    SHOUTED_STATE,
    UNKNOWN_FAILURE,
    UPSTREAM_REJECTED,
    Xenodia,
)
from providers.protocol import (
    BY_URL,
    GOOD,
    POLLING,
    SENDING,
    UNKNOWN,
    Example,
    Protocol,
    fails,
)
from providers.scripts import Script

_WIDE: Final = {"aspect_ratio": "16:9", "resolution": "2K"}

PROTOCOL: Final = Protocol(
    provider="xenodia",
    fake=Xenodia,
    cancels=True,
    expected={
        **SENDING,
        **POLLING,
        **BY_URL,
        Script.NO_IMAGE: fails("upstream_malformed_response", Fault.UPSTREAM),
        Script.LOST: UNKNOWN,
        AT_ONCE: GOOD,
        AT_ONCE_EMPTY: UNKNOWN,
        RELATIVE: GOOD,
        SHOUTED_STATE: GOOD,
        KEY_CHANGED: GOOD,
        OTHER_REQUEST: UNKNOWN,
        OLD_FAILURE: UNKNOWN,
        UPSTREAM_REJECTED: fails("upstream_rejected", Fault.UPSTREAM),
        NO_CHANNEL: fails("upstream_unavailable", Fault.UPSTREAM),
        UNKNOWN_FAILURE: fails("upstream_failed", Fault.UPSTREAM),
    },
    meanings={
        AT_ONCE: "answers the send with the image (older servers)",
        AT_ONCE_EMPTY: "answers the send at once, and there is no image",
        RELATIVE: "names the image by a URL relative to its own host",
        SHOUTED_STATE: "writes states in capitals",
        KEY_CHANGED: "does not know the key at one question (401)",
        OTHER_REQUEST: "knows our `Idempotency-Key` from another request (409)",
        OLD_FAILURE: "fails at the job while the send waits (502, older servers)",
        UPSTREAM_REJECTED: "takes the job, and its own upstream refuses it",
        NO_CHANNEL: "takes the job, and none of its own channels does",
        UNKNOWN_FAILURE: "fails at the job by a code that is not documented",
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
            public=True,
            reads_model="nano-banana-pro",
            reads={"aspect_ratio": "auto", "resolution": "1K", "output_format": "jpg"},
        ),
        Example(
            model="gpt-image-2",
            parameters={"aspect_ratio": "9:16", "resolution": "4K"},
            references=4,
            reads_model="gpt-image-2",
            reads={"aspect_ratio": "9:16", "resolution": "4K"},
        ),
        Example(
            model="gpt-image-2",
            served=Served(id="their-gpt", edit="their-gpt-edit"),
            references=1,
            reads_model="their-gpt-edit",
            reads={"aspect_ratio": "auto", "resolution": "1K"},
        ),
        Example(
            model="flux-2-flex",
            parameters={"seed": 7, "steps": 20, "guidance": 3.5},
            reads_model="flux-2-flex",
            reads={
                "aspect_ratio": "1:1",
                "resolution": "1K",
                "output_format": "jpg",
                "seed": 7,
                "steps": 20,
                "guidance": 3.5,
            },
        ),
        Example(
            model="ideogram-v4",
            parameters={"rendering_speed": "turbo"},
            reads_model="ideogram-v4",
            reads={"aspect_ratio": "1:1", "rendering_speed": "turbo"},
        ),
    ),
)
