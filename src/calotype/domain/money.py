"""Money: integer micro-USDC, and what each ledger entry does to an account.

An account has a ``balance`` (what it owns) and of that a ``reserved`` part (promised to tasks
that are not final); the rest is available. Both are sums over the account's ledger entries:
``EFFECTS`` is the one table from which they are computed, by the store as by the proof.
"""

from decimal import Decimal, InvalidOperation, localcontext
from enum import StrEnum
from typing import Final

import msgspec

MICRO: Final = 1_000_000
"""Micro-USDC in one USDC."""

MAX_AMOUNT: Final = 10**15
"""The largest single amount, a billion USDC: sums stay far inside 63 bits."""

_PLACES: Final = 100
"""More digits before or behind the point than any amount has."""


class EntryKind(StrEnum):
    """Why money moved."""

    CREDIT = "credit"
    ADJUST = "adjust"
    RESERVE = "reserve"
    COMMIT = "commit"
    RELEASE = "release"


class Effect(msgspec.Struct, frozen=True):
    """How one unit of an entry changes the two sums of its account."""

    balance: int
    reserved: int


EFFECTS: Final[dict[EntryKind, Effect]] = {
    EntryKind.CREDIT: Effect(balance=1, reserved=0),
    EntryKind.ADJUST: Effect(balance=1, reserved=0),
    EntryKind.RESERVE: Effect(balance=0, reserved=1),
    EntryKind.COMMIT: Effect(balance=-1, reserved=-1),
    EntryKind.RELEASE: Effect(balance=0, reserved=-1),
}
"""Amounts are never negative, but for ``adjust``, which corrects in both directions."""


class Balance(msgspec.Struct, frozen=True):
    """What an account has, in micro-USDC."""

    balance: int
    reserved: int

    @property
    def available(self) -> int:
        """What new tasks can still be paid from."""
        return self.balance - self.reserved


def parse_usd(text: str) -> int:
    """Micro-USDC from an amount that a person typed, such as ``12.50``.

    Raises:
        ValueError: not a number, finer than a millionth, or beyond ``MAX_AMOUNT``.

    """
    try:
        amount = Decimal(text.strip())
    except InvalidOperation:
        raise ValueError(f"'{text}' is no amount; write USD such as 12.50.") from None
    if not amount.is_finite():
        raise ValueError(f"'{text}' is no amount; write USD such as 12.50.")
    too_fine = f"'{text}' is no amount in whole micro-USDC (at most six decimals)."
    too_much = f"'{text}' is more than {MAX_AMOUNT // MICRO} USD in one entry."
    if amount and abs(amount.adjusted()) > _PLACES:  # before decimal's own bounds are met
        raise ValueError(too_much if amount.adjusted() > 0 else too_fine)
    with localcontext(prec=len(text) + _PLACES):  # nothing is rounded away
        micro = amount * MICRO
        if micro != micro.to_integral_value():
            raise ValueError(too_fine)
    if abs(micro) > MAX_AMOUNT:
        raise ValueError(too_much)
    return int(micro)


def format_usd(micro: int) -> str:
    """An amount for people: at least cents, and every digit that counts."""
    whole, fraction = divmod(abs(micro), MICRO)
    digits = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micro < 0 else ''}{whole}.{digits}"
