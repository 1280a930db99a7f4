"""What a server of one's own must read in our requests, and what comes of each thing it does."""

from typing import Final

from calotype.domain.channel import Served
from calotype.domain.outcomes import Fault
from providers.fakes.openai_compatible import (
    DATA_URL,
    OWN_URL,
    RELATIVE_URL,
    WORDS_ALONE,
    OpenAICompatible,
)
from providers.protocol import BY_BASE64, BY_URL, GOOD, SENDING, Example, Protocol, fails
from providers.scripts import Script

PROTOCOL: Final = Protocol(
    provider="openai-compatible",
    fake=OpenAICompatible,
    polls=False,
    expected={
        **SENDING,
        **BY_BASE64,
        **BY_URL,
        Script.ERROR_IN_200: fails("upstream_failed", Fault.UPSTREAM),
        WORDS_ALONE: fails("upstream_rejected", Fault.REQUEST, purchases=0),
        RELATIVE_URL: GOOD,
        OWN_URL: GOOD,
        DATA_URL: GOOD,
    },
    meanings={
        WORDS_ALONE: "finds the request invalid and has no code for it",
        RELATIVE_URL: "gives the image as a path on the server itself",
        OWN_URL: "gives the image as a URL on the server itself",
        DATA_URL: "gives the image as a data: URL",
    },
    examples=(
        Example(
            model="gpt-image-2",
            served=Served(id="Qwen/Qwen-Image"),
            parameters={"aspect_ratio": "16:9"},
            reads_model="Qwen/Qwen-Image",
            reads={"size": "1536x864", "response_format": "b64_json"},
        ),
        Example(
            model="gpt-image-2",
            served=Served(id="flux", edit="flux-kontext"),
            references=2,
            reads_model="flux-kontext",
            reads={"size": "1152x864", "response_format": "b64_json"},
        ),
        Example(
            model="gpt-image-2.5-flare",
            parameters={"aspect_ratio": "1:1"},
            references=1,
            reads_model="",
            reads={"size": "1024x1024", "response_format": "b64_json"},
        ),
    ),
)
