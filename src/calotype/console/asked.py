"""What the query of a page asks for; what makes no sense is told, never left out."""

from collections.abc import Collection
from typing import Final

from starlette.requests import Request

from calotype.console.errors import PageError
from calotype.domain.catalog import quoted

_TITLE: Final = "Not a page of this console"


def asked(request: Request, **known: Collection[str] | None) -> dict[str, str]:
    """The query of a page by name, empty where a name is left out.

    Args:
        request: for the page.
        known: name → the values that it may have; None: any.

    Raises:
        PageError: another name or value, or one twice.

    """
    found = dict.fromkeys(known, "")
    for name, value in request.query_params.multi_items():
        values = known.get(name, ())
        if name not in known:
            raise _refused(f"This page has no parameter {quoted(name)}; take it out.")
        if found[name]:
            raise _refused(f"{name} stands twice in the address; once is enough.")
        if values is not None and value not in values:
            raise _refused(f"{name} is one of {', '.join(values)}, not {quoted(value)}.")
        found[name] = value
    return found


def _refused(message: str) -> PageError:
    return PageError(400, message, title=_TITLE)
