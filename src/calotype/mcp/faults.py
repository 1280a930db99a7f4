"""What a tool tells when it cannot do what it was asked, for the agent to read and act on."""

from calotype.client import APIError, CalotypeError, ConnectionFailed


class ToolFault(Exception):
    """A tool cannot do what it was asked; the message says why, and what would be right."""


def told(error: CalotypeError) -> str:
    """What the API, or the way to it, has against a call."""
    match error:
        case APIError():
            about = f"{error.code}, field {error.param}" if error.param else error.code
            again = f" Try again in {error.retry_after:g} s." if error.retry_after else ""
            return f"{error.message} ({about}){again}"
        case ConnectionFailed(idempotency_key=str() as key) if error.maybe_received:
            return (
                f"{error}. A task may have been made all the same: the same call with "
                f'idempotency_key "{key}" goes on with it and buys nothing twice.'
            )
        case _:
            return str(error)
