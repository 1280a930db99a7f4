"""What Recraft must read in our requests, and what comes of each thing that it does."""

from typing import Final

from calotype.domain.outcomes import Fault
from providers.fakes.recraft import Recraft
from providers.protocol import BY_URL, SENDING, Example, Protocol, dropped, fails
from providers.scripts import Script

PROTOCOL: Final = Protocol(
    provider="recraft",
    fake=Recraft,
    expected={
        # Its documentation has no status for an empty account, nor a code of moderation.
        **dropped(SENDING, Script.NO_CREDIT, Script.MODERATED),
        **BY_URL,
        Script.ERROR_IN_200: fails("upstream_failed", Fault.UPSTREAM),
    },
    examples=(
        Example(
            model="recraft-v4.1",
            parameters={"aspect_ratio": "14:10"},
            reads_model="recraftv4_1",
            reads={"size": "1280x896", "response_format": "url"},
        ),
        Example(
            model="recraft-v4.1",
            reads_model="recraftv4_1",
            reads={"size": "1024x1024", "response_format": "url"},
        ),
    ),
)
