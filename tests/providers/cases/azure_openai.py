"""What Azure OpenAI must read in our requests, and what comes of each thing that it does."""

from typing import Final

from calotype.domain.channel import Served
from calotype.domain.outcomes import Fault
from providers.fakes.azure_openai import CONTENT_FILTER, INNER, AzureOpenAI
from providers.protocol import BY_BASE64, SENDING, Example, Protocol, fails
from providers.scripts import Script

PROTOCOL: Final = Protocol(
    provider="azure-openai",
    fake=AzureOpenAI,
    polls=False,
    expected={
        **SENDING,
        **BY_BASE64,
        Script.ERROR_IN_200: fails("upstream_failed", Fault.UPSTREAM),
        CONTENT_FILTER: fails("content_policy_violation", Fault.POLICY, purchases=0),
        INNER: fails("content_policy_violation", Fault.POLICY, purchases=0),
    },
    meanings={
        CONTENT_FILTER: "refuses the prompt by its content filter, under an older code",
        INNER: "refuses the prompt by its content filter, with the code in the inner error",
    },
    examples=(
        Example(
            model="gpt-image-2",
            served=Served(id="our-images"),
            parameters={"aspect_ratio": "9:16", "resolution": "2K"},
            reads_model="our-images",
            reads={"size": "1152x2048", "quality": "medium"},
        ),
        Example(
            model="gpt-image-2",
            served=Served(id="gpt-image-2"),
            references=3,
            reads_model="gpt-image-2",
            reads={"size": "auto", "quality": "medium"},
        ),
        Example(
            model="gpt-image-2.5-flare",
            served=Served(id="flare", edit="flare-edits"),
            parameters={"aspect_ratio": "1:1", "output_format": "jpg"},
            references=1,
            reads_model="flare-edits",
            reads={
                "size": "1024x1024",
                "quality": "medium",
                "background": "auto",
                "output_format": "jpeg",
            },
        ),
        Example(
            model="gpt-image-2.5-sunburst",
            served=Served(id="sunburst"),
            parameters={"background": "opaque"},
            reads_model="sunburst",
            reads={
                "size": "auto",
                "quality": "medium",
                "background": "opaque",
                "output_format": "png",
            },
        ),
    ),
)
