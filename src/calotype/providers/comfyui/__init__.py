"""ComfyUI: one's own workflows, run by one's own server."""

from typing import Final

from calotype.providers.comfyui.narrowing import narrow
from calotype.providers.comfyui.provider import ComfyUI
from calotype.providers.comfyui.workflow import FOLDER
from calotype.providers.kind import Kind

KIND: Final = Kind(
    make=ComfyUI,
    needs_key=False,
    options={
        FOLDER: (
            "folder of workflow templates, <name>.json with <name>.toml beside each; "
            "a relative path begins in the folder of calotype.toml; left out: the ones that come "
            "with Calotype"
        )
    },
    folders=(FOLDER,),
    narrow=narrow,
)
