"""SQL generated from the domain's tables, so that no store can differ from them."""

from calotype.domain.money import EFFECTS
from calotype.domain.task import TRANSITIONS, Event


def enters(event: Event) -> str:
    """The state after an event, as an expression over the column ``state``."""
    cases = " ".join(
        f"WHEN '{left}' THEN '{entered}'" for left, entered in TRANSITIONS[event].enters.items()
    )
    return f"CASE state {cases} END"


def leaves(event: Event) -> str:
    """Whether an event may happen, as a condition on the column ``state``."""
    states = ", ".join(f"'{state}'" for state in TRANSITIONS[event].enters)
    return f"state IN ({states})"


def ledger_sum(side: str) -> str:
    """What an account's entries come to, ``side`` being a field of ``money.Effect``."""
    cases = " ".join(
        f"WHEN '{kind}' THEN {getattr(effect, side)} * amount" for kind, effect in EFFECTS.items()
    )
    return f"SUM(CASE kind {cases} END)"
