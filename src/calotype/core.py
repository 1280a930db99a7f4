"""What every command works with, made without the server's heavier parts."""

import os
import random
import secrets
from contextlib import suppress
from pathlib import Path

import msgspec

from calotype.catalog import load_catalog
from calotype.domain.catalog import Catalog
from calotype.domain.channel import channels_in_force
from calotype.domain.clock import Clock, system_clock
from calotype.domain.ids import IdSource
from calotype.providers.registry import PROVIDERS, built_in_channel
from calotype.services.accounts import Accounts
from calotype.services.routing import Router
from calotype.settings import Settings, SettingsError
from calotype.store.port import Store
from calotype.store.sqlite import SqliteStore


class Core(msgspec.Struct, frozen=True):
    """What every command works with."""

    settings: Settings
    catalog: Catalog
    router: Router
    store: Store
    accounts: Accounts
    ids: IdSource
    clock: Clock


def build_core(settings: Settings) -> Core:
    """Read the catalog, judge the channels, and name the store; nothing is opened yet.

    Raises:
        SettingsError: a channel names a provider or a model that does not exist.
        CatalogError: a model file is wrong.

    """
    catalog = load_catalog(settings.catalog_dir)
    for channel in settings.channels:
        if channel.provider not in PROVIDERS:
            raise SettingsError(
                f"channels: {channel.slug}: there is no provider '{channel.provider}'; "
                f"there are {', '.join(PROVIDERS)}."
            )
        for model in channel.models or ():
            if model not in catalog.models:
                raise SettingsError(
                    f"channels: {channel.slug}: models: there is no model '{model}' in the "
                    f"catalog; there are {', '.join(catalog.models)}."
                )
    channels = channels_in_force(
        settings.channels,
        built_in=built_in_channel(settings),
        models=list(catalog.models),
    )
    store = _store(settings)
    ids = IdSource(system_clock)
    return Core(
        settings=settings,
        catalog=catalog,
        router=Router(channels, chance=random.SystemRandom()),
        store=store,
        accounts=Accounts(store, ids=ids, clock=system_clock),
        ids=ids,
        clock=system_clock,
    )


def _store(settings: Settings) -> Store:
    if settings.shared_database:
        from calotype.store.postgres import PostgresStore

        return PostgresStore(settings.database_url)
    return SqliteStore(settings.database_path)


def secret_of(settings: Settings) -> bytes:
    """The configured secret, or the one kept in the data folder, made when there is none."""
    if settings.secret.value:
        return settings.secret.value.encode()
    path = settings.data_dir / "secret"
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _keep_fresh_secret(path)
    kept = path.read_text().strip()
    if not kept:
        raise SettingsError(f"{path}: is empty; delete it and a new secret will be made.")
    return kept.encode()


def _keep_fresh_secret(path: Path) -> None:
    """Make a secret whole before it is seen; of several processes at once, the first one's."""
    draft = path.with_name(f"secret-{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
