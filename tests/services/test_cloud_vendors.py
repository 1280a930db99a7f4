"""What goes out to Google's and Azure's stores, as a listener on loopback sees it.

No real account was used: this holds the requests against the vendors' documentation, no more.
"""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import pytest_asyncio
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from calotype.assets.address import Bucket, parse
from calotype.assets.cloud import PART, CloudAssets
from calotype.assets.port import Misconfigured

PLACE = "results/1k0v/asset_1k0v3m9d5b8qe.png"
MULTIPART = b"<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>u1</UploadId></InitiateMultipartUploadResult>"  # noqa: E501 -- one answer
COMPLETE = b'<CompleteMultipartUploadResult><ETag>"whole"</ETag></CompleteMultipartUploadResult>'


class Listener:
    """Says yes to every upload, and keeps what came."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, dict[str, str], int]] = []

    async def handle(self, request: web.Request) -> web.Response:
        size = len(await request.read())
        said = f"{request.method} {unquote(request.path_qs)}"
        self.requests.append((said, {k.lower(): v for k, v in request.headers.items()}, size))
        if request.method in {"HEAD", "DELETE"}:
            return web.Response(status=404)
        if request.method == "POST" and "uploads" in request.query:
            return web.Response(body=MULTIPART)
        if request.method == "POST":
            return web.Response(body=COMPLETE)
        return web.Response(status=201, headers={"ETag": '"part"'})


@pytest_asyncio.fixture
async def listener() -> AsyncIterator[Listener]:
    made, app = Listener(), web.Application(client_max_size=PART * 2)
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


def opened(url: str, tmp_path: Path) -> CloudAssets:
    bucket = parse(url)
    assert isinstance(bucket, Bucket)
    return CloudAssets(bucket, staging=tmp_path / "staging", signs=True)


async def keep(store: CloudAssets, size: int) -> None:
    async with store.stage() as staged:
        await staged.write(b"x" * size)
        await staged.publish(PLACE, content_type="image/png")


def account_key(folder: Path, url: str, *, token: bool = False) -> Path:
    """The key file of a Google service account; it asks Google for no token unless told to."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = folder / "account.json"
    account = {
        "type": "service_account",
        "client_email": "calotype@example.iam.gserviceaccount.com",
        "private_key_id": "1",
        "private_key": key.decode(),
        "gcs_base_url": url,
        "disable_oauth": not token,
    }
    path.write_text(json.dumps(account))
    return path


async def test_google_gets_an_object_at_once_or_in_parts_with_its_type(
    listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(account_key(tmp_path, listener.url)))
    store = opened(f"gs://photos/team?endpoint={listener.url}", tmp_path)
    await keep(store, 10)
    await keep(store, PART + 1)
    (first, headers, size), (begun, said, _), *parts, (ended, _, _) = listener.requests
    assert first.startswith("PUT /photos/team/results/1k0v/asset_1k0v3m9d5b8qe.png")
    assert (size, headers["content-type"]) == (10, "image/png")
    assert headers["cache-control"] == said["cache-control"] == ("private, max-age=86400")
    assert (begun.partition("?")[2], said["content-type"]) == ("uploads=", "image/png")
    assert [part[2] for part in parts] == [PART, 1]
    assert ended.endswith("?uploadId=u1")
    assert not await store.holds(PLACE)
    await store.delete([PLACE, "thumbnails/1k0v/asset_1k0v3m9d5b8qe-160.webp"])
    await store.close()


async def test_a_key_of_google_signs_urls_without_asking_anybody(
    listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = account_key(tmp_path, listener.url, token=True)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    store = opened(f"gs://photos/team?endpoint={listener.url}", tmp_path)
    url = await store.signed_url(PLACE, seconds=60)
    assert url is not None
    assert "X-Goog-Algorithm=GOOG4-RSA-SHA256" in url
    assert "X-Goog-Expires=60" in url
    assert listener.requests == []
    await store.close()


async def test_azure_gets_a_block_blob_at_once_or_in_blocks_with_its_type(
    listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"k" * 32).decode())
    store = opened(f"az://photos/team?account=mine&endpoint={listener.url}", tmp_path)
    await keep(store, 10)
    await keep(store, PART + 1)
    (first, headers, size), *blocks, (ended, said, _) = listener.requests
    assert first == f"PUT /photos/team/{PLACE}"
    assert (size, headers["x-ms-blob-type"]) == (10, "BlockBlob")
    assert headers["authorization"].startswith("SharedKey mine:")
    assert headers["x-ms-blob-content-type"] == said["x-ms-blob-content-type"] == "image/png"
    assert [block[2] for block in blocks] == [PART, 1]
    assert ended == f"PUT /photos/team/{PLACE}?comp=blocklist"
    url = await store.signed_url(PLACE, seconds=60)
    assert url is not None
    assert "sp=r" in url
    assert not await store.holds(PLACE)
    await store.close()


async def test_azure_without_an_account_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(Misconfigured, match="Account must be specified"):
        opened("az://photos", tmp_path)


async def test_a_sas_token_signs_nothing_and_is_not_told(
    listener: Listener,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_SAS_KEY", "sv=1&sig=hushhush")
    store = opened(f"az://photos?account=mine&endpoint={listener.url}", tmp_path)
    with pytest.raises(Exception, match="cannot be stored or read right now"):
        await store.signed_url(PLACE, seconds=60)
    assert "SAS tokens auth is not supported" in caplog.text
    assert "hushhush" not in caplog.text
    await store.close()
