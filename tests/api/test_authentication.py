"""Who may call: keys, and the paths that need none."""

import pytest

from calotype.core import build_core
from calotype.settings import Settings
from harness import FORM, GENERATIONS, Reply, Server, form, picture

UNKNOWN = "ck_" + "x" * 43
CLOSED = [
    ("POST", GENERATIONS),
    ("GET", "/v1/tasks/task_0000000000000"),
    ("HEAD", "/v1/tasks/task_0000000000000"),
    ("GET", "/v1/credits/balance"),
    ("POST", "/mcp"),
]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def assert_unauthorized(reply: Reply, code: str) -> str:
    message = reply.assert_refused(401, code)
    assert reply.headers["WWW-Authenticate"] == 'Bearer realm="calotype"'
    return message


async def test_every_closed_route_asks_for_a_key(idle_server: Server) -> None:
    for method, path in CLOSED:
        reply = await idle_server.anonymous(method, path)
        if method == "HEAD":
            assert (reply.status, reply.body) == (401, b"")
        else:
            assert_unauthorized(reply, "missing_api_key")


async def test_every_closed_route_refuses_a_key_it_does_not_know(idle_server: Server) -> None:
    for method, path in CLOSED:
        reply = await idle_server.anonymous(method, path, headers=bearer(UNKNOWN))
        if method == "HEAD":
            assert (reply.status, reply.body) == (401, b"")
        else:
            assert_unauthorized(reply, "invalid_api_key")


async def test_anything_but_a_bearer_key_counts_as_none(idle_server: Server) -> None:
    key = idle_server.key
    for value in ("", "Bearer", "Bearer ", "Bearer    ", f"Basic {key}", key, f"Token {key}"):
        reply = await idle_server.anonymous(
            "GET", "/v1/credits/balance", headers={"Authorization": value}
        )
        assert_unauthorized(reply, "missing_api_key")


async def test_a_malformed_key_is_refused(idle_server: Server) -> None:
    key = idle_server.key
    malformed = [
        "sk-something-else",
        key[:-1],
        key + "x",
        key.upper(),
        f"{key},{key}",
        f'"{key}"',
        f"{key} extra",
        "ck_" + "é" * 43,
        "ck_" + "/" * 43,
        "x" * 4000,
    ]
    for each in malformed:
        reply = await idle_server.anonymous("GET", "/v1/credits/balance", headers=bearer(each))
        message = assert_unauthorized(reply, "invalid_api_key")
        assert each not in message, "a key is never repeated"


async def test_the_scheme_is_read_in_any_case(idle_server: Server) -> None:
    for scheme in ("bearer", "BEARER", "Bearer "):
        headers = {"Authorization": f"{scheme} {idle_server.key}"}
        reply = await idle_server.anonymous("GET", "/v1/credits/balance", headers=headers)
        assert reply.status == 200


async def test_a_key_in_the_query_is_no_key(idle_server: Server) -> None:
    for name in ("key", "api_key", "access_token"):
        path = f"/v1/credits/balance?{name}={idle_server.key}"
        assert_unauthorized(await idle_server.anonymous("GET", path), "missing_api_key")


async def test_a_revoked_key_is_refused_at_once_and_its_sister_is_not(idle_server: Server) -> None:
    accounts = idle_server.core.accounts
    secret, key = await accounts.create_key("second", account="test")
    path = "/v1/credits/balance"
    assert (await idle_server.anonymous("GET", path, headers=bearer(secret))).status == 200
    assert await accounts.revoke(key)
    for _ in range(3):
        reply = await idle_server.anonymous("GET", path, headers=bearer(secret))
        assert "revoked" in assert_unauthorized(reply, "invalid_api_key")
    assert (await idle_server.call("GET", path)).status == 200


async def test_a_key_revoked_by_another_process_is_refused_at_once(idle_server: Server) -> None:
    secret, key = await idle_server.core.accounts.create_key("second", account="test")
    path = "/v1/credits/balance"
    assert (await idle_server.anonymous("GET", path, headers=bearer(secret))).status == 200
    elsewhere = build_core(Settings(data_dir=idle_server.data))
    assert await elsewhere.accounts.revoke(key)
    await elsewhere.store.close()
    reply = await idle_server.anonymous("GET", path, headers=bearer(secret))
    assert "revoked" in assert_unauthorized(reply, "invalid_api_key")


async def test_a_key_is_good_until_it_expires(idle_server: Server) -> None:
    accounts = idle_server.core.accounts
    fresh, _ = await accounts.create_key("fresh", account="test", expires_in_seconds=3600)
    stale, _ = await accounts.create_key("stale", account="test", expires_in_seconds=0)
    path = "/v1/credits/balance"
    assert (await idle_server.anonymous("GET", path, headers=bearer(fresh))).status == 200
    reply = await idle_server.anonymous("GET", path, headers=bearer(stale))
    assert "expired" in assert_unauthorized(reply, "invalid_api_key")


async def test_nothing_of_an_upload_without_key_is_stored(idle_server: Server) -> None:
    body = form(("model", "gpt-image-2"), ("prompt", "x"), ("image", picture(), "a.png"))
    head = f"POST {GENERATIONS}\nContent-Type: {FORM['Content-Type']}\n"
    length = f"Content-Length: {len(body)}"
    idle_server.key = UNKNOWN
    assert_unauthorized(await idle_server.exchange(head + length, body), "invalid_api_key")
    assert idle_server.stored_files() == []


async def test_the_key_is_judged_before_the_body(idle_server: Server) -> None:
    for body, kind in ((b"{", "application/json"), (b"", "text/plain"), (b"x", "multipart/x")):
        reply = await idle_server.anonymous(
            "POST", GENERATIONS, data=body, headers={"Content-Type": kind}
        )
        assert_unauthorized(reply, "missing_api_key")


@pytest.mark.parametrize("headers", [{}, bearer(UNKNOWN)], ids=["no key", "a bad key"])
async def test_catalog_assets_and_health_ask_for_no_key(
    server: Server, headers: dict[str, str]
) -> None:
    task = await server.outcome()
    image = task["result"]["data"][0]["url"].removeprefix(server.url)
    models = ["/v1/models", "/v1/models/gpt-image-2", "/v1/models/brands/openai/image"]
    for path in [*models, image, "/healthz", "/readyz"]:
        reply = await server.anonymous("GET", path, headers=headers)
        assert reply.status == 200, path
        assert reply.headers["X-Request-Id"]


async def test_keys_are_not_readable_in_the_data_folder(idle_server: Server) -> None:
    await idle_server.submit()
    for path in idle_server.data.rglob("*"):
        if path.is_file():
            assert idle_server.key.encode() not in path.read_bytes(), path
