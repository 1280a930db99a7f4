"""Images cannot be stored: told as such, and nothing is half-done."""

import shutil

from harness import Server, picture


async def test_an_upload_is_refused_as_unavailable_and_the_server_recovers(
    idle_server: Server,
) -> None:
    assets = idle_server.data / "assets"
    shutil.rmtree(assets)
    assets.write_text("a file where the folder was")
    parts = ("image", picture(), "a.png")
    refused = await idle_server.submit_form(parts)
    assert refused.refusal == (503, "service_unavailable", None)
    assert refused.headers["Retry-After"] == "5"
    ready = await idle_server.call("GET", "/readyz")
    assert ready.status == 503
    assert ready.json["checks"]["assets"] == "Images cannot be stored or read right now."
    assert (await idle_server.balance())["reserved_micro_usdc"] == 0
    assets.unlink()
    assert (await idle_server.submit_form(parts)).status == 202
    assert (await idle_server.call("GET", "/readyz")).status == 200
