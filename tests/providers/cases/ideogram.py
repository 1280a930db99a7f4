"""What Ideogram must read in our requests, and what comes of each thing that it does."""

from typing import Final

from calotype.domain.outcomes import Fault
from providers.fakes.ideogram import INVALID, UNSAFE_IMAGE, UNSAFE_NAMED, Ideogram
from providers.protocol import BY_URL, MODERATED, SENDING, Example, Protocol, dropped, fails
from providers.scripts import Script

PROTOCOL: Final = Protocol(
    provider="ideogram",
    fake=Ideogram,
    expected={
        # Its documentation has no status for an empty account.
        **dropped(SENDING, Script.NO_CREDIT),
        **BY_URL,
        Script.ERROR_IN_200: fails("upstream_failed", Fault.UPSTREAM),
        UNSAFE_IMAGE: MODERATED,
        UNSAFE_NAMED: MODERATED,
        INVALID: fails("upstream_rejected", Fault.REQUEST, purchases=0),
    },
    meanings={
        UNSAFE_IMAGE: "answers 200 with an image that is not safe, and has no URL",
        UNSAFE_NAMED: "answers 200 with an image that is not safe, and a URL all the same",
        INVALID: "finds the request invalid, with the status that an unsafe prompt has",
    },
    examples=(
        Example(
            model="ideogram-v4",
            parameters={"aspect_ratio": "16:10", "rendering_speed": "quality"},
            reads_model="ideogram-v4",
            reads={"resolution": "2560x1600", "rendering_speed": "QUALITY"},
        ),
        Example(
            model="ideogram-v4",
            reads_model="ideogram-v4",
            reads={"resolution": "2048x2048", "rendering_speed": "DEFAULT"},
        ),
        Example(
            model="ideogram-v4",
            parameters={"aspect_ratio": "auto", "rendering_speed": "turbo"},
            reads_model="ideogram-v4",
            reads={"rendering_speed": "TURBO"},
        ),
    ),
)
