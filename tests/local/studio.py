"""A server whose one channel draws with tiny weights, also for a model of the operator's own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from calotype.domain.channel import Channel, Served
from harness import Server, running_server
from local.weights import tiny

MODEL = "sd-turbo"
OWN = "study"
CHANNEL = 10
STEPS = 1000
"""As many as its scheduler knows: nobody waits for a picture of so many."""
PRICE = 20_000
_ENTRY = f"""
id = "{OWN}"
name = "Study"
description = "A model of the operator's own: as small a picture as its weights can draw."
brand = "stability-ai"
upstream_id = "study"
created_at = "2026-11-23T00:00:00Z"
updated_at = "2026-11-23T00:00:00Z"
needs_channel = true
eta_seconds = 1

[prompt]
max_length = 320

[n]
maximum = 8

[[parameters]]
name = "resolution"
description = "As of SD-Turbo."
type = "string"
enum = ["64px", "2K"]
default = "64px"

[[parameters]]
name = "output_format"
description = "As of SD-Turbo."
type = "string"
enum = ["png", "jpg", "webp"]
default = "png"

[[parameters]]
name = "seed"
description = "As of SD-Turbo."
type = "integer"
minimum = 0
maximum = 2147483647

[[parameters]]
name = "steps"
description = "As of SD-Turbo."
type = "integer"
minimum = 1
maximum = {STEPS}
default = 1

[[parameters]]
name = "guidance"
description = "As of SD-Turbo."
type = "number"
minimum = 0.0
maximum = 2.0
default = 0.0

[[parameters]]
name = "negative_prompt"
description = "As of SD-Turbo."
type = "string"
max_length = 320

[references]
max_items = 1
max_bytes = 31457280
content_types = ["image/jpeg", "image/png", "image/webp"]

[pricing]
mode = "fixed"

[[pricing.tiers]]
id = "image"
label = "Image"
unit = "image"
price_micro_usdc = {PRICE}

[sizes.default]
"64px" = [64, 64]
"2K" = [2048, 2048]
"""
_WIRE = f"""
[models.{OWN}]
id = "{OWN}"
edit_constants = {{ strength = 0.5 }}
max_references = 1
max_images = 8
formats = ["png"]

[models.{OWN}.size]
width = "width"
height = "height"

[models.{OWN}.parameters]
seed = {{ field = "seed" }}
steps = {{ field = "steps" }}
guidance = {{ field = "guidance" }}
negative_prompt = {{ field = "negative_prompt" }}
"""


def catalog(folder: Path) -> Path:
    """The operator's part of the catalog: the model of their own, and how it is drawn."""
    (folder / "upstreams").mkdir(parents=True)
    (folder / f"{OWN}.toml").write_text(_ENTRY)
    (folder / "upstreams" / "diffusers.toml").write_text(_WIRE)
    return folder


@asynccontextmanager
async def studio(root: Path, weights: Path) -> AsyncIterator[Server]:
    """The server; its engine loads while it is up."""
    channel = Channel(
        id=CHANNEL,
        slug="local",
        name="Local",
        provider="diffusers",
        models={MODEL: Served(), OWN: Served()},
        options={"weights": str(tiny("sd", weights)), "device": "cpu"},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        async with running_server(
            root / "data",
            channels=(channel,),
            catalog_dir=catalog(root / "catalog"),
            webhook_allow_hosts=("127.0.0.1",),
        ) as server:
            yield server
