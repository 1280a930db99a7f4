"""How runs of chaos, bad networks and soaking tell what came of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def told(title: str, lines: Mapping[str, object]) -> str:
    """A title, and a line for each figure below it."""
    width = max(map(len, lines)) + 2
    return "\n".join([title, *(f"  {name:<{width}}{value}" for name, value in lines.items())])


def counted(counter: Counter[Any]) -> str:
    """How many of each."""
    return ", ".join(f"{number} {name}" for name, number in sorted(counter.items())) or "none"


def thinned(samples: Sequence[int]) -> str:
    """Some dozen samples of many."""
    return ", ".join(map(str, samples[:: max(1, len(samples) // 12)]))


def some(faults: Sequence[str]) -> str:
    """How many faults there are, and the first of them."""
    return "\n    ".join([str(len(faults)), *faults[:20]])
