"""What ``calotype doctor`` checks: one function for each line that it prints.

No check writes anything that stays, and none makes a folder or a database that is not there.
"""

import fcntl
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from calotype.assets.port import AssetStore
from calotype.cli import session, show
from calotype.core import Core, asset_store_of, prepare_assets
from calotype.domain.errors import CalotypeError
from calotype.domain.ids import encode
from calotype.domain.task import Attempt, State
from calotype.imaging.signature import Signature, Unfit
from calotype.imaging.signing import check
from calotype.judging import check_here
from calotype.providers.sandbox import SANDBOX
from calotype.services.watching import LEAST_FREE
from calotype.settings import Settings, SettingsError
from calotype.store.port import StoreError

NEWEST: Final = 100
"""Successful tasks whose files are looked for."""
UNKNOWN_READ: Final = 1000
"""Attempts of unknown outcome that are told of."""
_SHOWN: Final = 5
_DATABASE: Final = "database"
_PAGE: Final = 1000
_FIRST_YEAR: Final = 2025
"""Ids count from there."""
_START: Final = "run calotype serve or calotype migrate"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report.

    Args:
        name: what was checked.
        holds: whether it holds; None is information, or something that could not be checked yet.
        message: what was found.
        cure: what to do, where it does not hold.
        details: more lines.

    """

    name: str
    holds: bool | None
    message: str
    cure: str = ""
    details: tuple[str, ...] = ()


class _Fault(Exception):
    """A check does not hold."""

    def __init__(self, message: str, *, cure: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure
        self.details = tuple(details)


class _Unchecked(Exception):
    """There is nothing to check yet."""


Check = Callable[[Core], Awaitable[str]]


async def examine(core: Core) -> list[Finding]:
    """Every check on a configuration that could be loaded."""
    findings = [await _find(name, check, core) for name, check in _CHECKS]
    try:
        readable = all(one.holds for one in findings if one.name == _DATABASE)
        if readable:
            findings += [await _find(name, check, core) for name, check in _DATABASE_CHECKS]
        findings.append(await _worker(core, readable=readable))
    finally:
        await core.store.close()
    return findings


async def _find(name: str, check: Check, core: Core) -> Finding:
    try:
        return Finding(name=name, holds=True, message=await check(core))
    except _Unchecked as reason:
        return Finding(name=name, holds=None, message=str(reason))
    except _Fault as error:
        fault = error
    except StoreError as error:  # 'what is wrong; what to do.'
        what, _, cure = str(error).rstrip(".").rpartition("; ")
        fault = _Fault(what or cure, cure=cure)
    except (CalotypeError, sqlite3.Error) as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        cure = "check that it can be read and written; if it is damaged, restore a backup"
        fault = _Fault(f"{error}{cause}", cure=cure)
    except OSError as error:
        fault = _Fault(str(error), cure="check the path, its owner and its permissions")
    return Finding(
        name=name, holds=False, message=fault.message, cure=fault.cure, details=fault.details
    )


async def _configuration(core: Core) -> str:
    settings, channels = core.settings, len(core.settings.channels)
    return (
        f"data in {settings.data_dir.absolute()}, {len(core.catalog.models)} models, "
        f"{channels or 'no'} configured channel{'' if channels == 1 else 's'}{_signed(settings)}"
    )


def _signed(settings: Settings) -> str:
    if settings.c2pa_certificate is None or settings.c2pa_key is None:
        return ""
    try:
        until = check(Signature(str(settings.c2pa_certificate), str(settings.c2pa_key)))
    except Unfit as unfit:
        name = f"c2pa_{unfit.subject}"
        raise _Fault(f"{name}: {unfit}", cure=f"mend {name}, or results are unsigned") from None
    return f", results signed until {until:%Y-%m-%d}"


async def _folder(core: Core) -> str:
    folder = core.settings.data_dir
    if not folder.exists():
        raise _Fault(f"{folder.absolute()} does not exist", cure=_START)
    if not folder.is_dir():
        raise _Fault(f"{folder.absolute()} is no folder", cure="set data_dir to a folder")
    _write(folder)
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE:
        raise _Fault(
            f"{show.size(free)} free in {folder.absolute()}",
            cure=f"make room: below {show.size(LEAST_FREE)} new images may not fit",
        )
    return f"writable, {show.size(free)} free"


def _write(folder: Path) -> None:
    """Write and remove a small file."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"calotype")
        file.flush()
        os.fsync(file.fileno())


