"""GET /v1/models…: the catalog, public and cacheable, field for field as the contract says."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import pytest_asyncio

from calotype.domain.channel import Channel, Served
from harness import Server, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIELDS = {
    "id",
    "object",
    "name",
    "description",
    "owned_by",
    "brand_key",
    "brand_image_url",
    "upstream_id",
    "released_at",
    "modalities",
    "price_input_per_m",
    "price_output_per_m",
    "capabilities",
    "enabled",
    "created_at",
    "updated_at",
    "available_channels",
}
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
NANO_RATIOS = ["1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9", "auto"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running_server(tmp_path_factory.mktemp("data"), with_worker=False) as running:
        yield running


async def get(server: Server, path: str, **headers: str) -> Any:
    reply = await server.anonymous("GET", path, headers=headers)
    assert reply.status == 200, reply.body
    return reply.json


async def parameters(server: Server, model: str) -> dict[str, dict[str, Any]]:
    entry = await get(server, f"/v1/models/{model}")
    return {each["name"]: each for each in entry["capabilities"]["parameters"]}


async def test_every_model_has_the_fields_of_the_contract(server: Server) -> None:
    listed = await get(server, "/v1/models")
    assert set(listed) == {"object", "data"}
    assert listed["object"] == "list"
    for model in listed["data"]:
        assert set(model) == FIELDS
        assert model["object"] == "model"
        assert model["modalities"] == ["image"]
        assert model["price_input_per_m"] == model["price_output_per_m"] == 0
        assert model["brand_image_url"] == f"/v1/models/brands/{model['brand_key']}/image"
        assert model["owned_by"] == model["brand_key"]
        assert "/" in model["upstream_id"]
        assert model["enabled"] is True
        assert model["released_at"] is None or ISO.fullmatch(model["released_at"])
        assert ISO.fullmatch(model["created_at"])
        assert ISO.fullmatch(model["updated_at"])
        assert all(model[name] for name in ("id", "name", "description"))


async def test_every_model_tells_its_capabilities(server: Server) -> None:
    for model in (await get(server, "/v1/models"))["data"]:
        capabilities = model["capabilities"]
        assert capabilities["async_supported"] is True
        assert capabilities["request_mode"] == ["task"]
        pricing = capabilities["pricing"]
        assert set(pricing) == {"mode", "tiers"}
        assert pricing["tiers"]
        for tier in pricing["tiers"]:
            assert set(tier) == {"id", "label", "unit", "price_micro_usdc"}
            assert tier["unit"] == "image"
            assert type(tier["price_micro_usdc"]) is int
            assert tier["price_micro_usdc"] > 0
        for parameter in capabilities["parameters"]:
            assert parameter["name"]
            assert parameter["type"] in {"string", "integer", "number", "boolean"}
            if "enum" in parameter:
                assert parameter.get("default", parameter["enum"][0]) in parameter["enum"]


async def test_the_list_and_the_single_entries_say_the_same(server: Server) -> None:
    for model in (await get(server, "/v1/models"))["data"]:
        assert await get(server, f"/v1/models/{model['id']}") == model


async def test_nano_banana_pro_is_as_the_contract_says(server: Server) -> None:
    entry = await get(server, "/v1/models/nano-banana-pro")
    assert (entry["id"], entry["upstream_id"]) == ("nano-banana-pro", "google/nano-banana-pro")
    known = await parameters(server, "nano-banana-pro")
    assert set(known) == {"aspect_ratio", "resolution", "output_format"}
    shown = {name: (sorted(each["enum"]), each["default"]) for name, each in known.items()}
    assert shown == {
        "aspect_ratio": (sorted(NANO_RATIOS), "1:1"),
        "resolution": (["1K", "2K", "4K"], "1K"),
        "output_format": (["jpg", "png"], "png"),
    }
    assert not any("depends_on" in each for each in known.values())
    pricing = entry["capabilities"]["pricing"]
    assert pricing["mode"] == "resolution"
    labels = [(tier["id"], tier["label"]) for tier in pricing["tiers"]]
    assert labels == [("1k_2k", "1K / 2K"), ("4k", "4K")]
    assert entry["capabilities"]["reference_input"] == {
        "supported": True,
        "transport": ["url", "multipart_file"],
        "max_items": 8,
        "max_bytes": 30 * 1024 * 1024,
        "content_types": ["image/jpeg", "image/png", "image/webp"],
        "converted_content_types": ["image/gif", "image/avif", "image/heic", "image/heif"],
    }


async def test_gpt_image_2_is_as_the_contract_says(server: Server) -> None:
    entry = await get(server, "/v1/models/gpt-image-2")
    assert (entry["id"], entry["upstream_id"]) == ("gpt-image-2", "openai/gpt-image-2")
    known = await parameters(server, "gpt-image-2")
    assert set(known) == {"aspect_ratio", "resolution"}
    ratio, resolution = known["aspect_ratio"], known["resolution"]
    assert (ratio["enum"], ratio["default"]) == (
        ["auto", "1:1", "9:16", "16:9", "4:3", "3:4"],
        "auto",
    )
    assert (resolution["enum"], resolution["default"]) == (["1K", "2K", "4K"], "1K")
    assert resolution["depends_on"] == {"aspect_ratio": {"auto": ["1K"], "1:1": ["1K", "2K"]}}
    assert entry["capabilities"]["pricing"]["mode"] == "resolution"
    references = entry["capabilities"]["reference_input"]
    assert (references["max_items"], references["max_bytes"]) == (16, 30 * 1024 * 1024)


async def test_a_model_without_references_says_so(server: Server) -> None:
    entry = await get(server, "/v1/models/recraft-v4.1")
    references = entry["capabilities"]["reference_input"]
    assert references == {"supported": False, "transport": [], "max_items": 0}


async def test_the_sandbox_serves_every_model_and_says_that_it_is_the_sandbox(
    server: Server,
) -> None:
    for model in (await get(server, "/v1/models"))["data"]:
        (channel,) = model["available_channels"]
        assert set(channel) == {
            "id",
            "name",
            "slug",
            "description",
            "price_input_per_m",
            "price_output_per_m",
        }
        assert (channel["id"], channel["slug"]) == (1, "sandbox")
        assert "Sandbox" in channel["name"]
        assert channel["price_input_per_m"] == channel["price_output_per_m"] == 0


async def test_a_real_channel_takes_the_sandboxs_place_for_its_models(tmp_path: Path) -> None:
    real = Channel(
        id=10,
        slug="route-1",
        name="Primary Image",
        provider="sandbox",
        models={"gpt-image-2": Served(id="their-name")},
    )
    async with running_server(tmp_path, with_worker=False, channels=(real,)) as server:
        entry = await get(server, "/v1/models/gpt-image-2")
        (channel,) = entry["available_channels"]
        assert (channel["id"], channel["slug"]) == (10, "route-1")
        assert "their-name" not in str(entry), "the upstream's own name is nobody's business"
        other = await get(server, "/v1/models/nano-banana-pro")
        assert [each["slug"] for each in other["available_channels"]] == ["sandbox"]
        assert (await server.submit(channel_id=10)).status == 202
        (await server.submit(channel_id=1)).assert_refused(400, "unknown_channel", "channel_id")


async def test_what_discovery_shows_is_what_validation_takes(server: Server) -> None:
    for model in (await get(server, "/v1/models"))["data"]:
        for parameter in model["capabilities"]["parameters"]:
            name = parameter["name"]
            if parameter["type"] != "string" or "depends_on" in parameter:
                continue
            for value in parameter.get("enum", []):
                reply = await server.submit(model=model["id"], **{name: value})
                assert reply.status == 202, (model["id"], name, value, reply.body)
            refused = await server.submit(model=model["id"], **{name: 7})
            refused.assert_refused(400, "invalid_parameter", name)
        refused = await server.submit(model=model["id"], no_such_parameter=1)
        message = refused.assert_refused(400, "unsupported_parameter", "no_such_parameter")
        for parameter in model["capabilities"]["parameters"]:
            assert parameter["name"] in message


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/gpt-image-2", "/v1/models/brands/google/image"]
)
async def test_every_answer_can_be_cached_and_asked_for_again(server: Server, path: str) -> None:
    first = await server.anonymous("GET", path)
    etag = first.headers["ETag"]
    assert "public" in first.headers["Cache-Control"]
    assert (await server.anonymous("GET", path)).headers["ETag"] == etag
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        reply = await server.anonymous("GET", path, headers={"If-None-Match": known})
        assert (reply.status, reply.body) == (304, b"")
        assert reply.headers["ETag"] == etag
        assert reply.headers["Cache-Control"] == first.headers["Cache-Control"]
        assert reply.headers["X-Request-Id"]
    for other in ('"other"', "", etag[:-2], "null"):
        reply = await server.anonymous("GET", path, headers={"If-None-Match": other})
        assert (reply.status, reply.body) == (200, first.body)
    head = await server.anonymous("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(first.body))
    assert head.headers["ETag"] == etag


async def test_each_model_has_an_etag_of_its_own(server: Server) -> None:
    paths = ["/v1/models", "/v1/models/gpt-image-2", "/v1/models/nano-banana-pro"]
    etags = {(await server.anonymous("GET", path)).headers["ETag"] for path in paths}
    assert len(etags) == len(paths)


async def test_every_brands_mark_is_an_image(server: Server) -> None:
    for model in (await get(server, "/v1/models"))["data"]:
        reply = await server.anonymous("GET", model["brand_image_url"])
        assert reply.status == 200
        assert reply.headers["Content-Type"] == "image/svg+xml"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
        root = ET.fromstring(reply.body)  # noqa: S314 -- our own files
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert b"<script" not in reply.body


@pytest.mark.parametrize(
    "path",
    [
        "midjourney",
        "GPT-IMAGE-2",
        "openai/gpt-image-2",
        "",
        "%2e%2e%2fgpt-image-2",
        "%00",
        "brands/..%2fgoogle/image",
    ],
)
async def test_an_unknown_model_is_not_found(server: Server, path: str) -> None:
    reply = await server.exchange(f"GET /v1/models/{path}")
    message = reply.assert_refused(404, "model_not_found")
    assert "gpt-image-2" in message


@pytest.mark.parametrize("name", ["midjourney", "Google", "google.svg", "..", "%00"])
async def test_an_unknown_brand_is_not_found(server: Server, name: str) -> None:
    reply = await server.exchange(f"GET /v1/models/brands/{name}/image")
    assert "google" in reply.assert_refused(404, "brand_not_found")
