"""What every command works with, made without the server's heavier parts."""

import logging
import os
import random
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from calotype.assets.address import Bucket, parse
from calotype.assets.disk import DiskAssets
from calotype.assets.port import AssetStore, Misconfigured
from calotype.catalog import load_catalog
from calotype.domain.catalog import Catalog
from calotype.domain.channel import Channel, channels_in_force
from calotype.domain.clock import Clock, system_clock
from calotype.domain.health import Breakers
from calotype.domain.ids import IdSource
from calotype.domain.wire import Upstream, Wire
from calotype.judging import judged
from calotype.providers.kind import SetUpFault, kind_of
from calotype.providers.sandbox import built_in_channel
from calotype.services.accounts import Accounts
from calotype.services.audit import Audit
from calotype.services.operating import Operating
from calotype.services.routing import Router
from calotype.services.switches import Switches
from calotype.settings import Settings, SettingsError
from calotype.store.port import Store

log = logging.getLogger(__name__)


class Core(msgspec.Struct, frozen=True):
    """What every command works with."""

    settings: Settings
    catalog: Catalog
    router: Router
    store: Store
    accounts: Accounts
    audit: Audit
    switches: Switches
    operating: Operating
    ids: IdSource
    clock: Clock

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        """Provider → how it takes each model; the sandbox has none, and takes all as they are."""
        return self.catalog.upstreams


def build_core(settings: Settings) -> Core:
    """Read the catalog, judge the channels, and name the store; nothing is opened yet.

    Raises:
        SettingsError: a channel cannot do what it is to.
        CatalogError: a file of the catalog is wrong.

    """
    catalog = msgspec.structs.replace(
        load_catalog(settings.catalog_dir),
        result_days=settings.result_days,
        reference_days=settings.reference_days,
    )
    channels = channels_of(settings, catalog)
    catalog = catalog.offered({name for channel in channels for name in channel.models or ()})
    store = _store(settings)
    ids = IdSource(system_clock)
    router = Router(
        channels,
        upstreams=catalog.upstreams,
        breakers=Breakers(),
        chance=random.SystemRandom(),
        clock=system_clock,
        narrow=_narrowed,
    )
    audit, switches = Audit(store, clock=system_clock), Switches(store, router)
    return Core(
        settings=settings,
        catalog=catalog,
        router=router,
        store=store,
        audit=audit,
        switches=switches,
        operating=Operating(store, router, audit=audit, switches=switches, clock=system_clock),
        accounts=Accounts(store, catalog, router, ids=ids, clock=system_clock),
        ids=ids,
        clock=system_clock,
    )


def channels_of(settings: Settings, catalog: Catalog) -> tuple[Channel, ...]:
    """The channels in force: those configured, and the sandbox for what they leave.

    Raises:
        SettingsError: a channel cannot do what it is to; with file, key and cure.

    """
    return channels_in_force(
        judged(settings, catalog),
        built_in=built_in_channel(settings.sandbox_seconds),
        models=[model.id for model in catalog.models.values() if not model.needs_channel],
    )


def _narrowed(channel: Channel, model: str, wire: Wire) -> Wire:
    """What a channel takes of what its upstream's file says.

    It was in order when it was judged. Where it is not any more, nothing is narrowed: the provider
    looks at it again before each send, and refuses with what is wrong.
    """
    narrow = kind_of(channel.provider).narrow
    try:
        return wire if narrow is None else narrow(channel, model, wire)
    except SetUpFault as fault:
        log.warning("channel %s, model %s: %s", channel.slug, model, fault)
        return wire


def _store(settings: Settings) -> Store:
    if settings.shared_database:
        from calotype.store.postgres import PostgresStore

        return PostgresStore(settings.database_url)
    from calotype.store.sqlite import SqliteStore

    return SqliteStore(settings.database_path)


def assets_at(settings: Settings) -> Path | Bucket:
    """The folder of the images, or their place in a cloud store.

    Raises:
        SettingsError: there is no such store.

    """
    if not settings.assets_url:
        return settings.data_dir / "assets"
    try:
        return parse(settings.assets_url)
    except Misconfigured as fault:
        raise _misplaced(settings, fault) from None


def asset_store_of(settings: Settings) -> AssetStore:
    """Where images are to lie; nothing is opened yet but the folder for what is staged.

    Raises:
        SettingsError: there is no such store, or its credentials cannot be used.

    """
    place = assets_at(settings)
    try:
        if isinstance(place, Path):
            return DiskAssets(place)
        from calotype.assets.cloud import CloudAssets  # its library takes time and memory

        return CloudAssets(
            place, staging=settings.data_dir / "staging", signs=settings.redirects_assets
        )
    except Misconfigured as fault:
        raise _misplaced(settings, fault) from None
    except OSError as error:
        unusable = f"cannot be used ({error}); check the folder and who may write there."
        raise _misplaced(settings, Misconfigured(unusable)) from None


async def prepare_assets(settings: Settings, store: AssetStore) -> None:
    """Look at start whether images can be kept; a store that does not answer may do so later.

    Raises:
        SettingsError: it cannot be used as it is configured.

    """
    if settings.shared_database and not settings.assets_url:
        log.warning(
            "images lie in the data folder: processes on other machines of this database find them "
            "only if they share it; set assets_url to a cloud store, or to the folder that they do"
        )
    try:
        await store.prepare()
    except Misconfigured as fault:
        raise _misplaced(settings, fault) from None


def _misplaced(settings: Settings, fault: Misconfigured) -> SettingsError:
    return SettingsError(f"{settings.said_by.get('assets_url', 'assets_url')}: {fault}")


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
