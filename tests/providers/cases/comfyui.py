"""What ComfyUI must read in our requests, and what comes of each thing that it does."""

from pathlib import Path
from typing import Final

from calotype.domain.channel import Served
from calotype.domain.outcomes import Fault
from providers.fakes.comfyui import NODE_MISSING, OLDER, ComfyUI
from providers.free import AGAIN
from providers.protocol import (
    BY_URL,
    GOOD,
    POLLING,
    SENDING,
    Example,
    Protocol,
    Table,
    dropped,
    fails,
)
from providers.scripts import Script

FOUND_AGAIN: Final[Table] = dict.fromkeys(
    (
        *(Script.ERROR_500, Script.ERROR_503, Script.CUT_BEFORE, Script.CUT_WITHIN),
        *(Script.SILENT, Script.MALFORMED, Script.ERROR_IN_200, Script.REDIRECTED),
    ),
    GOOD,
)
"""The answer is lost and the job is not: it is asked for by our own id."""
UNTOUCHED: Final = {"steps": 25, "cfg": 7, "batch": 1, "negative": "blurry"}

PROTOCOL: Final = Protocol(
    provider="comfyui",
    fake=ComfyUI,
    cancels=True,
    recovers=True,
    options={"workflows": str(Path(__file__).parents[1] / "workflows")},
    expected={
        **dropped(SENDING, Script.NO_CREDIT, Script.MODERATED),
        **FOUND_AGAIN,
        **dropped(POLLING, Script.MODERATED),
        **dropped(BY_URL, Script.RESULT_PRIVATE),
        Script.LOST: AGAIN,
        OLDER: GOOD,
        NODE_MISSING: fails("upstream_unavailable", Fault.MODEL, purchases=0),
    },
    meanings={
        OLDER: "names the job itself, and tells of it by its queue and its history alone",
        NODE_MISSING: "lacks a node of the workflow",
    },
    examples=(
        Example(
            model="flux-2-klein-4b",
            served=Served(id="words/klein.safetensors"),
            parameters={"aspect_ratio": "16:9", "seed": 7},
            reads_model="klein.safetensors",
            reads={**UNTOUCHED, "width": 1360, "height": 768, "seed": 7},
        ),
        Example(
            model="qwen-image-2.0",
            served=Served(id="words"),
            parameters={"negative_prompt": "rain", "seed": 8},
            reads_model="as-exported.safetensors",
            reads={**UNTOUCHED, "width": 1024, "height": 1024, "seed": 8, "negative": "rain"},
        ),
        Example(
            model="flux-2-flex",
            served=Served(id="words", edit="picture"),
            parameters={"aspect_ratio": "auto", "seed": 9},
            references=2,
            reads_model="as-exported.safetensors",
            reads={**UNTOUCHED, "width": 1152, "height": 864, "seed": 9},
        ),
    ),
)