async def _secret(core: Core) -> str:
    if core.settings.secret.value:
        return "configured"
    path = core.settings.data_dir / "secret"
    if not path.exists():
        raise _Unchecked("not made yet; calotype serve makes it")
    if not path.read_text().strip():
        raise _Fault(f"{path} is empty", cure="delete it; calotype serve makes a new one")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise _Fault(
            f"{path} can be read by others, who can then sign image URLs",
            cure=f"chmod 600 {path}",
        )
    return "kept in the data folder, for its owner only"


async def _database(core: Core) -> str:
    if core.settings.shared_database:
        await core.store.prepare()
        await core.store.ping()
        return "shared; its schema is one that this Calotype works with"
    path = core.settings.database_path
    if not path.exists():
        raise _Fault(f"{path.absolute()} does not exist", cure=_START)
    found, known = session.schema_versions(path)
    if found > known:
        raise _Fault(
            f"{path}: schema version {found}, newer than the {known} that this Calotype knows",
            cure="use the newer Calotype that wrote it, or restore a backup",
        )
    if found < known:
        raise _Fault(
            f"{path}: schema version {found}, this Calotype works with {known}",
            cure="run calotype migrate",
        )
    await core.store.ping()
    return f"{path}, schema version {found}, {show.size(path.stat().st_size)}"


async def _channels(core: Core) -> str:
    enabled = [model.id for model in core.catalog.models.values() if model.enabled]
    left = [model for model in enabled if not core.router.serving(model)]
    if left:
        raise _Fault(f"no channel serves {', '.join(left)}", cure="add these models to a channel")
    served = {
        channel.id: sum(channel.serves(model) for model in enabled)
        for channel in core.router.channels
    }
    listed = ", ".join(
        f"{channel.slug} (channel {channel.id}) {served[channel.id]} of {len(enabled)}"
        for channel in core.router.channels
    )
    return f"every model is served: {listed}{_away(core)}"


def _away(core: Core) -> str:
    """What keeps a worker on this machine from its work; on a shared database others may do it."""
    try:
        check_here(core.router.channels, core.settings)
    except SettingsError as error:
        if core.settings.shared_database:
            return f"; no worker can run here: {str(error).rstrip('.')}"
        what, _, cure = str(error).rstrip(".").rpartition("; ")
        raise _Fault(what or cure, cure=cure) from None
    return ""


async def _books(core: Core) -> str:
    wrong = await core.store.prove()
    if wrong:
        raise _Fault(
            f"{len(wrong)} thing{'' if len(wrong) == 1 else 's'} in the ledger do not add up",
            cure="stop the server, keep a copy of the database, and restore a backup",
            details=_first(wrong),
        )
    accounts = await core.store.accounts()
    return f"every balance is the sum of its ledger; accounts: {len(accounts)}"


def _first(lines: Sequence[str]) -> list[str]:
    left = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"… and {left} more"] if left > 0 else [])]


async def _assets(core: Core) -> str:
    folder = session.assets_place(core.settings)
    if not isinstance(folder, Path):
        return await _cloud(core, str(folder))
    if not (folder / "incoming").is_dir():
        raise _Unchecked("no image was stored yet; calotype serve makes the folder")
    _write(folder / "incoming")
    return f"{folder} is writable"


async def _cloud(core: Core, place: str) -> str:
    try:
        store = asset_store_of(core.settings)
        await prepare_assets(core.settings, store)
        await store.ping()
    except SettingsError as error:
        what, _, cure = str(error).rstrip(".").rpartition("; ")
        raise _Fault(what or cure, cure=cure) from None
    return f"{place} can be written, read and listed"


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


