"""How pages write amounts, times and ids."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from calotype.domain.clock import Clock
from calotype.domain.ids import encode
from calotype.domain.money import format_usd

_STEPS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
"""Seconds of a unit."""
_SOON: Final = 5
_DAYS_SHOWN: Final = 30
_KIB: Final = 1024
_SECOND_MS: Final = 1000
_LEAST_SHARE: Final = 0.001


def filters(clock: Clock) -> Mapping[str, Callable[..., Any]]:
    """Every filter of the templates, by name; times are milliseconds since 1970."""
    return {
        "ago": lambda ms: ago(ms, now=clock()),
        "asset": lambda number: encode("asset", number),
        "day": day,
        "duration": duration,
        "iso": iso,
        "key": lambda number: encode("key", number),
        "moment": moment,
        "percent": percent,
        "size": size,
        "task": lambda number: encode("task", number),
        "usd": usd,
    }


def usd(micro: int) -> str:
    """An amount: ``0.12 USDC``."""
    whole, _, rest = format_usd(micro).partition(".")
    return f"{int(whole):,}.{rest} USDC" if abs(int(whole)) else f"{whole}.{rest} USDC"


def ago(ms: int, *, now: int) -> str:
    """How long ago or in how long: ``5 min ago``; beyond a month, the day."""
    seconds = abs(now - ms) // _SECOND_MS
    if seconds < _SOON:
        return "just now"
    if seconds > _DAYS_SHOWN * _STEPS[0][0]:
        return day(ms)
    span, unit = next((span, unit) for span, unit in _STEPS if seconds >= span)
    told = f"{seconds // span} {unit}"
    return f"{told} ago" if now >= ms else f"in {told}"


def iso(ms: int) -> str:
    """A time for machines, as in ``<time datetime>``."""
    return _utc(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(ms: int) -> str:
    """A time in full: ``23 Nov 2026, 08:46:19 UTC``."""
    return f"{day(ms)}, {_utc(ms):%H:%M:%S} UTC"


def day(ms: int) -> str:
    """The UTC day of a time: ``23 Nov 2026``."""
    return f"{_utc(ms).day} {_utc(ms):%b %Y}"


def duration(ms: float) -> str:
    """A span: ``850 ms``, ``4.2 s``, ``3 min 20 s``, ``2 h 5 min``, ``4 d 3 h``."""
    if ms < _SECOND_MS:
        return f"{ms:.0f} ms"
    seconds = round(ms / _SECOND_MS)
    if seconds < _STEPS[2][0]:
        return f"{ms / _SECOND_MS:.1f}".removesuffix(".0") + " s"
    place = next(at for at, (span, _) in enumerate(_STEPS) if seconds >= span)
    (span, unit), (smaller, smaller_unit) = _STEPS[place], _STEPS[place + 1]
    rest = seconds % span // smaller
    return f"{seconds // span} {unit}" + (f" {rest} {smaller_unit}" if rest else "")


def size(count: float) -> str:
    """Bytes: ``812 B``, ``1.4 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < _KIB:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _KIB
    return f"{count:.1f} TiB"


def percent(share: float) -> str:
    """A share of 1: ``99.8 %``; what is not quite all is never shown as all."""
    if 1 - _LEAST_SHARE < share < 1:
        return "99.9 %"
    if 0 < share < _LEAST_SHARE:
        return "0.1 %"
    return f"{share * 100:.1f}".removesuffix(".0") + " %"


def _utc(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / _SECOND_MS, UTC)
