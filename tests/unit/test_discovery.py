"""The discovery object, to the letter of the contract."""

from typing import Any

import msgspec
import pytest

from calotype.catalog import load_catalog
from calotype.domain.catalog import Cancellation
from calotype.domain.channel import Channel
from calotype.services.discovery import model_entry

CATALOG = load_catalog()
CHANNEL = Channel(id=1, slug="route-1", name="Primary Image", provider="any", description="Here.")


def entry(model_id: str, *channels: Channel) -> dict[str, Any]:
    """As a client reads it."""
    sent = msgspec.json.encode(model_entry(CATALOG.get(model_id), channels))
    read: dict[str, Any] = msgspec.json.decode(sent)
    return read


def test_nano_banana_pro_is_shown_as_the_contract_says() -> None:
    shown = entry("nano-banana-pro", CHANNEL)
    capabilities = shown.pop("capabilities")
    assert isinstance(shown.pop("description"), str)
    assert shown == {
        "id": "nano-banana-pro",
        "object": "model",
        "name": "Nano Banana Pro",
        "owned_by": "google",
        "brand_key": "google",
        "brand_image_url": "/v1/models/brands/google/image",
        "upstream_id": "google/nano-banana-pro",
        "released_at": "2026-05-28T00:00:00Z",
        "modalities": ["image"],
        "price_input_per_m": 0,
        "price_output_per_m": 0,
        "enabled": True,
        "created_at": "2026-11-22T00:00:00Z",
        "updated_at": "2026-11-22T00:00:00Z",
        "available_channels": [
            {
                "id": 1,
                "name": "Primary Image",
                "slug": "route-1",
                "description": "Here.",
                "price_input_per_m": 0,
                "price_output_per_m": 0,
            }
        ],
    }
    assert capabilities["async_supported"] is True
    assert capabilities["request_mode"] == ["task"]
    assert capabilities["pricing"] == {
        "mode": "resolution",
        "tiers": [
            {"id": "1k_2k", "label": "1K / 2K", "unit": "image", "price_micro_usdc": 150_000},
            {"id": "4k", "label": "4K", "unit": "image", "price_micro_usdc": 300_000},
        ],
    }
    assert capabilities["reference_input"] == {
        "supported": True,
        "transport": ["url", "multipart_file"],
        "max_items": 8,
        "max_bytes": 31_457_280,
        "content_types": ["image/jpeg", "image/png", "image/webp"],
        "converted_content_types": ["image/gif", "image/avif", "image/heic", "image/heif"],
    }
    assert capabilities["limits"] == {"prompt": {"max_length": 10_000}, "n": {"maximum": 1}}
    assert [
        (each["name"], each["enum"], each["default"]) for each in capabilities["parameters"]
    ] == [
        (
            "aspect_ratio",
            ["1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9", "auto"],
            "1:1",
        ),
        ("resolution", ["1K", "2K", "4K"], "1K"),
        ("output_format", ["png", "jpg"], "png"),
    ]


def test_gpt_image_2_shows_which_resolution_goes_with_which_ratio() -> None:
    parameters = entry("gpt-image-2")["capabilities"]["parameters"]
    for each in parameters:
        assert each.pop("description")
    assert parameters == [
        {
            "name": "aspect_ratio",
            "enum": ["auto", "1:1", "9:16", "16:9", "4:3", "3:4"],
            "type": "string",
            "default": "auto",
        },
        {
            "name": "resolution",
            "enum": ["1K", "2K", "4K"],
            "type": "string",
            "default": "1K",
            "depends_on": {"aspect_ratio": {"auto": ["1K"], "1:1": ["1K", "2K"]}},
        },
    ]
    assert entry("gpt-image-2")["capabilities"]["reference_input"]["max_items"] == 16


def test_a_number_shows_its_bounds_and_a_text_its_length() -> None:
    flex = {each["name"]: each for each in entry("flux-2-flex")["capabilities"]["parameters"]}
    assert {key: flex["guidance"][key] for key in ("type", "minimum", "maximum")} == {
        "type": "number",
        "minimum": 1.5,
        "maximum": 10.0,
    }
    assert "enum" not in flex["guidance"]
    assert "default" not in flex["guidance"]
    qwen = {each["name"]: each for each in entry("qwen-image-2.0")["capabilities"]["parameters"]}
    assert qwen["negative_prompt"]["max_length"] == 500


def test_a_model_without_references_and_release_date_says_so() -> None:
    shown = entry("recraft-v4.1")
    assert shown["released_at"] is None
    assert shown["available_channels"] == []
    assert shown["capabilities"]["reference_input"] == {
        "supported": False,
        "transport": [],
        "max_items": 0,
    }


@pytest.mark.parametrize("model_id", CATALOG.models)
def test_every_entry_has_the_same_fields_and_integer_prices(model_id: str) -> None:
    shown = entry(model_id, CHANNEL)
    assert shown.keys() == entry("gpt-image-2").keys()
    assert shown["capabilities"].keys() == entry("gpt-image-2")["capabilities"].keys()
    for tier in shown["capabilities"]["pricing"]["tiers"]:
        assert tier.keys() == {"id", "label", "unit", "price_micro_usdc"}
        assert type(tier["price_micro_usdc"]) is int


@pytest.mark.parametrize("percent", [0, 33, 100])
def test_cancelling_costs_what_is_shown_at_every_price(percent: int) -> None:
    model = msgspec.structs.replace(
        CATALOG.get("nano-banana-pro"), cancellation=Cancellation(percent=percent)
    )
    capabilities: Any = model_entry(model, [])["capabilities"]
    shown, prices = capabilities["cancellation"], capabilities["pricing"]["tiers"]
    assert (shown["supported"], shown["free_in"]) == (True, ["waiting", "queuing"])
    generating = shown["generating"]
    assert (generating["percent_if_stopped"], generating["percent_if_finished"]) == (0, percent)
    assert [(tier["id"], tier["unit"]) for tier in generating["tiers"]] == [
        (tier["id"], "image") for tier in prices
    ]
    for tier, whole in zip(generating["tiers"], prices, strict=True):
        assert tier["price_micro_usdc"] == whole["price_micro_usdc"] * percent // 100
