"""Requests over several channels: what is refused, what is charged, and what SIGHUP changes."""

from pathlib import Path

import msgspec
import pytest

from calotype.domain.channel import Channel, Served
from calotype.domain.secret import Secret
from harness import running_server

PLAIN = Channel(id=20, slug="plain", name="Plain", provider="sandbox")
PICKY = Channel(
    id=21,
    slug="picky",
    name="Picky",
    provider="bfl",
    base_url="http://127.0.0.1:9",
    api_key=Secret("bfl-test"),
    models={"flux-2-pro": Served()},
)
NARROW = Channel(
    id=22,
    slug="narrow",
    name="Narrow",
    provider="replicate",
    base_url="http://127.0.0.1:9",
    api_key=Secret("r8-test"),
    models={"gpt-image-2": Served()},
)


async def test_a_request_that_the_only_channel_cannot_say_is_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    async with running_server(tmp_path, channels=(NARROW,)) as server:
        reply = await server.submit(
            model="gpt-image-2", prompt="wide", aspect_ratio="4:3", resolution="1K"
        )
        message = reply.assert_refused(400, "invalid_parameter")
        assert "22 (narrow)" in message
        assert "4:3" in message


async def test_a_pinned_channel_that_cannot_is_refused_though_another_could(
    tmp_path: Path,
) -> None:
    both = (
        msgspec.structs.replace(PLAIN, models={"gpt-image-2": Served()}),
        NARROW,
    )
    asked = {"model": "gpt-image-2", "prompt": "wide", "aspect_ratio": "4:3"}
    async with running_server(tmp_path, channels=both) as server:
        (await server.submit(**asked, channel_id=22)).assert_refused(
            400, "invalid_parameter", "channel_id"
        )
        free = await server.accepted(**asked)
        assert (await server.finished(free["task_id"]))["channel"]["id"] == 20


async def test_the_highest_price_is_reserved_and_the_channels_own_is_charged(
    tmp_path: Path,
) -> None:
    cheap = msgspec.structs.replace(PLAIN, models={"gpt-image-2": Served(price=10_000)})
    dear = msgspec.structs.replace(
        PLAIN, id=23, slug="dear", priority=-1, models={"gpt-image-2": Served(price=90_000)}
    )
    async with running_server(tmp_path, channels=(cheap, dear)) as server:
        accepted = await server.accepted(model="gpt-image-2", prompt="a lighthouse")
        billing = (await server.finished(accepted["task_id"]))["billing"]
        assert billing == {
            "status": "committed",
            "reserve_amount_micro_usdc": 90_000,
            "actual_amount_micro_usdc": 10_000,
            "released_amount_micro_usdc": 80_000,
        }


async def test_a_channel_that_is_switched_off_takes_nothing_and_is_not_shown(
    tmp_path: Path,
) -> None:
    off = msgspec.structs.replace(PLAIN, enabled=False, models={"gpt-image-2": Served()})
    async with running_server(tmp_path, channels=(off,)) as server:
        reply = await server.submit(model="gpt-image-2", prompt="a lighthouse")
        reply.assert_refused(503, "service_unavailable")
        entry = (await server.anonymous("GET", "/v1/models/gpt-image-2")).json
        assert entry["available_channels"] == []


async def test_a_request_that_was_accepted_is_found_again_though_its_channel_is_switched_off(
    tmp_path: Path,
) -> None:
    only = msgspec.structs.replace(PLAIN, models={"gpt-image-2": Served()})
    headers = {"Idempotency-Key": "order-1"}
    asked = {"model": "gpt-image-2", "prompt": "a lighthouse"}
    async with running_server(tmp_path, channels=(only,)) as server:

        async def send(prompt: str = "a lighthouse") -> tuple[int, str]:
            url = f"{server.url}/v1/images/generations"
            body = {**asked, "prompt": prompt}
            async with server.http.post(url, json=body, headers={**server.auth, **headers}) as got:
                document = await got.json()
                return got.status, document.get("task_id") or document["code"]

        first = await send()
        server.core.router.replace([msgspec.structs.replace(only, enabled=False)])
        assert await send() == first
        assert await send("another") == (503, "service_unavailable")
        assert (await server.balance())["balance_micro_usdc"] > 0


@pytest.mark.parametrize("secret", ["bfl-test"])
async def test_no_route_shows_a_credential_or_an_upstreams_address(
    tmp_path: Path, secret: str
) -> None:
    async with running_server(tmp_path, channels=(PICKY,)) as server:
        for path in ("/v1/models", "/v1/models/flux-2-pro", "/openapi.json", "/docs", "/readyz"):
            text = (await server.anonymous("GET", path)).body.decode()
            assert secret not in text
            assert "127.0.0.1:9" not in text
        assert secret not in repr(server.core.settings)
        assert secret not in repr(server.core.router.channels)
