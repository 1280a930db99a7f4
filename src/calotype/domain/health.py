"""Which channels are well: windowed circuit breakers, for each channel and each of its models.

A breaker opens on a rate of faults, never on one. While it is open nothing is sent; when its hold
is over, real traffic tries it (half-open): a few sends at a time, and the first that tells
anything closes it or opens it again for twice as long. No probe costs money.
"""

from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from calotype.domain.outcomes import Fault

WHOLE: Final = ""
"""The ``model`` of a breaker for the whole channel."""


class Rule(msgspec.Struct, frozen=True):
    """When faults of one kind open a breaker.

    Args:
        whole: the breaker of the whole channel; otherwise that of the one model.
        least: faults in the window before anything opens.
        rate: share of faults in the window from which it opens.
        hold_ms: how long it stays open at first.
        longest_ms: and at most, doubled each time a trial fails.

    """

    whole: bool
    least: int
    rate: float
    hold_ms: int
    longest_ms: int


WINDOW_MS: Final = 60_000
RULES: Final[dict[Fault, Rule]] = {
    Fault.KEY: Rule(whole=True, least=3, rate=0.5, hold_ms=60_000, longest_ms=300_000),
    Fault.ACCOUNT: Rule(whole=True, least=3, rate=0.5, hold_ms=60_000, longest_ms=300_000),
    Fault.UNREACHABLE: Rule(whole=True, least=5, rate=0.5, hold_ms=5_000, longest_ms=60_000),
    Fault.MODEL: Rule(whole=False, least=3, rate=0.5, hold_ms=60_000, longest_ms=300_000),
    Fault.BUSY: Rule(whole=False, least=10, rate=0.5, hold_ms=5_000, longest_ms=60_000),
    Fault.UPSTREAM: Rule(whole=False, least=10, rate=0.5, hold_ms=15_000, longest_ms=300_000),
}
"""Faults that are not here lie in the request, and say that the channel is alive."""
_SILENT: Final = frozenset({Fault.OURS})
"""Faults that say nothing of the channel."""
TRIALS: Final = 3
"""Sends of one process to a half-open channel before one of them has told anything."""
LONGEST_BUSY_MS: Final = 300_000
"""No ``Retry-After`` is believed beyond this; the tasks of a channel wait for it."""
_UNDER_WAY_MS: Final = 5_000
"""So long a breaker that this process opened may be on its way to the others."""
_LEAST_SHARE: Final = 0.05
"""Of its weight, which a channel keeps however badly its last minute went."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """An open (or half-open) breaker, as every process sees it."""

    channel_id: int
    model: str
    """``WHOLE``, or a public model id."""
    fault: str
    until: int
    """Open until then, half-open after it."""
    strikes: int
    """How often in a row it opened."""
    opened_at: int
    updated_at: int
    detail: str = ""


class Happening(StrEnum):
    """What a breaker does."""

    OPENED = "opened"
    CLOSED = "closed"


class Change(msgspec.Struct, frozen=True):
    """What one outcome did to a breaker."""

    happening: Happening
    health: Health


class _Window:
    """The outcomes of the last minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, bool]] = deque()
        self._bad = 0

    def note(self, *, bad: bool, now: int) -> None:
        self._forget(now)
        self._seen.append((now, bad))
        self._bad += bad

    def _forget(self, now: int) -> None:
        while self._seen and self._seen[0][0] <= now - WINDOW_MS:
            self._bad -= self._seen.popleft()[1]

    def too_bad(self, rule: Rule) -> bool:
        return self._bad >= rule.least and self._bad >= rule.rate * len(self._seen)

    def good_share(self, now: int) -> float:
        self._forget(now)
        return (len(self._seen) - self._bad + 1) / (len(self._seen) + 1)

    def clear(self) -> None:
        self._seen.clear()
        self._bad = 0