async def _results(core: Core) -> str:
    newest = await core.store.tasks(state=State.SUCCESS, limit=NEWEST)
    tasks = [task for task in newest if task.has_images(now=core.clock())]
    at, missing, count = session.assets_place(core.settings), list[str](), 0
    store: AssetStore | None = None
    for task in tasks:
        for image in task.result:
            count += 1
            asset = await core.store.asset(image.asset_id)
            if asset is None:
                whole, where = False, "no row says where it lies"
            elif isinstance(at, Path):
                whole, where = _is_whole(at / asset.key, image.bytes), str(at / asset.key)
            else:
                store = store or asset_store_of(core.settings)
                whole, where = await store.holds(asset.key), f"{at}/{asset.key}"
            if not whole:
                missing.append(f"{encode('task', task.id)}: {where}")
    if missing:
        raise _Fault(
            f"{len(missing)} of the newest {count} images are gone or cut short",
            cure="restore them from a backup",
            details=_first(missing),
        )
    if not tasks:
        raise _Unchecked("no task has succeeded yet")
    return f"all {count} images of the newest {len(tasks)} successful tasks are there"


async def _clock(core: Core) -> str:
    now = core.clock()
    cure = "set the machine's clock (NTP); ids, deadlines and signed URLs rest on it"
    if datetime.fromtimestamp(now / 1000, tz=UTC).year < _FIRST_YEAR:
        raise _Fault(f"{show.moment(now)} is in the past", cure=cure)
    return show.moment(now)


async def _clock_against_tasks(core: Core) -> str:
    newest = await core.store.tasks(limit=1)
    if not newest:
        raise _Unchecked("there are no tasks yet")
    now, created = core.clock(), newest[0].created_at
    if created > now:
        raise _Fault(
            f"the clock says {show.moment(now)}, the newest task is of {show.moment(created)}",
            cure="set the machine's clock (NTP); ids, deadlines and signed URLs rest on it",
        )
    return f"not before the newest task ({show.moment(created)})"


async def _worker(core: Core, *, readable: bool) -> Finding:
    """Information only: a stopped server is no fault."""
    if core.settings.shared_database:
        state = "on the shared database, any machine's"
    else:
        state = "running" if worker_runs(core.settings) else "not running"
    if not readable:
        return Finding(name="worker", holds=None, message=state)
    try:
        unfinished, unknown = await _count_unfinished(core), await _unknown_attempts(core)
    except (CalotypeError, sqlite3.Error) as error:
        return Finding(name="worker", holds=None, message=f"{state}; {error}")
    paid = [word for word, attempt in unknown if not _is_free(core, attempt)]
    details = [f"{word}: may have been paid upstream; calotype tasks show {word}" for word in paid]
    return Finding(
        name="worker",
        holds=None,
        message=f"{state}; unfinished tasks: {unfinished}; unknown attempts "
        f"(of the newest {UNKNOWN_READ}): {len(unknown)}",
        details=tuple(_first(details)),
    )


def worker_runs(settings: Settings) -> bool:
    """Whether a process develops tasks in this data folder: it holds the lock of the folder."""
    try:
        file = settings.worker_lock_path.open("rb")
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


async def _count_unfinished(core: Core) -> int:
    after, count = 0, 0
    while page := await core.store.unfinished(after=after, limit=_PAGE):
        after, count = page[-1].task_id, count + len(page)
    return count


async def _unknown_attempts(core: Core) -> list[tuple[str, Attempt]]:
    """Attempts of which nobody knows whether they were bought, with their tasks' names."""
    found = await core.store.operating.unknown(limit=UNKNOWN_READ)
    return [(encode("task", one.task_id), one.attempt) for one in found]


def _is_free(core: Core, attempt: Attempt) -> bool:
    """Whether an attempt cost nothing, however it ended."""
    channel = core.router.get(attempt.channel_id)
    if channel is None:
        return False
    return channel.free or channel.provider == SANDBOX


_CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("configuration", _configuration),
    ("channels", _channels),
    ("clock", _clock),
    ("data folder", _folder),
    ("secret", _secret),
    ("asset store", _assets),
    (_DATABASE, _database),
)
_DATABASE_CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("books", _books),
    ("images", _results),
    ("task times", _clock_against_tasks),
)
