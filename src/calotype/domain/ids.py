"""Public ids: 63-bit integers that grow with time, written in Crockford's base 32.

In the database an id is one integer (one b-tree, appended to at its end); outside it is a word
such as ``task_1k0v3m8a0qz4e``. 41 bits of milliseconds since 2025 last until 2094; 22 bits
number the ids within a millisecond, from a random start.
"""

import random
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Literal

Kind = Literal["task", "asset", "key", "page"]

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_TO_PYTHON: Final = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")
_LETTERS: Final = 13
_EPOCH_MS: Final = 1_735_689_600_000  # 2025-01-01T00:00:00Z
_LETTERS_FORM: Final = f"[0-7][{_ALPHABET}]{{{_LETTERS - 1}}}"
_FORM: Final = re.compile(rf"{_LETTERS_FORM}\Z")


class IdSource:
    """Makes ids that only grow within one process, whatever the clock does.

    Two processes can meet in the same millisecond; the primary key refuses the second insert,
    and the caller draws again.
    """

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._chance = random.Random()  # noqa: S311 -- keeps processes apart, guards nothing
        self._last = 0

    def next(self) -> int:
        """A new id, greater than any before it."""
        first = (self._clock_ms() - _EPOCH_MS) << 22
        self._last = first | self._chance.getrandbits(21) if first > self._last else self._last + 1
        return self._last


@lru_cache(maxsize=4096)  # a task's is told again and again
def encode(kind: Kind, number: int) -> str:
    """The public word for an id."""
    pairs = _PAIRS
    return (
        f"{kind}_{_ALPHABET[number >> 60]}{pairs[number >> 50 & 1023]}{pairs[number >> 40 & 1023]}"
        f"{pairs[number >> 30 & 1023]}{pairs[number >> 20 & 1023]}{pairs[number >> 10 & 1023]}"
        f"{pairs[number & 1023]}"
    )


def time_of(number: int) -> int:
    """When an id was drawn, in milliseconds since 1970."""
    return (number >> 22) + _EPOCH_MS


def word_pattern(kind: Kind) -> str:
    """What words of this kind look like, as a pattern of JSON Schema."""
    return f"^{kind}_{_LETTERS_FORM}$"


def decode(kind: Kind, word: str) -> int | None:
    """The id behind a public word, or None where the word is not one of ours."""
    prefix = f"{kind}_"
    letters = word[len(prefix) :]
    if not word.startswith(prefix) or not _FORM.match(letters):
        return None
    return int(letters.translate(_TO_PYTHON), 32)
