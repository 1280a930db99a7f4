"""Accounts, API keys and the entries that a person books."""

import sqlite3

from calotype.domain.keys import ApiKey
from calotype.domain.money import EFFECTS, Balance, EntryKind
from calotype.store import rows
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
    """Keep a key by its hash."""
    connection.execute(
        "INSERT INTO api_keys (id, account_id, name, prefix, digest, created_at, expires_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            key.id,
            key.account_id,
            key.name,
            key.prefix,
            digest,
            key.created_at,
            key.expires_at,
        ),
    )


def revoke_key(connection: sqlite3.Connection, key_id: int, now: int) -> bool:
    """Revoke a key that is not revoked yet."""
    revoked = connection.execute(
        "UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, key_id)
    )
    return revoked.rowcount == 1
