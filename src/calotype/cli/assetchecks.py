"""What ``calotype doctor --assets`` checks: that every file has its row, and every row its file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer

from calotype.assets.port import AssetStore
from calotype.cli import session, show
from calotype.cli.checks import Finding
from calotype.core import Core, asset_store_of
from calotype.domain.errors import CalotypeError
from calotype.services.audit import CLI
from calotype.services.orphans import AGE_MS, Agreement, Orphans, Tally

_NAME: Final = "all images"
_FILES: Final = "asset files"
_REMOVE: Final = "calotype doctor --assets --remove-orphans"
_CHECK: Final = (
    "nothing is removed: most files belong to no image, or most images have no file; see whether "
    "this is the database of these files, and that no other Calotype keeps its images there"
)


async def examine_assets(core: Core) -> Sequence[Finding]:
    """Compare every file with every row."""
    place = session.assets_place(core.settings)
    if isinstance(place, Path) and not place.is_dir():
        return [Finding(name=_FILES, holds=None, message="no image was stored yet")]
    assets = asset_store_of(core.settings)
    try:
        if core.settings.shared_database or core.settings.database_path.exists():
            return _findings(await _orphans(core, assets).compare())
        return [Finding(name=_FILES, holds=None, message="there is no database to compare with")]
    except CalotypeError as error:
        cure = "see that the database and the store of the images answer"
        return [Finding(name=_FILES, holds=False, message=str(error), cure=cure)]
    finally:
        await assets.close()
        await core.store.close()


async def remove_orphans(core: Core) -> Tally:
    """Remove files that no row names, as the audit has it.

    Raises:
        errors.Unavailable: some could not be removed.

    """
    assets = asset_store_of(core.settings)
    try:
        async with core.audit.action(CLI, "assets.remove_orphans", "asset store") as noting:
            removed = await _orphans(core, assets).remove()
            noting.detail = f"{removed.count} files, {show.size(removed.bytes)}"
            return removed
    finally:
        await assets.close()


def ask(findings: Sequence[Finding], *, yes: bool) -> bool:
    """Whether there are orphans to be removed, and they may be."""
    if all(one.cure != _REMOVE for one in findings):
        return False
    return yes or typer.confirm("Remove the files that no row names, for good?")


def _orphans(core: Core, assets: AssetStore) -> Orphans:
    return Orphans(core.store, assets, before=core.clock() - AGE_MS)


def _findings(found: Agreement) -> list[Finding]:
    findings = [
        Finding(
            name=_FILES,
            holds=not found.orphans.count,
            message=f"{_told(found.orphans)} of {found.files} belong to no image"
            if found.orphans.count
            else f"each of {found.files} belongs to an image or is new",
            cure=_cure(found),
            details=_names(found.orphans),
        ),
        Finding(
            name=_NAME,
            holds=not found.missing.count,
            message=f"{found.missing.count} of {found.images} have no file"
            if found.missing.count
            else f"each of {found.images} has its file",
            cure="restore the files from a backup" if found.missing.count else "",
            details=_names(found.missing),
        ),
    ]
    if found.foreign.count:
        message = f"{_told(found.foreign)} are not called like ours; they are left alone"
        findings.append(
            Finding(name=_FILES, holds=None, message=message, details=_names(found.foreign))
        )
    return findings


def _cure(found: Agreement) -> str:
    if not found.orphans.count:
        return ""
    return _CHECK if found.is_of_strangers else _REMOVE


def _told(tally: Tally) -> str:
    return f"{tally.count} ({show.size(tally.bytes)})"


def _names(tally: Tally) -> tuple[str, ...]:
    left = tally.count - len(tally.names)
    return (*tally.names, *([f"… and {left} more"] if left else []))
