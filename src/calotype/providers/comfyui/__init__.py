"""ComfyUI: one's own workflows, run by one's own server."""

from typing import Final

from calotype.providers.comfyui.provider import ComfyUI
from calotype.providers.kind import Kind

KIND: Final = Kind(
    make=ComfyUI,
    needs_key=False,
    options={
        "workflows": (
            "folder of workflow templates, <name>.json with <name>.toml beside each; "
            "left out: the ones that come with Calotype"
        )
    },
)
