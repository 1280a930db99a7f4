"""Cleaning what an upstream wrote, before a client or a log gets to see it."""

import re
from collections.abc import Collection, Iterable
from typing import Final

HIDDEN: Final = "…"
_READ: Final = 4000
"""Most characters that are looked at."""
_DOMAINS: Final = (
    "com|net|org|io|ai|co|cn|eu|us|uk|de|fr|jp|kr|sg|dev|app|cloud|xyz|tech|info|run|media|delivery"
    "|local|localdomain|localhost|lan|internal|intranet|corp|home|svc|example|test|invalid"
)
"""What names of hosts end with: enough of it, and nothing that fields and files end with."""
_PRIVATE: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s\"'<>]*[^\s\"'<>.,:;)\]]"  # a URL
    rf"|(?<![\w.-])(?:[A-Za-z0-9-]{{1,63}}\.){{1,8}}(?:{_DOMAINS})(?![\w-])(?::\d{{1,5}})?"
    r"|(?<![\w.-])localhost(?![\w-])(?::\d{1,5})?"
    r"|(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\w)(?::\d{1,5})?"
    r"|\[[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f.]{0,15}){2,7}\](?::\d{1,5})?"
    # Names of accounts and keys, which may be masked; `key-value` and the like are none.
    r"|(?<![A-Za-z0-9])(?:org|proj|sk|pk)[-_][\w*-]{4,}"
    r"|(?<![A-Za-z0-9])key[-_](?=[\w*-]*[0-9A-Z*])[\w*-]{4,}"
)


def scrubbed(text: str, secrets: Collection[str]) -> str:
    """A text in one line, printable, without secrets, addresses, and names of accounts."""
    known = sorted(filter(None, secrets), key=len, reverse=True)
    text = _without(known, text)[:_READ]
    text = "".join(letter for letter in text if letter.isprintable() or letter.isspace())
    text = _without(known, " ".join(text.split()))
    return _PRIVATE.sub(HIDDEN, text)


def _without(secrets: Iterable[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text