class Breakers:
    """The breakers of every channel, as this process knows them."""

    def __init__(self) -> None:
        self._windows: dict[tuple[int, str], _Window] = {}
        self._open: dict[tuple[int, str], Health] = {}
        self._trials: dict[tuple[int, str], tuple[int, int]] = {}
        self._busy: dict[tuple[int, str], int] = {}

    def note_accepted(self, channel_id: int, model: str, *, begun: int, now: int) -> list[Change]:
        """Take in that a job was accepted: the way there is well; the work is yet to be seen."""
        changes = self._note_in(channel_id, WHOLE, None, begun=begun, now=now)
        known = self._open.get((channel_id, model))
        if known is not None and known.fault != Fault.UPSTREAM:
            changes += self._note_in(channel_id, model, None, begun=begun, now=now)
        return changes

    def note_ended(
        self,
        channel_id: int,
        model: str,
        fault: Fault | None,
        *,
        detail: str = "",
        begun: int,
        now: int,
    ) -> list[Change]:
        """Take in how an accepted job ended (``None``: well): that speaks of the model alone."""
        rule = RULES.get(fault) if fault else None
        if fault in _SILENT or (rule is not None and rule.whole):
            return []
        return self._note_in(
            channel_id, model, rule, fault=fault, detail=detail, begun=begun, now=now
        )

    def note(
        self,
        channel_id: int,
        model: str,
        fault: Fault | None,
        *,
        detail: str = "",
        begun: int | None = None,
        now: int,
    ) -> list[Change]:
        """Take in the outcome of one send (``None``: it went well); returns what it changed.

        ``begun``: when it was sent; what was sent before a breaker opened tells nothing new of it.
        """
        if fault in _SILENT:
            return []
        rule = RULES.get(fault) if fault else None
        if rule is None:
            scopes: tuple[str, ...] = (WHOLE, model)
        else:
            scopes = (WHOLE if rule.whole else model,)
        since = now if begun is None else begun
        changes: list[Change] = []
        for scope in scopes:
            changes += self._note_in(
                channel_id, scope, rule, fault=fault, detail=detail, begun=since, now=now
            )
        return changes

    def _note_in(
        self,
        channel_id: int,
        scope: str,
        rule: Rule | None,
        *,
        fault: Fault | None = None,
        detail: str = "",
        begun: int,
        now: int,
    ) -> list[Change]:
        key = (channel_id, scope)
        health = self._open.get(key)
        if health is not None and begun < health.until:
            return []  # sent before it opened, or in spite of it
        window = self._windows.setdefault(key, _Window())
        window.note(bad=rule is not None, now=now)
        change = self._judge(key, window, rule, fault=fault, detail=detail, now=now)
        return [change] if change else []

    def forget(self, channel_id: int) -> None:
        """Begin anew with a channel, because it is another one now."""
        for key in [
            key for key in (*self._open, *self._windows, *self._busy) if key[0] == channel_id
        ]:
            self._shut(key)
            self._busy.pop(key, None)

    def _judge(
        self,
        key: tuple[int, str],
        window: _Window,
        rule: Rule | None,
        *,
        fault: Fault | None,
        detail: str,
        now: int,
    ) -> Change | None:
        health = self._open.get(key)
        if rule is None or fault is None:
            if health is None:
                return None
            self._shut(key)
            return Change(Happening.CLOSED, msgspec.structs.replace(health, updated_at=now))
        if health is None and not window.too_bad(rule):
            return None
        strikes = health.strikes + 1 if health else 0
        opened = Health(
            channel_id=key[0],
            model=key[1],
            fault=fault,
            until=now + min(rule.longest_ms, rule.hold_ms * 2 ** min(strikes, 20)),
            strikes=strikes,
            opened_at=health.opened_at if health else now,
            updated_at=now,
            detail=detail,
        )
        self._open[key] = opened
        self._trials.pop(key, None)
        return Change(Happening.OPENED, opened)

    def _shut(self, key: tuple[int, str]) -> None:
        self._open.pop(key, None)
        self._trials.pop(key, None)
        self._windows.pop(key, None)

    def hold(self, channel_id: int, model: str, *, until: int, now: int) -> None:
        """The upstream asked for patience with this model: it is asked nothing until then."""
        key = (channel_id, model)
        wanted = min(until, now + LONGEST_BUSY_MS)
        self._busy[key] = max(wanted, self._busy.get(key, 0))

    def adopt(self, known: Sequence[Health], *, now: int) -> None:
        """Take over what all processes know, in place of what this one knew of open breakers."""
        fresh = {(health.channel_id, health.model): health for health in known}
        for key, health in list(self._open.items()):
            if key not in fresh and health.updated_at < now - _UNDER_WAY_MS:
                self._shut(key)
        for key, health in fresh.items():
            mine = self._open.get(key)
            if mine is None or mine.updated_at < health.updated_at:
                self._open[key] = health
                self._trials.pop(key, None)

    def opens_at(self, channel_id: int, model: str, *, now: int) -> int:
        """When something may be sent: now, or the time at which a hold ends (milliseconds)."""
        at = max(now, self._busy.get((channel_id, model), 0))
        for scope in (WHOLE, model):
            key = (channel_id, scope)
            health = self._open.get(key)
            if health is None:
                continue
            at = max(at, health.until)
            used, since = self._trials.get(key, (0, now))
            if used >= TRIALS:  # trials that told nothing in the time of one more hold are lost
                at = max(at, since + max(health.until - health.updated_at, 1))
        return at

    def closed(self, channel_id: int, model: str, *, now: int) -> bool:
        """Whether something may be sent now, and be no trial."""
        is_open = any((channel_id, scope) in self._open for scope in (WHOLE, model))
        return not is_open and self._busy.get((channel_id, model), 0) <= now

    def begin(self, channel_id: int, model: str, *, now: int) -> None:
        """A send goes out; on a half-open channel it is a trial."""
        for scope in (WHOLE, model):
            key = (channel_id, scope)
            health = self._open.get(key)
            if health is None:
                continue
            used, since = self._trials.get(key, (0, now))
            renewed = used >= TRIALS and now >= since + (health.until - health.updated_at)
            self._trials[key] = (1, now) if renewed else (used + 1, since)

    def share(self, channel_id: int, model: str, *, now: int) -> float:
        """What part of its weight a channel keeps, by how its last minute went: 0.05 to 1."""
        share = 1.0
        for scope in (WHOLE, model):
            if (channel_id, scope) in self._open:
                return _LEAST_SHARE
            window = self._windows.get((channel_id, scope))
            if window is not None:
                share = min(share, window.good_share(now))
        return max(_LEAST_SHARE, share)

    def open(self) -> list[Health]:
        """Every breaker that is open or half-open."""
        return sorted(self._open.values(), key=lambda health: (health.channel_id, health.model))
