"""A signed URL of an image is had from the server that made it, and from nobody else."""

import hashlib
import hmac
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio

from calotype.core import secret_of
from calotype.domain.clock import system_clock
from calotype.domain.ids import decode
from calotype.worker import Images
from harness import Reply, Server, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")
OTHERS = "0fA./&%"
"""What each byte is changed into: of the same kind, of another, and what divides."""

HASHES = ("md5", "sha1", "sha256", "sha384", "sha512", "sha3_256", "blake2s")
OTHER_LABELS = (b"calotype console form v1", b"calotype console password v1", b"webhooks v1")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running_server(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(server: Server) -> str:
    """Path and query of an image."""
    return await made(server)


async def made(server: Server) -> str:
    image: str = (await server.outcome())["result"]["data"][0]["url"]
    return image.removeprefix(server.url)


def is_refused(reply: Reply, what: str) -> None:
    assert reply.status in {400, 403, 404}, (what, reply.status)
    assert reply.headers["Content-Type"] == "application/json"


def parts(url: str) -> tuple[str, str, str]:
    """Name, time and signature."""
    query = parse_qs(urlsplit(url).query)
    name = url.partition("?")[0].rpartition("/")[2]
    return name, query["expires"][0], query["signature"][0]


def written(name: str, expires: str, signature: str, more: str = "") -> str:
    return f"/v1/assets/{name}?expires={expires}&signature={signature}{more}"


async def test_no_byte_of_it_can_be_changed(server: Server, url: str) -> None:
    assert (await server.exchange(f"GET {url}")).status == 200
    for place, letter in enumerate(url):
        for other in OTHERS:
            if other != letter and place:
                changed = url[:place] + other + url[place + 1 :]
                is_refused(await server.exchange(f"GET {changed}"), changed)


async def test_no_byte_of_it_can_be_left_out_or_put_in(server: Server, url: str) -> None:
    end = len(url)
    for place in range(1, end):
        without = url[:place] + url[place + 1 :]
        if without != url:
            is_refused(await server.exchange(f"GET {without}"), without)
    for place in range(url.index("?"), end):
        if place:
            is_refused(await server.exchange(f"GET {url[:place]}"), url[:place])
    for place in range(url.index("/asset_") + 1, end):
        longer = f"{url[:place]}0{url[place:]}"
        is_refused(await server.exchange(f"GET {longer}"), longer)
    for more in ("0", "00", "%00", "=", "%20", "\u00e9", url.rpartition("=")[2]):
        is_refused(await server.call("GET", url + more), more)


async def test_a_signature_is_for_one_image_until_one_moment(server: Server, url: str) -> None:
    another = await (await server.for_account()).outcome()
    other = another["result"]["data"][0]["url"].removeprefix(server.url)
    name, expires, signature = parts(url)
    for changed in [
        written(parts(other)[0], expires, signature),
        written(name, expires, parts(other)[2]),
        written(name, str(int(expires) + 1), signature),
        written(name, str(int(expires) - 1), signature),
        written(name, f"0{expires}", signature),
        written(name, f"{expires}.0", signature),
        written(name, f"+{expires}", signature),
        written(name, "99999999999", signature),
        written(name.replace(".", "-320."), expires, signature),
        written(name.upper(), expires, signature),
    ]:
        is_refused(await server.call("GET", changed), changed)


async def test_what_is_said_twice_is_judged_as_it_is_used(server: Server, url: str) -> None:
    name, expires, signature = parts(url)
    forged = "0" * len(signature)
    for changed in [
        written(name, expires, signature, f"&signature={forged}"),
        written(name, expires, signature, "&expires=99999999999"),
        written(name, "99999999999", signature, "&width=320"),
        written(name, expires, forged, "&width=320"),
    ]:
        is_refused(await server.call("GET", changed), changed)


async def test_a_width_is_one_of_those_that_there_are(server: Server, url: str) -> None:
    for width in ("1", "99999", "320x", "-320", "320%00", "1e3", "../320"):
        is_refused(await server.call("GET", f"{url}&width={width}"), width)


async def test_no_other_way_of_signing_is_taken(server: Server, url: str) -> None:
    """Neither another hash, nor the bare secret, nor a key that is for something else."""
    name, expires, _ = parts(url)
    secret, told = secret_of(server.core.settings), f"{name}\n{expires}".encode()
    label = b"calotype asset url v1"
    own = hmac.digest(secret, label, "sha256")
    assert written(name, expires, hmac.digest(own, told, "sha256").hex()) == url
    keys = [secret, b"", label, *(hmac.digest(secret, each, "sha256") for each in OTHER_LABELS)]
    forged = [hmac.digest(key, told, hash_).hex() for key in keys for hash_ in HASHES]
    forged += [hmac.digest(own, told, hash_).hex() for hash_ in HASHES if hash_ != "sha256"]
    forged += [hashlib.new(hash_, secret + told).hexdigest() for hash_ in HASHES]
    forged += [hashlib.new(hash_, told).hexdigest() for hash_ in HASHES]
    forged += ["none", "null", "true", "*", "[]", "eyJhbGciOiJub25lIn0.e30."]
    for signature in forged:
        is_refused(await server.call("GET", written(name, expires, signature)), signature)


async def test_another_servers_signature_of_the_same_image_is_refused(
    server: Server, url: str, tmp_path: Path
) -> None:
    asset_id = decode("asset", parts(url)[0].partition(".")[0])
    assert asset_id is not None
    async with running_server(tmp_path, with_worker=False) as elsewhere:
        images = Images(elsewhere.core)
        path, expires = images.assets.signed_path(asset_id, "image/png")
        await images.close()
    assert expires > system_clock() // 1000
    (await server.call("GET", path)).assert_refused(403, "invalid_signature")
