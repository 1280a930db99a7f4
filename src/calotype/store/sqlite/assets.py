"""Rows of stored images."""

import sqlite3
from collections.abc import Sequence

from calotype.domain.task import Asset


def insert_assets(
    connection: sqlite3.Connection,
    assets: Sequence[Asset],
    *,
    task_id: int,
    kind: str,
    expires_at: int | None,
) -> None:
    """Write down images that lie in the asset store already."""
    connection.executemany(
        "INSERT INTO assets (id, account_id, task_id, kind, key, content_type, bytes, width, "
        "height, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
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
        ],
    )
