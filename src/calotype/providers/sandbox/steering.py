"""Words in a prompt that steer the sandbox, like the test cards of a payment API.

``sandbox:WORD`` or ``sandbox:WORD=NUMBER``, anywhere in the prompt.
``docs/guides/sandbox.md`` explains each word; a test holds the two together.
"""

import re
from typing import Final

import msgspec

WORDS: Final = {
    "delay": "work for NUMBER seconds",
    "429": "refuse the first NUMBER sends (1 when left out) as rate limited",
    "500-before": "refuse the first NUMBER sends (1 when left out) with a server error",
    "500-after": "accept, work, then end with a server error",
    "refuse": "refuse by policy",
    "malformed": "answer with something that is no image; with NUMBER, the first NUMBER times",
    "never": "accept and never finish",
    "unstoppable": "go on when the job is cancelled",
    "unknown": "drop the connection so that nobody knows whether the job was accepted",
}
_FORM: Final = re.compile(r"\bsandbox:([a-z0-9-]+)(?:=([\w.+-]*))?")
_NUMBER: Final = re.compile(r"\d{1,6}(?:\.\d{1,3})?", re.ASCII)


class Steering(msgspec.Struct, frozen=True):
    """What the prompt asks of the sandbox."""

    words: dict[str, float | None]
    """Word → its number, where it has one."""
    unknown: tuple[str, ...]
    """What looks like steering and is none: another word, or a number that cannot be read."""

    def times(self, word: str) -> int:
        """How many sends a word is good for: its number, 1 without one, 0 when absent."""
        if word not in self.words:
            return 0
        number = self.words[word]
        return 1 if number is None else int(number)


def read_steering(prompt: str) -> Steering:
    """The steering words of a prompt."""
    words: dict[str, float | None] = {}
    unknown: list[str] = []
    for match in _FORM.finditer(prompt):
        word, number = match.groups()
        if word not in WORDS:
            unknown.append(word)
        elif number is None:
            words[word] = None
        elif _NUMBER.fullmatch(number := number.rstrip(".")):  # the sentence may end here
            words[word] = float(number)
        else:
            unknown.append(f"{word}={number}")
    return Steering(words, tuple(unknown))
