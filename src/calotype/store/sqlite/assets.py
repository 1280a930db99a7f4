"""Rows of stored images."""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from calotype.domain.task import Asset

INSERT_ASSET: Final = (
    "INSERT INTO assets (id, account_id, task_id, kind, key, content_type, bytes, width, "
    "height, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def insert_assets(
    connection: sqlite3.Connection,
    assets: Sequence[Asset],
    *,
    task_id: int,
    kind: str,
    expires_at: int | None,
) -> None:
    """Write down images that lie in the asset store already."""
    values = asset_values(assets, task_id=task_id, kind=kind, expires_at=expires_at)
    connection.executemany(INSERT_ASSET, values)


def asset_values(
    assets: Sequence[Asset], *, task_id: int, kind: str, expires_at: int | None
) -> list[tuple[Any, ...]]:
    """What ``INSERT_ASSET`` takes."""
    return [
        (
            asset.id,
            asset.account_id,
            task_id,
            kind,
            asset.key,
            asset.content_type,
            asset.bytes,
            asset.width,
            asset.height,
            asset.created_at,
            expires_at,
        )
        for asset in assets
    ]
