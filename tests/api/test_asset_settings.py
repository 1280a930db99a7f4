"""What is refused of the settings on images, and what is only warned of."""

import logging
from pathlib import Path

import pytest

from calotype.core import asset_store_of, prepare_assets
from calotype.settings import Settings, SettingsError
from s3 import KEY, READER, SECRET, S3Server


def test_a_cdn_and_redirects_contradict_each_other() -> None:
    both = {
        "CALOTYPE_ASSET_BASE_URL": "https://cdn.example.com",
        "CALOTYPE_ASSET_DELIVERY": "redirect",
    }
    with pytest.raises(SettingsError, match="CALOTYPE_ASSET_DELIVERY: a CDN at asset_base_url"):
        Settings.load(both)
    del both["CALOTYPE_ASSET_DELIVERY"]
    assert not Settings.load(both).redirects_assets


def test_a_store_that_there_is_not_is_told_by_its_setting(tmp_path: Path) -> None:
    settings = Settings.load({"CALOTYPE_ASSETS_URL": "ftp://b", "CALOTYPE_DATA_DIR": str(tmp_path)})
    with pytest.raises(SettingsError, match="CALOTYPE_ASSETS_URL: there is no asset store 'ftp'"):
        asset_store_of(settings)


def test_a_folder_that_cannot_be_made_is_told_by_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"assets_url: cannot be used .*check the folder"):
        asset_store_of(Settings(assets_url=str(tmp_path / "file" / "assets")))


async def refused(settings: Settings) -> str:
    store = asset_store_of(settings)
    with pytest.raises(SettingsError) as caught:
        await prepare_assets(settings, store)
    await store.close()
    assert SECRET not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("variables", "cure"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "another"}, "the secret key is wrong; check AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "the store does not know this access key"),
        ({"AWS_ACCESS_KEY_ID": READER}, "these credentials may not write there; let them write"),
    ],
)
async def test_credentials_that_do_not_do_are_refused_at_start(
    s3: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    cure: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    message = await refused(Settings(data_dir=tmp_path, assets_url=s3.url()))
    assert message.startswith("assets_url: s3://images/")
    assert cure in message


async def test_a_bucket_that_there_is_not_is_refused_at_start(s3: S3Server, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, assets_url=s3.url(bucket="nowhere"))
    assert "there is no bucket nowhere; make it, or check the name" in await refused(settings)


async def test_a_store_that_cannot_sign_is_refused_only_where_clients_are_sent_to_it(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    settings = Settings(data_dir=tmp_path, assets_url=s3.url(), asset_delivery="proxy")
    store = asset_store_of(settings)
    await prepare_assets(settings, store)
    assert await store.signed_url("results/a/asset_1.png", seconds=60) is None
    await store.close()


async def test_a_store_that_does_not_answer_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, s3: S3Server
) -> None:
    settings = Settings(data_dir=tmp_path, assets_url=s3.url(endpoint="http://127.0.0.1:9"))
    store = asset_store_of(settings)
    with caplog.at_level(logging.WARNING):
        await prepare_assets(settings, store)
    assert "is in trouble: Generic S3 error" in caplog.text
    assert KEY not in caplog.text
    await store.close()


async def test_a_folder_under_a_shared_database_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for database, told in (("", False), ("postgresql://postgres@127.0.0.1/calotype", True)):
        settings = Settings(data_dir=tmp_path, database_url=database)
        store = asset_store_of(settings)
        with caplog.at_level(logging.WARNING):
            await prepare_assets(settings, store)
        await store.close()
        assert ("set assets_url to a cloud store" in caplog.text) == told
    caplog.clear()
    chosen = Settings(data_dir=tmp_path, database_url="postgresql://h/n", assets_url=str(tmp_path))
    await prepare_assets(chosen, asset_store_of(chosen))
    assert caplog.text == ""
