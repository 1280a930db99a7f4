"""What a page is asked for behind the question mark of its address."""

from collections.abc import Mapping
from typing import Final

from starlette.requests import Request

from calotype.console.errors import PageError
from calotype.domain.catalog import quoted

Notices = Mapping[str, tuple[str, str]]
"""What a page says of what was just done, by a word: the kind of the notice and its text."""
SAID: Final = "said"


def notice(request: Request, notices: Notices) -> tuple[str, str]:
    """What a page is to say, by the word in its address; nothing where there is none.

    Raises:
        PageError: the page does not know the word.

    """
    word = asked(request, SAID)[SAID]
    if word and word not in notices:
        raise PageError(400, f"This page has nothing to say of {quoted(word)}.")
    return notices.get(word, ("", ""))


def asked(request: Request, *names: str) -> Mapping[str, str]:
    """Each of these by name, without the space around it; empty where it is not there.

    Raises:
        PageError: the address asks for something else, or twice for the same, or holds a NUL.

    """
    found = dict.fromkeys(names, "")
    seen: set[str] = set()
    for name, value in request.query_params.multi_items():
        if name not in found:
            known = f"it knows {', '.join(names)}" if names else "it knows none"
            raise PageError(400, f"This page has no {quoted(name)} in its address; {known}.")
        if name in seen:
            raise PageError(400, f"The address of this page says {name} twice; say it once.")
        if "\0" in value:
            raise PageError(400, f"The address of this page has a NUL in {name}; take it out.")
        seen.add(name)
        found[name] = value.strip()
    return found
