"""Reading what a person typed: amounts, durations, names."""

import re
from typing import Final

import typer

from calotype.domain.keys import name_of
from calotype.domain.money import parse_usd

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"([1-9]\d{0,8})([smhd])")
_LONGEST: Final = 100 * 365 * 86_400


def usd(text: str) -> int:
    """Micro-USDC from an amount such as ``12.50``; anything but nothing."""
    try:
        micro = parse_usd(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if micro == 0:
        raise typer.BadParameter("0 changes nothing; write an amount such as 12.50.")
    return micro


def positive_usd(text: str) -> int:
    """Micro-USDC from an amount above nothing."""
    micro = usd(text)
    if micro < 0:
        raise typer.BadParameter(f"'{text}' is below zero; calotype credits add takes corrections.")
    return micro


def duration(text: str) -> int:
    """Seconds from a duration such as ``30d``, ``12h``, ``90m`` or ``3600s``."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(
            f"'{text}' is no duration; write a number and s, m, h or d, such as 30d."
        )
    seconds = int(match[1]) * _UNITS[match[2]]
    if seconds > _LONGEST:
        raise typer.BadParameter(f"'{text}' is more than a hundred years.")
    return seconds


def label(text: str) -> str:
    """A name that people can read and type: one line, not empty, not endless."""
    try:
        return name_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
