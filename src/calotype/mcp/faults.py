"""What a tool tells when it cannot do what it was asked, for the agent to read and act on."""

from typing import Final

from calotype.client import APIError, CalotypeError

BROKEN: Final = "Something broke on our side; the logs tell more."


class ToolFault(Exception):
    """A tool cannot do what it was asked; the message says why, and what would be right."""


def told(error: CalotypeError) -> str:
    """What the API, or the way to it, has against a call."""
    key = error.idempotency_key
    if key is None or not error.maybe_received:
        return _cause(error)
    return in_doubt(_cause(error), key)


def in_doubt(cause: str, key: str) -> str:
    """What to tell of a submission of which it is not known whether it got through."""
    return (
        f"{cause.rstrip('.')}. A task may have been made all the same: the same call with "
        f'idempotency_key "{key}" goes on with it and buys nothing twice.'
    )


def _cause(error: CalotypeError) -> str:
    if not isinstance(error, APIError):
        return str(error)
    about = f"{error.code}, field {error.param}" if error.param else error.code
    again = f" Try again in {error.retry_after:g} s." if error.retry_after else ""
    return f"{error.message} ({about}){again}"
