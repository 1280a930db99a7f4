"""Accounts, API keys and the entries that a person books."""

import sqlite3
from collections.abc import Mapping

from calotype.domain.keys import ApiKey
from calotype.domain.money import EFFECTS, Balance, EntryKind
from calotype.store import rows, statements
from calotype.store.port import Account
from calotype.store.refusals import cannot_take_away


def open_account(connection: sqlite3.Connection, name: str, now: int) -> Account:
    """The account of this name, made when there is none."""
    connection.execute(
        "INSERT INTO accounts (name, created_at) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
        (name, now),
    )
    found = connection.execute(f"SELECT {rows.ACCOUNT} FROM accounts WHERE name = ?", (name,))
    return rows.account(found.fetchone())


def book(
    connection: sqlite3.Connection,
    account_id: int,
    *,
    kind: EntryKind,
    amount: int,
    note: str,
    now: int,
) -> Balance:
    """Write an entry that belongs to no task."""
    effect = EFFECTS[kind]
    booked = connection.execute(
        "UPDATE accounts SET balance = balance + ?1 WHERE id = ?2 AND balance + ?1 >= reserved "
        "RETURNING balance, reserved",
        (effect.balance * amount, account_id),
    ).fetchall()
    if not booked:
        raise cannot_take_away(-amount)
    connection.execute(
        "INSERT INTO ledger (account_id, kind, amount, note, created_at) VALUES (?, ?, ?, ?, ?)",
        (account_id, kind, amount, note, now),
    )
    balance, reserved = booked[0]
    return Balance(balance=balance, reserved=reserved)


def add_key(connection: sqlite3.Connection, key: ApiKey, digest: bytes) -> None:
    """Keep a key by its hash, and its limits."""
    connection.execute(statements.ADD_KEY, rows.key_values(key, digest))
    if key.metered:
        connection.execute(statements.ADD_METER, rows.meter_values(key))


def note_used(connection: sqlite3.Connection, used: Mapping[int, int]) -> None:
    """Keep when keys were last used, unless they were since."""
    connection.execute(
        "UPDATE api_keys SET last_used_at = MAX(COALESCE(last_used_at, 0), seen.at) "
        "FROM (SELECT value ->> 0 AS id, value ->> 1 AS at FROM json_each(?)) AS seen "
        "WHERE api_keys.id = seen.id",
        (rows.encode([*used.items()]).decode(),),
    )


def revoke_key(connection: sqlite3.Connection, key_id: int, now: int) -> bool:
    """Revoke a key that is not revoked yet."""
    revoked = connection.execute(
        "UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, key_id)
    )
    return revoked.rowcount == 1
